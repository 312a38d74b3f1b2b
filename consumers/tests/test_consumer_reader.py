"""The reader's batch when a rebalance occurs during a read."""

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Message, TopicPartition
from consumer_market import trade

from marketfeed_consumers.kafka.admin_requests import consumer_config
from marketfeed_consumers.kafka.reader import Reader
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import State
from marketfeed_devtools.waiting import until
from marketfeed_service import settings

pytestmark = pytest.mark.integration
ENVIRONMENT = {"DATABASE_URL": "postgresql://nobody@localhost/none"}


class Rebalanced(KafkaConsumer):
    """A Kafka client with a rebalance in its next `consume`; `rebalance` is the effect of its callbacks."""

    rebalance: Callable[[], None] | None = None

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        if self.rebalance is not None:
            self.rebalance()
            self.rebalance = None
        return super().consume(num_messages, timeout)


@pytest.fixture
def reader(broker: str, topic: str) -> Iterator[Reader]:
    environment = {"KAFKA_BROKER": broker, "MARKET_TRADES_TOPIC": topic, "CONSUMER_TOPICS": topic}
    read = settings.read(ConsumerSettings, {**ENVIRONMENT, **environment})
    made = Reader(read, State())
    made.client.close()
    made.client = Rebalanced(consumer_config(read, lambda _: None))
    yield made
    made.client.close()


@pytest.mark.parametrize("what", ["revoke", "rewind"])
def test_rebalance_removes_the_record_polled_before_it(
    reader: Reader, publish: Callable[..., None], topic: str, what: str
) -> None:
    publish(topic, *(trade(number) for number in range(3)))
    found = reader.client.list_topics(topic, 20).topics[topic].partitions
    ours = [TopicPartition(topic, number, 0) for number in found]
    reader.client.incremental_assign(ours)

    def rebalance() -> None:
        if what == "revoke":
            reader.drop({(topic, one.partition) for one in ours})
            reader.client.incremental_unassign(ours)
        else:
            reader.take_batch()
            reader.rewind({(topic, one.partition): 0 for one in ours})

    assert isinstance(reader.client, Rebalanced)
    reader.client.rebalance = rebalance

    def rebalanced() -> bool:
        reader.read(reader.fill(writer_idle=True))
        return reader.client.rebalance is None

    until(rebalanced, "a record, and a rebalance behind it")
    if what == "revoke":
        assert reader.batch.records == []
        return

    def all_read() -> bool:
        reader.read(reader.fill(writer_idle=True))
        return len(reader.batch.records) >= 3

    until(all_read, "the records to be read again")
    assert [record.offset() for record in reader.batch.records] == [0, 1, 2]


def test_rebalance_resumes_a_partition_that_was_revoked_while_paused(
    reader: Reader, publish: Callable[..., None], topic: str
) -> None:
    """Regression: it was owned and never read: the client keeps partitions paused over assignments."""
    publish(topic, trade(1))
    numbers = reader.client.list_topics(topic, 20).topics[topic].partitions
    begin = {(topic, number): 0 for number in numbers}
    reader.begin(begin)
    reader.keep_membership()
    reader.client.incremental_unassign([TopicPartition(topic, number) for number in numbers])
    reader.drop(set(begin))
    reader.resume()
    reader.begin(begin)

    def has_read() -> bool:
        reader.read(reader.fill(writer_idle=True))
        return bool(reader.batch.records)

    until(has_read, "a record")
