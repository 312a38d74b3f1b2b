"""Model of Kafka's brokers: topics as lists of records, the brokers' response times, a reader's view.

Modelled properties, tested by tests/integration/test_integration_kafka_model.py: a partition keeps
the order of its writes, and there is none between partitions; a key has one partition; a compacted topic keeps the
newest record of each key and, until the cleaner has run, older ones, too; a tombstone may still exist or not.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from marketfeed_simtest.clock import Clock

USUAL_DELAY_SECONDS: Final = 0.004


class Record(NamedTuple):
    """A record in a partition.

    Attributes:
        seconds: time of the write, by the session's clock.
        life: number of the process that wrote it.
        number: number of the write in the cluster.
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
    """The topics, and the brokers' response times.

    Attributes:
        delay_seconds: approximate duration of a write; an acknowledgement takes about as long again.
        slow_topics: topic -> the same for its records, where it differs.
        down_until: end of an outage.
        refused_topics: topics whose next record is rejected permanently.
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
        """Return topic -> partitions -> current records."""
        self.step()
        return self._topics

    @property
    def is_up(self) -> bool:
        """Return whether the brokers respond now."""
        return self.clock.seconds >= self.down_until

    def records(self, topic: str) -> list[Record]:
        """Return all records ever written to a topic, in the order of the writes."""
        partitions = self.topics.get(topic, [])
        return sorted((record for partition in partitions for record in partition), key=_number)

    def delay_of(self, topic: str) -> float:
        """Return the approximate current duration of a write to a topic."""
        return self.slow_topics.get(topic, self.delay_seconds)

    def partition_of(self, key: bytes) -> int:
        """Return the partition of a key."""
        return zlib.crc32(key) % self._partitions

    def attach(self, step: Callable[[], None]) -> None:
        """Register a client that must be advanced before any read: `step` performs its due writes."""
        self._steps.append(step)

    def detach(self, step: Callable[[], None]) -> None:
        """Unregister a client."""
        if step in self._steps:
            self._steps.remove(step)

    def step(self) -> None:
        """Perform all due writes."""
        for step in list(self._steps):
            step()

    def append(self, topic: str, key: bytes, value: bytes | None, *, seconds: float, life: int) -> Record:
        """Write a record.

        Args:
            topic: name of the topic.
            key: key of the record.
            value: value of the record; None is a tombstone.
            seconds: time of the write.
            life: number of the writing process.
        """
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
        """Stop the brokers for `seconds`: in-flight records are written or acknowledged afterwards."""
        self.step()
        self.down_until = max(self.down_until, self.clock.seconds + seconds)

    def compacted(self, topic: str) -> Iterator[bytes]:
        """Return the values of a compacted topic as a reader receives them: each partition in order, partitions in any.

        The cleaner has run up to a position that differs from read to read: before it only the newest of a key is left.
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
