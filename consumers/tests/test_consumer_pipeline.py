"""Batches in flight when one is dropped or at a deadline: none behind it is stored without it, and nothing hangs."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from consumer_market import record, trade
from consumer_support import rows
from psycopg import sql

from marketfeed_consumers.database import schema
from marketfeed_consumers.errors import LogLost, QuarantineLimitExceeded
from marketfeed_consumers.kafka.decode import Partition, batch_of
from marketfeed_consumers.kafka.group_member import GroupMember
from marketfeed_consumers.kafka.leases import AssignedPartition
from marketfeed_consumers.kafka.reader import Reader
from marketfeed_consumers.kafka.waiting import Stop, WriterWait
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import PartitionState, State
from marketfeed_consumers.storage import quarantine
from marketfeed_consumers.storage.pipeline import WritePipeline
from marketfeed_consumers.storage.writer import Writer
from marketfeed_devtools.pgproxy import Fault, Proxy
from marketfeed_devtools.waiting import until
from marketfeed_service import settings
from marketfeed_wire import Trade, encode

pytestmark = pytest.mark.integration


class Rewound(Reader):
    """Records the rewind positions; afterwards the database is reachable and the deadline is extended.

    `when_paused` is called once reading is paused.
    """

    proxy: Proxy
    stop: Stop
    gone_back_to: dict[Partition, int] | None = None
    when_paused: Callable[[], None] | None = None

    def keep_membership(self) -> None:
        super().keep_membership()
        if self.when_paused is not None:
            self.when_paused()
            self.when_paused = None

    def rewind(self, positions: Mapping[Partition, int]) -> None:
        self.gone_back_to = dict(positions)
        self.proxy.forget()
        self.stop.at_seconds = math.inf
        super().rewind(positions)


OFFSETS = 'SELECT next_offset FROM consumer_offsets ORDER BY "partition"'


@dataclass
class Rig:
    """The parts of a loop, with leases of the first two partitions of a topic."""

    topic: str
    reader: Rewound
    writer: Writer
    pipeline: WritePipeline
    stop: Stop
    ownership: GroupMember
    tables: dict[str, str]

    def submit_batch(self, trade_id: int, offset: int, symbol: str = "BTCUSDT", partition: int = 0) -> None:
        one = record(trade(trade_id, symbol), offset, self.topic, partition)
        self.reader.batch = batch_of([one], self.tables)
        self.pipeline.submit_batch()

    def store_one_with_a_changed_mark(self, database: str) -> None:
        """Make the next plans fail: the stored high-water mark has changed."""
        self.submit_batch(1, 0)
        self.finished()
        self.pipeline.collect()
        with psycopg.connect(database) as other:
            other.execute("UPDATE high_water_marks SET version = version + 1")

    def finished(self) -> None:
        self.writer.submit_load([]).result(20)  # works sequentially


@pytest.fixture
def rig(broker: str, topic: str, proxy: Proxy, proxied: str) -> Iterator[Rig]:
    with rigged(proxied, broker, topic) as made:
        made.reader.proxy = proxy
        yield made


@contextmanager
def rigged(url: str, broker: str, topic: str) -> Iterator[Rig]:
    environment = {"DATABASE_URL": url, "KAFKA_BROKER": broker, "MARKET_TRADES_TOPIC": topic}
    read = settings.read(ConsumerSettings, environment)
    state, writer, stop = State(), Writer(url), Stop()
    reader = Rewound(read, state)
    reader.stop = stop
    reader.client.incremental_assign([TopicPartition(topic, number, 0) for number in range(2)])
    waiting = WriterWait(reader, writer, state, stop)
    pipeline = WritePipeline(read, writer, state, reader, waiting, stop, lambda _plan, _stored: None)
    assigned = [AssignedPartition(topic, number, "", 0, 9) for number in range(2)]
    for leases in writer.submit_acquire(read.kafka_group, "me", assigned).result(20):
        state.partitions[topic, leases.partition] = PartitionState(leases.epoch, leases.next_offset)
    pipeline.topic_ids[topic] = ""
    pipeline.reset()
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    ownership = GroupMember(read, "me", writer, state, reader, pipeline, waiting, stop, admin)
    yield Rig(topic, reader, writer, pipeline, stop, ownership, read.tables_by_topic())
    writer.close()
    reader.client.close()


def test_pipeline_drops_the_batches_behind_a_dropped_batch(database: str, rig: Rig, proxy: Proxy) -> None:
    rig.store_one_with_a_changed_mark(database)
    rig.submit_batch(2, 1)
    rig.submit_batch(3, 2)
    rig.finished()
    for _ in range(100):
        proxy.plan("COPY trades", Fault.REFUSED, "53100")
    rig.stop.at_seconds = time.monotonic()

    rig.pipeline.collect()

    assert rig.reader.gone_back_to == {(rig.topic, 0): 1, (rig.topic, 1): 0}
    assert rows(database, OFFSETS) == [(1,), (0,)]
    assert rows(database, "SELECT trade_id FROM trades") == [(1,)]


def test_unknown_commit_is_detected_by_the_halves_of_its_batch(database: str, rig: Rig, proxy: Proxy) -> None:
    """Regression of a session in virtual time: the process ended as if fenced by another one."""
    records = [record(trade(one), one - 1, rig.topic, 0) for one in (1, 2)]
    rig.reader.batch = batch_of(records, rig.tables)
    proxy.plan("COMMIT", Fault.CUT_AFTER)
    proxy.plan("INSERT INTO consumer_offsets", Fault.REFUSED, "57014")
    rig.pipeline.submit_batch()
    rig.finished()

    rig.pipeline.collect()

    assert proxy.pending == 0
    assert rig.reader.gone_back_to == {(rig.topic, 0): 2, (rig.topic, 1): 0}
    rig.submit_batch(3, 2)
    rig.finished()
    rig.pipeline.collect()
    assert rows(database, OFFSETS) == [(3,), (0,)]


def test_unknown_commit_is_detected_after_it_was_given_up(database: str, rig: Rig, proxy: Proxy) -> None:
    proxy.plan("COMMIT", Fault.CUT_AFTER)
    for _ in range(100):
        proxy.plan("INSERT INTO consumer_offsets", Fault.REFUSED, "53100")
    rig.submit_batch(1, 0)
    until(lambda: proxy.pending < 100, "the second attempt")
    rig.pipeline.drain(0.0)
    assert rig.reader.gone_back_to == {(rig.topic, 0): 0, (rig.topic, 1): 0}

    rig.submit_batch(1, 0)
    rig.finished()
    rig.pipeline.collect()

    assert rig.reader.gone_back_to == {(rig.topic, 0): 1, (rig.topic, 1): 0}
    rig.submit_batch(2, 1)
    rig.finished()
    rig.pipeline.collect()
    assert rows(database, OFFSETS) == [(2,), (0,)]
    assert rows(database, "SELECT trade_id FROM trades ORDER BY 1") == [(1,), (2,)]


def test_stop_does_not_wait_for_a_hanging_statement(database: str, rig: Rig) -> None:
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE high_water_marks")
        rig.stop.request(0.0)

        rig.submit_batch(1, 0)

        assert rig.pipeline.is_idle
        other.rollback()
    assert rows(database, OFFSETS) == [(0,), (0,)]


def test_pipeline_does_not_store_again_what_was_stored_behind_a_failed_batch(database: str, rig: Rig) -> None:
    """Regression: the commit was attributed to another consumer, and the process ended as fenced."""
    rig.store_one_with_a_changed_mark(database)
    rig.submit_batch(2, 1)
    rig.submit_batch(1, 0, "ETHUSDT", partition=1)  # a new symbol in another partition

    rig.finished()
    rig.pipeline.collect()

    assert rows(database, OFFSETS) == [(2,), (1,)]
    assert rows(database, "SELECT symbol, trade_id FROM trades ORDER BY 1, 2") == [
        ("BTCUSDT", 1),
        ("BTCUSDT", 2),
        ("ETHUSDT", 1),
    ]
    assert rows(database, "SELECT sum(trade_count) FROM candles_1m") == [(3,)]


def test_drain_commit_just_after_the_deadline_does_not_abandon_the_next_batch(
    database: str, rig: Rig
) -> None:
    """Regression: the process ended without a reason when partitions were assigned at that moment."""
    committing = threading.Event()

    def at(point: str) -> None:
        if point == "committing":
            committing.set()
            rig.writer._give_up.wait(20)

    rig.writer._at = at
    rig.submit_batch(1, 0)
    assert committing.wait(20)

    rig.pipeline.drain(0.0)

    assert rows(database, OFFSETS) == [(1,), (0,)]
    (leases,) = rig.writer.submit_acquire(
        "marketfeed", "me", [AssignedPartition(rig.topic, 0, "", 0, 9)]
    ).result(20)
    assert leases.next_offset == 1


@pytest.mark.parametrize("outcome", ["stored", "dropped"])
def test_paused_partitions_are_resumed_whatever_the_result_of_the_batch(
    database: str, broker: str, rig: Rig, outcome: str
) -> None:
    """Regression: after a batch was planned again slowly, nothing was read, while the status was ready."""
    rig.submit_batch(1, 0)
    rig.finished()
    rig.pipeline.collect()
    producer = Producer({"bootstrap.servers": broker})
    for trade_id in (1, 2):
        producer.produce(rig.topic, encode(trade(trade_id)), partition=0)
    assert producer.flush(20) == 0
    with psycopg.connect(database) as other:
        other.execute("UPDATE high_water_marks SET version = version + 1")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE trades")

        def paused() -> None:
            if outcome == "dropped":
                rig.stop.at_seconds = time.monotonic()
            else:
                other.rollback()

        rig.reader.when_paused = paused
        rig.submit_batch(2, 1)
        rig.finished()
        rig.pipeline.collect()
        other.rollback()
    assert rig.reader.when_paused is None
    assert (rig.reader.gone_back_to is not None) == (outcome == "dropped")

    def has_read() -> bool:
        rig.reader.read(rig.reader.fill(writer_idle=True))
        return bool(rig.reader.batch.records)

    until(has_read, "a record")


def test_poison_name_outside_the_databases_encoding_is_a_dead_letter(
    postgres: Any, broker: str, topic: str
) -> None:
    """Regression: the consumer ended, and after each restart again at the same message."""
    url = postgres.new_database("ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    schema.migrate(url, 10)
    with rigged(url, broker, topic) as rig:
        messages = [trade(1), trade(1, "币安人生USDT"), trade(2), trade(3)]
        made = [record(message, offset, topic) for offset, message in enumerate(messages)]
        rig.reader.batch = batch_of(made[:1], rig.tables)
        rig.pipeline.submit_batch()
        rig.reader.batch = batch_of(made[1:], rig.tables)
        rig.pipeline.submit_batch()
        rig.finished()
        rig.pipeline.collect()
    assert rows(url, OFFSETS) == [(4,), (0,)]
    assert rows(url, "SELECT symbol, trade_id FROM trades ORDER BY 2") == [("BTCUSDT", i) for i in (1, 2, 3)]
    assert rows(url, "SELECT kafka_offset FROM dead_letters WHERE reason LIKE '%LATIN1%22P05%'") == [(1,)]


def _feed(rig: Rig, trades: list[Trade], offset: int) -> None:
    records = [record(one, offset + number, rig.topic) for number, one in enumerate(trades)]
    rig.reader.batch = batch_of(records, rig.tables)
    rig.pipeline.submit_batch()
    rig.finished()
    rig.pipeline.collect()


def _refuse(database: str, condition: LiteralString) -> None:
    with psycopg.connect(database) as owner:
        owner.execute("ALTER TABLE trades ADD CONSTRAINT strict CHECK (" + condition + ") NOT VALID")


@pytest.mark.parametrize("size", [1, 40])
def test_quarantine_of_every_message_ends_the_consumer_and_fills_no_dead_letters(
    database: str, rig: Rig, size: int
) -> None:
    """Regression: a database setting turned every message into a dead letter, while the consumer was ready."""
    _refuse(database, "false")

    def feed_all() -> None:
        for offset in range(0, 80, size):
            _feed(rig, [trade(offset + number) for number in range(size)], offset)

    with pytest.raises(
        QuarantineLimitExceeded, match=r"rejects every message: .*SQLSTATE 23514.*reset-offsets"
    ):
        feed_all()
    held = quarantine.MAX_REJECTIONS if size == 1 else 0
    assert rows(database, "SELECT count(*) FROM dead_letters") == [(held,)]
    assert rows(database, OFFSETS) == [(held,), (0,)]


def test_quarantine_of_every_message_for_alternating_reasons_ends_the_consumer(
    database: str, rig: Rig
) -> None:
    """Regression: another SQLSTATE reset the count, and the whole topic went into dead_letters."""
    with psycopg.connect(database) as owner:
        owner.execute(
            "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF new.trade_id % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$"
        )
        owner.execute("CREATE TRIGGER odd BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION odd()")
    _refuse(database, "false")

    def feed_all() -> None:
        for offset in range(40):
            _feed(rig, [trade(offset)], offset)

    with pytest.raises(QuarantineLimitExceeded, match="rejects every message"):
        feed_all()
    assert rows(database, "SELECT count(*) FROM dead_letters") == [(quarantine.MAX_REJECTIONS,)]


def test_quarantine_of_many_messages_among_accepted_ones_continues(database: str, rig: Rig) -> None:
    _refuse(database, "qty < 1000")
    run = [*(trade(number, qty="2000") for number in range(quarantine.MAX_REJECTIONS)), trade(99)]
    for turn in range(3):
        _feed(rig, run, turn * len(run))
    for number in range(quarantine.MAX_REJECTIONS):
        _feed(rig, [trade(number, qty="2000")], 3 * len(run) + number)
    assert rows(database, "SELECT count(*) FROM dead_letters") == [(4 * quarantine.MAX_REJECTIONS,)]
    assert rows(database, "SELECT trade_id FROM trades") == [(99,)]


def test_timeout_of_a_full_batch_splits_it(database: str, broker: str, topic: str) -> None:
    """Regression: the whole batch was retried forever."""
    name = database.split("/")[3].split("?")[0]
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.02); RETURN new; END $$"
        )
        owner.execute("CREATE TRIGGER slow BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION slow()")
        owner.execute(
            sql.SQL("ALTER DATABASE {} SET statement_timeout = '600ms'").format(sql.Identifier(name))
        )
    with rigged(database, broker, topic) as rig:
        _feed(rig, [trade(number) for number in range(40)], 0)
        assert rows(database, "SELECT count(*) FROM trades") == [(40,)]
        assert rows(database, OFFSETS) == [(40,), (0,)]
        assert rig.reader.bounds.max_rows <= 20
        assert rig.writer.why_paused() == ""


def test_readiness_requires_verified_offsets(database: str, broker: str, rig: Rig) -> None:
    """Regression: it was ready from the assignment on, even if the lease then failed: briefly at each restart."""
    with psycopg.connect(database) as owner:
        owner.execute(
            "INSERT INTO consumer_offsets SELECT consumer_group, topic, 2, topic_id, 50, 0, 1, 'last', 0 "
            'FROM consumer_offsets WHERE "partition" = 0'
        )
    producer = Producer({"bootstrap.servers": broker})
    producer.produce(rig.topic, encode(trade(0)), partition=0)
    assert producer.flush(20) == 0
    state = rig.ownership._state
    assert not state.joined
    seen: list[bool] = []
    rig.writer._at = lambda _point: seen.append(state.joined)
    with pytest.raises(LogLost, match="has the log end offset 0, below the stored offset 50"):
        rig.ownership._acquire([TopicPartition(rig.topic, 2)])
    assert not any([*seen, state.joined])
    rig.ownership._acquire([TopicPartition(rig.topic, 3)])
    assert state.joined


def test_rebalance_with_a_late_commit_of_the_previous_owner_is_no_truncated_log(
    database: str, broker: str, rig: Rig
) -> None:
    """Regression: a stale log end offset was reported as a topic that was created again."""
    producer = Producer({"bootstrap.servers": broker})
    received = []

    def last_owner(point: str) -> None:
        if point == "acquiring leases" and not received:
            received.append(point)
            for trade_id in range(3):
                producer.produce(rig.topic, encode(trade(trade_id)), partition=2)
            assert producer.flush(20) == 0
            with psycopg.connect(database) as other:
                other.execute(
                    "INSERT INTO consumer_offsets SELECT consumer_group, topic, 2, topic_id, 3, 0, 1, 'last', 0 "
                    'FROM consumer_offsets WHERE "partition" = 0'
                )

    producer.produce(rig.topic, encode(trade(0)), partition=0)
    assert producer.flush(20) == 0
    assert len(rig.reader.client.list_topics(rig.topic, 20).topics[rig.topic].partitions) > 2
    rig.writer._at = last_owner
    rig.ownership._acquire([TopicPartition(rig.topic, 2)])
    assert received
    assert rows(database, 'SELECT owner, next_offset FROM consumer_offsets WHERE "partition" = 2') == [
        ("me", 3)
    ]
