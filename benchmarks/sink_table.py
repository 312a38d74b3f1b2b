"""A table that grows by a million trades at a time, stored by one consumer process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import psycopg
import sink_data
from sink_bench import Bench, consumer_environment, consumers, drained

MILLION = 1_000_000


class Table:
    """The table, its topic and its consumer.

    Attributes:
        watch: Connection to the database.
        millions: Number of stored millions.
    """

    def __init__(self, bench: Bench, watch: psycopg.Connection[Any], pids: list[int], topic: str) -> None:
        self.watch, self.millions = watch, 0
        self._bench, self._pids, self._topic = bench, pids, topic
        self._flow = sink_data.cheap_trades()

    def grow(self, published: Callable[[], None] = lambda: None) -> float:
        """Store a million trades; return the seconds from the consumer's resume to the last COMMIT.

        Args:
            published: Called after the trades are in Kafka, before the consumer is resumed.
        """

        def publish() -> int:
            count = sink_data.publish(self._bench.broker, self._topic, islice(self._flow, MILLION))
            published()
            return count

        seconds = drained(self.watch, self._pids, publish)
        self.millions += 1
        return seconds


@contextmanager
def table(bench: Bench, url: str) -> Iterator[Table]:
    """Yield an empty table in the database `url` with a running consumer."""
    topic = "growing"
    sink_data.create(bench.broker, topic)
    with psycopg.connect(url, autocommit=True) as watch:
        environment = consumer_environment(bench, url, topic)
        with consumers(bench, watch, environment, sink_data.PARTITIONS) as pids:
            yield Table(bench, watch, pids, topic)
