"""Batches in flight when one is dropped, or time is up: none behind it is stored without it, and nothing hangs."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
import pytest
from confluent_kafka import TopicPartition
from consumer_market import record, trade
from consumer_pgproxy import Fault, Proxy
from consumer_support import rows

from marketfeed_chassis import settings
from marketfeed_consumers.claims import Wanted
from marketfeed_consumers.decode import Partition, batch_of
from marketfeed_consumers.reading import Reader
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import Progress, State
from marketfeed_consumers.storing import Storing
from marketfeed_consumers.waiting import Stop, Waiting
from marketfeed_consumers.writer import Writer

pytestmark = pytest.mark.integration


class Rewound(Reader):
    """Notes where it is told to go back to; from then on the database is well and there is time again."""

    proxy: Proxy
    stop: Stop
    gone_back_to: dict[Partition, int] | None = None

    def read_again(self, positions: Mapping[Partition, int]) -> None:
        self.gone_back_to = dict(positions)
        self.proxy.forget()
        self.stop.at_seconds = math.inf
        super().read_again(positions)


@dataclass
class Rig:
    """A loop's parts, with the first partition of a topic claimed."""

    topic: str
    reader: Rewound
    writer: Writer
    storing: Storing
    stop: Stop
    tables: dict[str, str]

    def hand_over(self, trade_id: int, offset: int) -> None:
        self.reader.batch = batch_of([record(trade(trade_id), offset, self.topic)], self.tables)
        self.storing.hand_over()

    def finished(self) -> None:
        self.writer.submit_load([]).result(20)  # it does one thing after the other


@pytest.fixture
def rig(broker: str, topic: str, proxy: Proxy, proxied: str) -> Iterator[Rig]:
    environment = {"DATABASE_URL": proxied, "KAFKA_BROKER": broker, "MARKET_TRADES_TOPIC": topic}
    read = settings.read(ConsumerSettings, environment)
    state, writer, stop = State(), Writer(proxied), Stop()
    reader = Rewound(read, state)
    reader.proxy, reader.stop = proxy, stop
    reader.client.incremental_assign([TopicPartition(topic, 0, 0)])
    waiting = Waiting(reader, writer, state, stop)
    storing = Storing(read, writer, state, reader, waiting, stop, lambda _plan, _stored: None)
    (claimed,) = writer.submit_claim(read.kafka_group, "me", [Wanted(topic, 0, "", 0, 9)]).result(20)
    state.partitions[topic, 0] = Progress(claimed.epoch, claimed.next_offset)
    storing.topic_ids[topic] = ""
    storing.forget()
    yield Rig(topic, reader, writer, storing, stop, read.tables_by_topic())
    writer.close()
    reader.client.close()


def test_what_stands_behind_a_dropped_batch_is_dropped_with_it(database: str, rig: Rig, proxy: Proxy) -> None:
    rig.hand_over(1, 0)
    rig.finished()
    rig.storing.collect()
    with psycopg.connect(database) as rival:
        rival.execute("UPDATE high_water_marks SET version = version + 1")
    rig.hand_over(2, 1)
    rig.hand_over(3, 2)
    rig.finished()
    for _ in range(100):
        proxy.plan("COPY trades", Fault.REFUSED, "53100")
    rig.stop.at_seconds = time.monotonic()

    rig.storing.collect()

    assert rig.reader.gone_back_to == {(rig.topic, 0): 1}
    assert rows(database, "SELECT next_offset FROM consumer_offsets") == [(1,)]
    assert rows(database, "SELECT trade_id FROM trades") == [(1,)]


def test_a_stop_does_not_wait_for_a_statement_that_hangs(database: str, rig: Rig) -> None:
    with psycopg.connect(database) as rival:
        rival.execute("LOCK TABLE high_water_marks")
        rig.stop.ask(0.0)

        rig.hand_over(1, 0)

        assert rig.storing.is_idle
        rival.rollback()
    assert rows(database, "SELECT next_offset FROM consumer_offsets") == [(0,)]
