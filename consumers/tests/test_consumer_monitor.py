"""The monitor detects unreachable brokers, their return, and lag, while no records arrive."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from consumer_market import trade

from marketfeed_consumers.kafka import monitor
from marketfeed_consumers.kafka.reader import Reader
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import PartitionState, State
from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until
from marketfeed_service import settings

pytestmark = pytest.mark.integration


class Watched:
    """A reader and a monitor of one topic on the broker at `address`."""

    def __init__(self, address: str, topic: str) -> None:
        environment = {
            "DATABASE_URL": "postgresql://nobody@localhost/none",
            "KAFKA_BROKER": address,
            "MARKET_TRADES_TOPIC": topic,
            "CONSUMER_TOPICS": topic,
        }
        self.topic, self.state, self.passed = topic, State(), dict[Any, Any]()
        self.reader = Reader(settings.read(ConsumerSettings, environment), self.state)
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        self.watch = monitor.KafkaMonitor((topic,), admin, self.state, self.reader, {}, self._pass)
        self.watch.begin()

    def own(self, partitions: Mapping[int, int]) -> None:
        for number, offset in partitions.items():
            self.state.partitions[self.topic, number] = PartitionState(1, offset)
        self.reader.begin({(self.topic, number): offset for number, offset in partitions.items()})

    def step(self) -> None:
        self.reader.read(self.reader.fill(writer_idle=True))
        self.watch.step()

    def _pass(self, ends: Mapping[Any, Any]) -> None:
        self.passed.update(ends)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Watched]]:
    monkeypatch.setattr(monitor, "_INTERVAL_SECONDS", 0.1)
    made: list[Watched] = []

    def one(address: str, topic: str) -> Watched:
        made.append(Watched(address, topic))
        return made[-1]

    yield one
    for each in made:
        each.reader.client.close()


def test_monitor_updates_lag_while_partitions_are_paused(
    watched: Callable[[str, str], Watched], broker: str, publish: Callable[..., None], topic: str
) -> None:
    """Regression: the lag was frozen while the database was unreachable."""
    publish(topic, trade(1))
    one = watched(broker, topic)
    one.own(dict.fromkeys(one.reader.client.list_topics(topic, 20).topics[topic].partitions, 0))
    one.reader.keep_membership()
    publish(topic, *(trade(number) for number in range(2, 9)))

    def ends() -> int:
        one.watch.step()
        return sum(each.end_offset or 0 for each in one.state.partitions.values())

    until(lambda: ends() == 8, "the log end offset")


def test_monitor_reports_a_frozen_or_stopped_broker_until_it_responds(
    watched: Callable[[str, str], Watched], topic: str
) -> None:
    """Regression: a frozen broker was never reported, and cached metadata of a stopped one counted as a response."""
    with Broker() as broker:
        producer = Producer({"bootstrap.servers": broker.address})
        producer.produce(topic, b"", partition=0)
        assert producer.flush(20) == 0
        one = watched(broker.address, topic)
        one.own({0: 1})
        owned = one.state.partitions[topic, 0]

        def reachable() -> bool:
            one.step()
            return not one.state.kafka_error and owned.end_offset == 1

        def unreachable() -> bool:
            one.step()
            return "Kafka does not respond" in one.state.kafka_error

        until(reachable, "the end")
        broker.freeze()
        until(unreachable, "the frozen broker to be reported")
        assert owned.end_offset is None, "an unknown end was exported"
        broker.thaw()
        until(reachable, "the broker to answer again")
        broker.kill()
        until(unreachable, "the stopped broker to be reported")
