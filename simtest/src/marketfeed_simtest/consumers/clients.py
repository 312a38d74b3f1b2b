"""Models of Kafka's clients as the consumer uses them: `Consumer` with its group, and the admin client."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from marketfeed_simtest.clock import TURN_SECONDS
from marketfeed_simtest.consumers.group import SESSION_SECONDS, Group
from marketfeed_simtest.consumers.tasks import Answer, Tasks
from marketfeed_simtest.consumers.topics import ANSWER_SECONDS, Brokers, Entry, Partition

_PREFETCHED: Final = 400
"""Maximum number of prefetched records of a partition; they are returned whatever happens to the log."""


class Reach:
    """Reachability of the brokers for a process.

    Attributes:
        cut_until: end of its network outage.
        is_dead: whether the process has ended.
        refuses_commits_until: time until which its offset commits are lost.
    """

    def __init__(self, brokers: Brokers) -> None:
        self.cut_until = 0.0
        self.is_dead = False
        self.refuses_commits_until = 0.0
        self._brokers = brokers

    @property
    def is_there(self) -> bool:
        """Return whether a response arrives."""
        return self._brokers.are_up and self._brokers.clock.seconds >= self.cut_until


class _Position:
    """Position of a client in a partition; `leader_epoch` is that of its last validation."""

    def __init__(self, offset: int, epoch: int, leader_epoch: int) -> None:
        self.leader_epoch = leader_epoch
        self.offset = offset
        self.epoch = epoch
        self.fetched: deque[Entry] = deque()
        self.fetch_offset = offset
        self.fetch_epoch = epoch
        self.is_paused = False
        self.end_reported = -1
        self.is_broken = False


class Client:
    """Model of `confluent_kafka.Consumer`.

    Attributes:
        topics, owned, is_lost: see `group.Member`.
        hints: partition -> last committed offset.
    """

    def __init__(
        self,
        tasks: Tasks,
        brokers: Brokers,
        group: Group,
        reach: Reach,
        on_hint: Callable[[Partition, int], None],
    ) -> None:
        self.topics: tuple[str, ...] = ()
        self.owned: set[Partition] = set()
        self.is_lost = False
        self._tasks = tasks
        self._brokers = brokers
        self._group = group
        self._reach = reach
        self._on_hint = on_hint
        self._positions: dict[Partition, _Position] = {}
        self._calls: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}
        self._was_notified = False
        self._turn = 0
        self._wakers: list[Callable[[], None]] = []
        self._wakes_at = -1.0
        brokers.on_change.append(self.wake)

    # --- the group ---

    def subscribe(self, topics: list[str], **calls: Callable[[Any, list[TopicPartition]], None]) -> None:
        """See `Consumer.subscribe`."""
        self.topics, self._calls = tuple(topics), calls
        self._group.join(self)

    def wake(self) -> None:
        """Schedule a wake-up: records may be available after a moment."""
        if self._wakers and self._wakes_at < self._tasks.clock.seconds:
            self._wakes_at = self._tasks.clock.seconds + ANSWER_SECONDS
            self._tasks.call_at(self._wakes_at, self._wake_now)

    def _wake_now(self) -> None:
        self._wakes_at = -1.0
        wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def _serve_group(self) -> bool:
        """Run the due rebalance callback; return whether there was one."""
        if not self._calls:
            return False
        if self.is_lost:
            self.is_lost = False
            gone = self._list(self.owned)
            self._calls["on_lost"](self, gone)
            self.owned.clear()
            self._was_notified = False
            self._group.join(self)
            return True
        if not self._reach.is_there:
            return False
        if revoked := self._group.to_revoke(self):
            self._calls["on_revoke"](self, self._list(revoked))
            self._drop(revoked)
            self._group.released()
            return True
        assigned = self._group.to_assign(self)
        if assigned or (not self._was_notified and self._group.is_member(self)):
            self._was_notified = True
            self.owned |= assigned
            self._calls["on_assign"](self, self._list(assigned))
            return True
        return False

    @staticmethod
    def _list(partitions: Iterable[Partition]) -> list[TopicPartition]:
        return [TopicPartition(*one) for one in sorted(partitions)]

    def _drop(self, partitions: set[Partition]) -> None:
        self.owned -= partitions
        for one in partitions:
            self._positions.pop(one, None)

    def close(self) -> None:
        """See `Consumer.close`."""
        if self._reach.is_dead:
            return
        if self.owned and self._calls:
            self._calls["on_revoke"](self, self._list(self.owned))
        self.abandon()

    def abandon(self) -> None:
        """Release everything of the ended process."""
        self._positions.clear()
        self.owned.clear()
        if self.wake in self._brokers.on_change:
            self._brokers.on_change.remove(self.wake)
        self._group.leave(self)

    # --- reading ---

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Consumer.assign`."""
        self._positions.clear()
        self.incremental_assign(partitions)

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Consumer.incremental_assign`."""
        for one in partitions:
            epoch = -1 if one.leader_epoch is None else one.leader_epoch
            log = self._brokers.log((one.topic, one.partition))
            # A member of a group validates a position only when the leader changes.
            known = log.epoch if log and self._calls else -1
            self._positions[one.topic, one.partition] = _Position(one.offset, epoch, known)

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Consumer.incremental_unassign`."""
        for one in partitions:
            self._positions.pop((one.topic, one.partition), None)

    def assignment(self) -> list[TopicPartition]:
        """See `Consumer.assignment`."""
        return self._list(self._positions)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Consumer.pause`: prefetched records are discarded."""
        for one in partitions:
            position = self._positions[one.topic, one.partition]
            position.is_paused = True
            position.fetched.clear()
            position.fetch_offset, position.fetch_epoch = position.offset, position.epoch

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Consumer.resume`."""
        for one in partitions:
            position = self._positions.get((one.topic, one.partition))
            if position is not None:
                position.is_paused = False

    def get_watermark_offsets(self, partition: TopicPartition, *, cached: bool) -> tuple[int, int]:
        """See `Consumer.get_watermark_offsets`."""
        log = self._brokers.log((partition.topic, partition.partition))
        return (log.low, log.end) if log and self._reach.is_there and cached else (-1001, -1001)

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        """See `Consumer.commit`; a commit may be lost."""
        if asynchronous and self._brokers.clock.seconds < self._reach.refuses_commits_until:
            raise KafkaException(KafkaError(KafkaError._STATE, "lost"))
        for one in offsets:
            self._on_hint((one.topic, one.partition), one.offset)

    def poll(self, timeout: float) -> Message | None:
        """See `Consumer.poll`."""
        found = self._read(1, timeout)
        return found[0] if found else None

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        """See `Consumer.consume`."""
        return self._read(num_messages, timeout)

    def _read(self, most: int, seconds: float) -> list[Message]:
        deadline = self._tasks.clock.seconds + max(seconds, TURN_SECONDS)
        found: list[tuple[_Position | None, Message]] = []
        while True:
            while self._serve_group():
                # Records of a previous assignment are not returned.
                held = [*map(id, self._positions.values())]
                found = [one for one in found if id(one[0]) in held]
            while len(found) < most and (one := self._take()) is not None:
                found.append(one)
            if len(found) >= most or self._tasks.clock.seconds >= deadline:
                return [message for _, message in found]
            self._wakers.append(self._tasks.waker())
            self._tasks.block(deadline - self._tasks.clock.seconds)

    def _take(self) -> tuple[_Position, Message] | None:
        names = sorted(self._positions)
        for number in range(len(names)):
            partition = names[(self._turn + number) % len(names)]
            position = self._positions[partition]
            if position.is_paused or position.is_broken:
                continue
            message = self._from(partition, position)
            if message is not None:
                # Records of one partition, then of another, as fetch responses arrive.
                self._turn += number if position.fetched else number + 1
                return position, message
        return None

    def _from(self, partition: Partition, position: _Position) -> Message | None:
        if not position.fetched and (error := self._fetch(partition, position)) is not None:
            return error
        if not position.fetched:
            return None
        entry = position.fetched.popleft()
        position.offset, position.epoch = entry.offset + 1, entry.epoch
        return _message(partition, entry.offset, key=entry.key, value=entry.value, epoch=entry.epoch)

    def _fetch(self, partition: Partition, position: _Position) -> Message | None:
        """Fetch from the leader; errors and the end of the partition are returned as messages."""
        log = self._brokers.log(partition)
        if log is None or not self._reach.is_there:
            return None
        offset, epoch = position.fetch_offset, position.fetch_epoch
        cut = position.leader_epoch != log.epoch and epoch >= 0 and offset > log.end_of(epoch)
        position.leader_epoch = log.epoch
        if cut or not log.low <= offset <= log.end:
            position.is_broken = True
            code = KafkaError._LOG_TRUNCATION if cut else KafkaError._AUTO_OFFSET_RESET
            return _message(partition, offset, error=KafkaError(code, f"offset {offset} does not exist"))
        if offset == log.end:
            if position.end_reported == offset:
                return None
            position.end_reported = offset
            return _message(partition, offset, error=KafkaError(KafkaError._PARTITION_EOF, "the end"))
        size = self._brokers.rng.choice((1, 5, 50, _PREFETCHED))
        entries = log.between(offset, offset + size)
        position.fetch_offset, position.fetch_epoch = entries[-1].offset + 1, entries[-1].epoch
        position.fetched.extend(one for one in entries if one.kind == "record")
        return None if position.fetched else self._fetch(partition, position)


def _message(
    partition: Partition,
    offset: int,
    *,
    key: bytes | None = None,
    value: bytes | None = None,
    epoch: int | None = None,
    error: KafkaError | None = None,
) -> Message:
    topic, number = partition
    known: dict[str, Any] = {} if epoch is None else {"leader_epoch": epoch}
    return Message(
        topic=topic, partition=number, offset=offset, key=key, value=value, headers=None, error=error,
        timestamp=(0, 0), latency=0.0, **known,
    )  # fmt: skip


class Admin:
    """Model of `confluent_kafka.admin.AdminClient`."""

    def __init__(self, tasks: Tasks, brokers: Brokers, reach: Reach) -> None:
        self._tasks = tasks
        self._brokers = brokers
        self._reach = reach

    def list_topics(self, topic: str | None = None, timeout: float = 10) -> Any:
        """See `AdminClient.list_topics`."""
        self._tasks.sleep(ANSWER_SECONDS)
        if not self._reach.is_there:
            self._tasks.sleep(timeout)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "no broker responds"))
        missing = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "unknown topic")
        names = [topic] if topic else list(self._brokers.topics)
        topics = {
            name: SimpleNamespace(
                error=None if name in self._brokers.topics else missing,
                partitions=dict.fromkeys(range(self._brokers.partitions)),
            )
            for name in names
        }
        return SimpleNamespace(controller_id=1, brokers={1: None}, topics=topics)

    def describe_topics(self, topics: Any, request_timeout: float) -> dict[str, Answer]:
        """See `AdminClient.describe_topics`."""

        def identity(name: str) -> Any:
            topic = self._topic(name)
            number = topic.number
            return SimpleNamespace(
                topic_id=SimpleNamespace(
                    get_most_significant_bits=lambda: number >> 64,
                    get_least_significant_bits=lambda: number & (2**64 - 1),
                )
            )

        return {
            name: self._answer(lambda name=name: identity(name), request_timeout)  # type: ignore[misc]
            for name in topics.topic_names
        }

    def list_offsets(
        self, asked: dict[TopicPartition, Any], request_timeout: float
    ) -> dict[TopicPartition, Answer]:
        """See `AdminClient.list_offsets`."""

        def end(partition: TopicPartition, latest: bool) -> Any:
            log = self._topic(partition.topic).logs[partition.partition]
            return SimpleNamespace(offset=log.end if latest else log.low, leader_epoch=log.epoch)

        return {
            one: self._answer(lambda one=one, spec=spec: end(one, spec._value == -1), request_timeout)  # type: ignore[misc]
            for one, spec in asked.items()
        }

    def _topic(self, name: str) -> Any:
        topic = self._brokers.topics.get(name)
        if topic is None:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "unknown topic"))
        return topic

    def _answer(self, result: Callable[[], Any], timeout: float) -> Answer:
        future = Answer(self._tasks)

        def answer() -> None:
            if not self._reach.is_there:
                self._tasks.call_in(timeout, time_out)
                return
            try:
                future.set_result(result())
            except KafkaException as error:
                future.set_exception(error)

        def time_out() -> None:
            future.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer")))

        self._tasks.call_in(ANSWER_SECONDS, answer)
        return future


__all__ = ["SESSION_SECONDS", "Admin", "Client", "Reach"]
