"""Model of Kafka's brokers for consumers: logs with offsets and leader epochs, and their faults.

Kept of the real thing, and tested against it (tests/integration/test_integration_consumer_kafka_model.py): an offset
of a control record or an aborted record is never returned; a truncated log continues under a new leader epoch,
and returns the end offset of each epoch (KIP-320); a topic that is created again has another id and begins at 0.
"""

import random
import zlib
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from marketfeed_simtest.clock import Clock

Partition: TypeAlias = tuple[str, int]
Kind: TypeAlias = Literal["record", "control", "aborted"]


class Entry(NamedTuple):
    """An entry of a log; its `number` is unique, also where another entry has the same offset later."""

    number: int
    topic: str
    topic_id: str
    partition: int
    offset: int
    epoch: int
    key: bytes
    value: bytes | None
    kind: Kind


class Log:
    """One partition of one topic.

    Attributes:
        low: log start offset.
        epochs: leader epochs and their first offsets.
    """

    def __init__(self) -> None:
        self.low = 0
        self.entries: list[Entry] = []
        self.epochs: list[tuple[int, int]] = [(0, 0)]

    @property
    def end(self) -> int:
        """Return the log end offset."""
        return self.low + len(self.entries)

    @property
    def epoch(self) -> int:
        """Return the current leader epoch."""
        return self.epochs[-1][0]

    def at(self, offset: int) -> Entry:
        """Return the entry of an offset."""
        return self.entries[offset - self.low]

    def between(self, first: int, end: int) -> list[Entry]:
        """Return its entries of these offsets, as far as they exist."""
        return self.entries[max(0, first - self.low) : max(0, end - self.low)]

    def elect(self) -> None:
        """Another leader."""
        self.epochs.append((self.epoch + 1, self.end))

    def cut(self, offset: int) -> None:
        """Elect a leader without the entries from `offset` on."""
        offset = max(offset, self.low)
        del self.entries[offset - self.low :]
        epoch = self.epoch + 1
        self.epochs = [one for one in self.epochs if one[1] < offset or one[0] == 0]
        self.epochs.append((epoch, offset))

    def delete_before(self, offset: int) -> None:
        """Delete the entries before `offset`, as Kafka's retention does."""
        offset = min(max(offset, self.low), self.end)
        del self.entries[: offset - self.low]
        self.low = offset

    def end_of(self, epoch: int) -> int:
        """Return the end offset of a leader epoch."""
        return next((start for one, start in self.epochs if one > epoch), self.end)


class Topic:
    """A topic from its creation to its deletion."""

    def __init__(self, number: int, partitions: int) -> None:
        self.number = number
        self.logs = [Log() for _ in range(partitions)]

    @property
    def id(self) -> str:
        """Return the topic's id in the consumer's format."""
        return f"{self.number:032x}"


ANSWER_SECONDS: Final = 0.003


class Brokers:
    """The topics, and the brokers' reachability.

    Attributes:
        down_until: end of an outage.
        on_append: called with each entry that is written.
        on_change: called when a log or its metadata has changed.
    """

    def __init__(self, clock: Clock, rng: random.Random, names: tuple[str, ...], partitions: int) -> None:
        self.clock = clock
        self.rng = rng
        self.partitions = partitions
        self.topics: dict[str, Topic] = {}
        self.down_until = 0.0
        self.on_append: list[Callable[[Entry], None]] = []
        self.on_change: list[Callable[[], None]] = []
        self._number = 0
        self._created = 0
        for name in names:
            self.create(name)

    @property
    def are_up(self) -> bool:
        """Return whether they respond."""
        return self.clock.seconds >= self.down_until

    def create(self, name: str) -> None:
        """Create a topic; one of the same name is deleted."""
        self._created += 1
        self.topics[name] = Topic(self._created, self.partitions)
        self.changed()

    def delete(self, name: str) -> None:
        """Delete a topic."""
        del self.topics[name]
        self.changed()

    def log(self, partition: Partition) -> Log | None:
        """Return a partition's log; None where there is no such topic."""
        topic = self.topics.get(partition[0])
        return topic.logs[partition[1]] if topic else None

    def partition_of(self, key: bytes) -> int:
        """Return the partition of a key."""
        return zlib.crc32(key) % self.partitions

    def append(self, name: str, key: bytes, value: bytes | None, kind: Kind = "record") -> Entry | None:
        """Append to the key's partition; return None where there is no such topic.

        Args:
            name: name of the topic.
            key: key of the record.
            value: value of the record.
            kind: kind of the entry.
        """
        topic = self.topics.get(name)
        if topic is None:
            return None
        number = self.partition_of(key)
        log = topic.logs[number]
        self._number += 1
        entry = Entry(self._number, name, topic.id, number, log.end, log.epoch, key, value, kind)
        log.entries.append(entry)
        for call in self.on_append:
            call(entry)
        self.changed()
        return entry

    def changed(self) -> None:
        """Wake waiting clients."""
        for call in self.on_change:
            call()
