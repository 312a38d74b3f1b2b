"""Kafka's brokers as consumers see them: logs with offsets and leader epochs, and what can become of them.

Kept of the real thing, and tested against it (tests/integration/test_integration_consumer_kafka_model.py): an offset
that a control record or an aborted record has is never handed out; a log that was cut goes on under a new leader epoch,
and tells by epoch where the old one ended (KIP-320); a topic that is created again has another id and begins at 0.
"""

import random
import zlib
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from marketfeed_simtest.clock import Clock

Partition: TypeAlias = tuple[str, int]
Kind: TypeAlias = Literal["record", "control", "aborted"]


class Entry(NamedTuple):
    """A place in a log; `number` is its own for ever, also where another one takes its offset later."""

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
        low: the first offset it still has.
        epochs: leader epochs and where each began.
    """

    def __init__(self) -> None:
        self.low = 0
        self.entries: list[Entry] = []
        self.epochs: list[tuple[int, int]] = [(0, 0)]

    @property
    def end(self) -> int:
        """The offset after its last."""
        return self.low + len(self.entries)

    @property
    def epoch(self) -> int:
        """The current leader epoch."""
        return self.epochs[-1][0]

    def at(self, offset: int) -> Entry:
        """The entry of an offset that it has."""
        return self.entries[offset - self.low]

    def between(self, first: int, end: int) -> list[Entry]:
        """Its entries of these offsets, as far as it has them."""
        return self.entries[max(0, first - self.low) : max(0, end - self.low)]

    def elect(self) -> None:
        """Another leader."""
        self.epochs.append((self.epoch + 1, self.end))

    def cut(self, offset: int) -> None:
        """A leader that does not have what stands from `offset` on."""
        offset = max(offset, self.low)
        del self.entries[offset - self.low :]
        epoch = self.epoch + 1
        self.epochs = [one for one in self.epochs if one[1] < offset or one[0] == 0]
        self.epochs.append((epoch, offset))

    def delete_before(self, offset: int) -> None:
        """Retention: what stands before `offset` is gone."""
        offset = min(max(offset, self.low), self.end)
        del self.entries[: offset - self.low]
        self.low = offset

    def end_of(self, epoch: int) -> int:
        """Where the log of a leader epoch ends."""
        return next((start for one, start in self.epochs if one > epoch), self.end)


class Topic:
    """A topic from its creation to its deletion."""

    def __init__(self, number: int, partitions: int) -> None:
        self.number = number
        self.logs = [Log() for _ in range(partitions)]

    @property
    def id(self) -> str:
        """As the consumer writes it."""
        return f"{self.number:032x}"


ANSWER_SECONDS: Final = 0.003


class Brokers:
    """The topics, and whether the brokers answer.

    Attributes:
        down_until: they do not answer before.
        on_append: called with each entry that is written.
        on_change: called when a log, or what the brokers tell of it, has changed.
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
        """Whether they answer."""
        return self.clock.seconds >= self.down_until

    def create(self, name: str) -> None:
        """Create a topic; one of the same name is gone."""
        self._created += 1
        self.topics[name] = Topic(self._created, self.partitions)
        self.changed()

    def delete(self, name: str) -> None:
        """Delete a topic."""
        del self.topics[name]
        self.changed()

    def log(self, partition: Partition) -> Log | None:
        """A partition's log; None where there is no such topic."""
        topic = self.topics.get(partition[0])
        return topic.logs[partition[1]] if topic else None

    def partition_of(self, key: bytes) -> int:
        """The partition that a key's records go to."""
        return zlib.crc32(key) % self.partitions

    def append(self, name: str, key: bytes, value: bytes | None, kind: Kind = "record") -> Entry | None:
        """Write at the end of the key's partition; None where there is no such topic."""
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
        """Tell those who wait for something."""
        for call in self.on_change:
            call()
