"""Batches in flight when one of them is dropped: none behind it is stored without it."""

import math
import time
from collections.abc import Mapping

import psycopg
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


def test_what_stands_behind_a_dropped_batch_is_dropped_with_it(
    database: str, broker: str, topic: str, proxy: Proxy, proxied: str
) -> None:
    environment = {"DATABASE_URL": proxied, "KAFKA_BROKER": broker, "MARKET_TRADES_TOPIC": topic}
    read = settings.read(ConsumerSettings, environment)
    state, writer, stop = State(), Writer(proxied), Stop()
    reader = Rewound(read, state)
    reader.proxy, reader.stop = proxy, stop
    reader.client.incremental_assign([TopicPartition(topic, 0, 0)])
    storing = Storing(
        read, writer, state, reader, Waiting(reader, writer, state, stop), stop, lambda _plan, _stored: None
    )
    (claimed,) = writer.submit_claim(read.kafka_group, "me", [Wanted(topic, 0, "", 0, 9)]).result(20)
    state.partitions[topic, 0] = Progress(claimed.epoch, claimed.next_offset)
    storing.topic_ids[topic] = ""
    storing.forget()

    def hand_over(trade_id: int, offset: int) -> None:
        reader.batch = batch_of([record(trade(trade_id), offset, topic)], read.tables_by_topic())
        storing.hand_over()

    def finished() -> None:
        writer.submit_load([]).result(20)  # it does one thing after the other

    try:
        hand_over(1, 0)
        finished()
        storing.collect()
        with psycopg.connect(database) as rival:
            rival.execute("UPDATE high_water_marks SET version = version + 1")
        hand_over(2, 1)
        hand_over(3, 2)
        finished()
        for _ in range(100):
            proxy.plan("COPY trades", Fault.REFUSED, "53100")
        stop.at_seconds = time.monotonic()

        storing.collect()

        assert reader.gone_back_to == {(topic, 0): 1}
        assert rows(database, "SELECT next_offset FROM consumer_offsets") == [(1,)]
        assert rows(database, "SELECT trade_id FROM trades") == [(1,)]
    finally:
        writer.close()
        reader.client.close()
