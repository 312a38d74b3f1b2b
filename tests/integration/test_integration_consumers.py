"""The consumer on Apache Kafka, where the broker's behaviour matters.

- A topic that was deleted and created again is refused by its id, with the next step, which works.
- A topic that does not exist makes a consumer unready, and transactions leave no lag.
- Reading a topic again from its beginning adds nothing.
- A static member returns within the session timeout without a rebalance.
- Two processes share the partitions while trades flow, one leaves in order, one by SIGKILL: each trade is stored once.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from integration_consumers import PARTITIONS, SYMBOLS, Consumer, Rig, trade
from integration_kafka import ApacheKafka

from marketfeed_cli.process import Parts
from marketfeed_consumers.kafka.admin_requests import topic_ids
from marketfeed_devtools.waiting import until_async
from marketfeed_service.errors import StartupError
from marketfeed_wire import encode, key_for

pytestmark = [pytest.mark.integration, pytest.mark.kafka]


@pytest.fixture
async def rig(parts: Parts, tmp_path: Path, apache_kafka: ApacheKafka, database: str) -> Rig:
    made = Rig(parts, tmp_path, apache_kafka, database, f"trades-{uuid4().hex}")
    apache_kafka.new_topic(made.topic, PARTITIONS)
    await made.command("migrate")
    return made


async def owning(consumers: list[Consumer], alive: Callable[[], None] = lambda: None) -> list[set[int]]:
    """Wait until `consumers` own all partitions, each at least one; return the partitions of each."""

    def are_shared() -> bool:
        alive()
        owned = [one.partitions() if one.is_up() else set() for one in consumers]
        return all(owned) and sum(map(len, owned)) == PARTITIONS and len(set().union(*owned)) == PARTITIONS

    await until_async(are_shared, "all partitions to be assigned")
    return [one.partitions() for one in consumers]


async def test_topic_created_again_is_refused_by_its_id_until_reset_offsets(rig: Rig) -> None:
    """The new topic is as long as the old one, so only its id differs."""
    rig.publish(range(100))
    first = rig.start()
    await until_async(lambda: rig.stored() == 100 * len(SYMBOLS), "the trades")
    assert await rig.stop(first) == 0
    before = rig.everything()
    rig.delete_topic()
    await until_async(lambda: not rig.topic_exists(), "the topic to be gone")
    rig.kafka.new_topic(rig.topic, PARTITIONS)
    rig.publish(range(100, 200))
    refused = rig.start()
    refused.part.stopped = True  # its exit is expected
    await until_async(refused.has_ended, "the refusal")
    assert refused.part.exit_code == 1
    last = refused.part.tail(1)
    assert f"topic {rig.topic} was deleted and created again" in last
    assert f"marketfeed-consumer reset-offsets --topic {rig.topic} --to earliest" in last
    assert rig.everything() == before
    printed = await rig.command("reset-offsets", "--topic", rig.topic, "--to", "earliest")
    assert printed.count("-> 0") == PARTITIONS
    again = rig.start()
    await until_async(lambda: rig.stored() == 200 * len(SYMBOLS), "the new topic's trades")
    assert await rig.stop(again) == 0
    rig.check(200)


def test_topic_id_error_is_one_line_with_topic_and_reason(
    apache_kafka: ApacheKafka,
) -> None:
    """reset-offsets printed a traceback where the topic was deleted during its request."""
    reason = r"cannot get the id of gone from Kafka: Broker: Unknown topic or partition; check"
    with pytest.raises(StartupError, match=reason):
        topic_ids(AdminClient({"bootstrap.servers": apache_kafka.address}), ["gone"])


async def test_topic_created_again_ends_a_running_consumer_without_loss(rig: Rig) -> None:
    """It continued in the new topic from the old offset and skipped all earlier records silently."""
    rig.publish(range(20))
    running = rig.start()
    await until_async(lambda: rig.stored() == 20 * len(SYMBOLS), "the trades")
    running.part.stopped = True  # its exit is expected
    rig.delete_topic()
    await until_async(lambda: not rig.topic_exists(), "the topic to be gone")
    rig.kafka.new_topic(rig.topic, PARTITIONS)
    rig.publish(range(20, 200))
    await until_async(running.has_ended, "the end of the consumer")
    assert running.part.exit_code == 1
    assert f"topic {rig.topic} was deleted and created again" in running.part.tail(1)
    await rig.command("reset-offsets", "--topic", rig.topic, "--to", "earliest")
    again = rig.start()
    await until_async(lambda: rig.stored() == 200 * len(SYMBOLS), "the new topic's trades")
    assert await rig.stop(again) == 0
    rig.check(200)


async def test_topic_that_does_not_exist_makes_a_consumer_unready_until_it_does(rig: Rig) -> None:
    """It stayed ready with a topic that was misspelt or deleted."""
    book = f"{rig.topic}-book"
    consumer = rig.start(MARKET_BOOK_TOPIC=book, CONSUMER_TOPICS=f"{rig.topic},{book}")
    unready = (503, f"topics that do not exist: {book}\n")
    await until_async(lambda: consumer.get("/readyz") == unready, "the missing topic to be reported")
    assert f'marketfeed_consumer_topic_exists{{topic="{book}"}} 0.0' in consumer.get("/metrics")[1]
    rig.kafka.new_topic(book, 1)
    await until_async(lambda: consumer.get("/readyz") == (200, "ok\n"), "the topic to be found")
    for answer in rig.kafka.admin.delete_topics([book]).values():
        answer.result()
    await until_async(lambda: consumer.get("/readyz") == unready, "the deleted topic to be reported")
    assert await rig.stop(consumer) == 0
    lines = consumer.part.log.read_text()
    assert (lines.count("topic missing"), lines.count("topic found")) == (2, 1)


async def test_lag_of_a_topic_with_transactions_reaches_0_and_no_loss_is_reported(rig: Rig) -> None:
    """Control records and aborted ones counted as lag, and as a loss once retention had deleted them."""
    producer = Producer(
        {"bootstrap.servers": rig.kafka.address, "transactional.id": rig.topic, "log_level": 0}
    )
    producer.init_transactions(30)
    for trade_id, commits in ((0, True), (1, False), (2, True), (3, False)):
        producer.begin_transaction()
        for symbol in SYMBOLS:
            producer.produce(rig.topic, encode(trade(trade_id, symbol)), key_for(symbol))
        producer.flush(30)
        (producer.commit_transaction if commits else producer.abort_transaction)(30)
    consumer = rig.start()
    partitions = [TopicPartition(rig.topic, number) for number in range(PARTITIONS)]

    def lags() -> list[str]:
        lines = consumer.get("/metrics")[1].splitlines()
        return [line.split()[-1] for line in lines if line.startswith("marketfeed_consumer_lag_messages{")]

    await until_async(lambda: rig.stored() == 2 * len(SYMBOLS), "the trades that were committed")
    await until_async(lambda: lags() == ["0.0"] * PARTITIONS, "the lag to be 0")
    assert await rig.stop(consumer) == 0
    for one in partitions:
        one.offset = -1  # the log end offset
    for answer in rig.kafka.admin.delete_records(partitions).values():
        answer.result()
    consumer = rig.start()
    await until_async(lambda: consumer.get("/readyz")[0] == 200, "a restart after retention")
    assert await rig.stop(consumer) == 0
    assert rig.stored() == 2 * len(SYMBOLS)


async def test_fencing_of_a_static_member_ends_the_older_consumer(rig: Rig) -> None:
    """It kept running without partitions and appeared healthy."""
    rig.publish(range(10))
    first = rig.start(KAFKA_GROUP_INSTANCE_ID="pod-0")
    await owning([first])
    first.part.stopped = True
    second = rig.start(KAFKA_GROUP_INSTANCE_ID="pod-0")
    await until_async(first.has_ended, "the fenced consumer")
    assert first.part.exit_code == 1
    assert "KAFKA_GROUP_INSTANCE_ID" in first.part.tail(1)
    await owning([second])
    assert await rig.stop(second) == 0
    rig.check(10)


async def test_reset_offsets_and_reading_again_adds_nothing(rig: Rig) -> None:
    """A running consumer is fenced and ends with exit code 1; its successor reads everything again."""
    rig.publish(range(300))
    running = rig.start()
    await until_async(lambda: rig.stored() == 300 * len(SYMBOLS), "the trades")
    before = rig.everything()
    running.part.stopped = True
    await rig.command("reset-offsets", "--topic", rig.topic, "--to", "earliest")
    assert rig.next_offsets() == 0
    rig.publish(range(299, 300), SYMBOLS[:1])  # a duplicate, which makes the running consumer commit
    await until_async(running.has_ended, "the running consumer to be fenced")
    assert running.part.exit_code == 1
    assert "of reset-offsets" in running.part.tail(1)
    successor = rig.start()
    await until_async(lambda: rig.next_offsets() == 300 * len(SYMBOLS) + 1, "the end of the topic")
    assert await rig.stop(successor) == 0
    assert rig.everything() == before


async def test_rebalance_is_avoided_by_a_restart_within_the_session_timeout(rig: Rig) -> None:
    other = rig.start(KAFKA_GROUP_INSTANCE_ID="pod-0")
    mine = rig.start(KAFKA_GROUP_INSTANCE_ID="pod-1")
    _, owned = await owning([other, mine])
    before = other.rebalances()
    for number in (signal.SIGTERM, signal.SIGKILL):
        mine.part.stopped = True
        mine.part.signal(number)
        await until_async(mine.has_ended, "the end")
        rig.publish(range(50 if number == signal.SIGTERM else 100), SYMBOLS)
        mine = rig.start(KAFKA_GROUP_INSTANCE_ID="pod-1")
        assert (await owning([other, mine]))[1] == owned
    await until_async(lambda: rig.stored() == 100 * len(SYMBOLS), "the trades")
    assert other.rebalances() == before
    assert await rig.stop(mine) == 0
    assert await rig.stop(other) == 0
    rig.check(100)


async def test_rebalance_while_trades_flow_stores_each_trade_once(rig: Rig) -> None:
    sent = 0

    def flow() -> None:
        nonlocal sent
        rig.publish(range(sent, sent + 20))
        sent += 20

    first = rig.start()
    await until_async(lambda: flow() or rig.stored() > 0, "the first trades")  # type: ignore[func-returns-value]
    second = rig.start()
    await owning([first, second], flow)
    third = rig.start()
    await owning([first, second, third], flow)
    assert await rig.stop(second) == 0
    await owning([first, third], flow)
    third.part.stopped = True
    third.part.signal(signal.SIGKILL)
    await owning([first], flow)
    await until_async(lambda: rig.stored() == sent * len(SYMBOLS), "all trades")
    assert await rig.stop(first) == 0
    rig.check(sent)
    assert "another consumer of group" not in first.part.tail(1)
