"""Kafka's side of the model: topics as lists of records, times at which the brokers answer, what a reader sees.

Kept of the real thing, and tested against it (tests/integration/test_integration_kafka_model.py): a partition keeps
the order of its writes, and there is none between partitions; a key goes to one partition; a compacted topic keeps the
newest record of each key and, until the cleaner has come by, older ones, too; a tombstone may stay or be gone.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from marketfeed_simtest.clock import Clock

USUAL_DELAY_SECONDS: Final = 0.004


class Record(NamedTuple):
    """A record as it stands in a partition.

    Attributes:
        seconds: when it was written, by the session's clock.
        life: number of the process that wrote it.
        number: of all the writes to the cluster.
    """

    seconds: float
    life: int
    number: int
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None


class Cluster:
    """The topics, and how the brokers answer.

    Attributes:
        delay_seconds: about what a write takes; an acknowledgement takes about as long again.
        slow_topics: topic -> the same for its records, where it is another.
        down_until: nothing is written or acknowledged before.
        refused_topics: the next record of each of these is refused for good.
        on_write: called with each record that is written.
        on_report: called after each delivery report of an acknowledged record.
    """

    def __init__(self, clock: Clock, rng: random.Random, partitions: int = 3) -> None:
        self.clock = clock
        self.rng = rng
        self.delay_seconds = USUAL_DELAY_SECONDS
        self.slow_topics: dict[str, float] = {}
        self.down_until = 0.0
        self.refused_topics: set[str] = set()
        self.on_write: list[Callable[[Record], None]] = []
        self.on_report: list[Callable[[], None]] = []
        self.writes = 0
        self._partitions = partitions
        self._topics: dict[str, list[list[Record]]] = {}
        self._steps: list[Callable[[], None]] = []

    @property
    def topics(self) -> dict[str, list[list[Record]]]:
        """Topic -> partitions -> records, as of now."""
        self.step()
        return self._topics

    @property
    def is_up(self) -> bool:
        """Whether the brokers answer now."""
        return self.clock.seconds >= self.down_until

    def records(self, topic: str) -> list[Record]:
        """All records of a topic that were ever written, in the order of their writing."""
        partitions = self.topics.get(topic, [])
        return sorted((record for partition in partitions for record in partition), key=_number)

    def delay_of(self, topic: str) -> float:
        """About what a write to a topic takes now."""
        return self.slow_topics.get(topic, self.delay_seconds)

    def partition_of(self, key: bytes) -> int:
        """The partition that a key's records go to."""
        return zlib.crc32(key) % self._partitions

    def attach(self, step: Callable[[], None]) -> None:
        """A client whose time has to be moved on before anybody looks: `step` does what has fallen due."""
        self._steps.append(step)

    def detach(self, step: Callable[[], None]) -> None:
        """That client has ended."""
        if step in self._steps:
            self._steps.remove(step)

    def step(self) -> None:
        """Do what has fallen due."""
        for step in list(self._steps):
            step()

    def append(self, topic: str, key: bytes, value: bytes | None, *, seconds: float, life: int) -> Record:
        """Write a record."""
        partitions = self._topics.setdefault(topic, [[] for _ in range(self._partitions)])
        number = self.partition_of(key)
        partition = partitions[number]
        self.writes += 1
        record = Record(seconds, life, self.writes, topic, number, len(partition), key, value)
        partition.append(record)
        for call in self.on_write:
            call(record)
        return record

    def outage(self, seconds: float) -> None:
        """The brokers are gone for `seconds`: what is under way is written or acknowledged afterwards."""
        self.step()
        self.down_until = max(self.down_until, self.clock.seconds + seconds)

    def compacted(self, topic: str) -> Iterator[bytes]:
        """The values of a compacted topic as a reader gets them: each partition in order, partitions in any.

        Up to a place that differs from read to read the cleaner has been there: of a key only the newest is left.
        """
        partitions = list(self.topics.get(topic, []))
        self.rng.shuffle(partitions)
        for partition in partitions:
            newest = {record.key: record.offset for record in partition}
            clean_to = self.rng.choice((0, len(partition) // 2, len(partition)))
            for record in list(partition):
                if record.value is not None and (
                    record.offset >= clean_to or newest[record.key] == record.offset
                ):
                    yield record.value


def _number(record: Record) -> int:
    return record.number
