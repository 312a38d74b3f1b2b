"""Model of the producer: librdkafka's idempotent producer with acks=all from the worker's side.

    produce_batch ──▶ queue of the partition ──▶ written ──▶ reported
                      in order within it         later: the process may end between the two

A record counts once it is written; its delivery report follows later. Only records with a callback are reported. A
record that is rejected permanently ends the client (enable.gapless.guarantee): nothing after it is written, the next
poll raises, and queued records are purged. Polls block the caller, and with it the process.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from marketfeed_simtest.kafka_log import Cluster

Report = Callable[[KafkaError | None, "Delivery"], None]


@dataclass(slots=True)
class _Item:
    topic: str
    key: bytes
    value: bytes
    report: Report | None
    write_at: float
    report_at: float = 0.0
    offset: int | None = None


class Delivery:
    """The message of a delivery report."""

    def __init__(self, item: _Item, partition: int) -> None:
        self._item = item
        self._partition = partition

    def key(self) -> bytes:
        """Return the record's key."""
        return self._item.key

    def value(self) -> bytes:
        """Return the record's value."""
        return self._item.value

    def topic(self) -> str:
        """The topic."""
        return self._item.topic

    def partition(self) -> int:
        """The partition."""
        return self._partition

    def offset(self) -> int | None:
        """Return its offset; None when it was not written."""
        return self._item.offset


class ProducerModel:
    """See `confluent_kafka.Producer`. `life` is the number of its process."""

    def __init__(self, cluster: Cluster, config: dict[str, Any], life: int) -> None:
        self._cluster = cluster
        self._life = life
        self._on_error: Callable[[KafkaError], None] | None = config.get("error_cb")
        self._queues: dict[int, dict[str, deque[_Item]]] = {}
        self._unreported: deque[_Item] = deque()
        self._due: deque[tuple[_Item, KafkaError | None]] = deque()
        self._fatal: KafkaError | None = None
        self._reported_outage_until = 0.0
        self._heads: list[tuple[float, int, deque[_Item]]] = []
        """Heap of the non-empty queues: time at which the first record of each is written, number, queue."""
        self._numbers = count()
        self.is_dead = False
        self.has_failed = False
        cluster.attach(self.step)

    def __len__(self) -> int:
        return len(self._due) + len(self._unreported) + sum(map(len, self._all_queues()))

    def produce_batch(self, topic: str, records: list[dict[str, Any]]) -> int:
        """Queue records; return how many were queued, the others have `_error`."""
        cluster, taken = self._cluster, 0
        now = cluster.clock.seconds
        for record in records:
            if self.is_dead or self.has_failed:
                record["_error"] = KafkaError(KafkaError._FATAL, "the client has failed")
                continue
            taken += 1
            partition = cluster.partition_of(record["key"])
            queue = self._queues.setdefault(partition, {}).setdefault(topic, deque())
            write_at = now + cluster.delay_of(topic) * cluster.rng.uniform(0.5, 3)
            if queue:
                write_at = max(write_at, queue[-1].write_at)
            queue.append(
                _Item(topic, record["key"], bytes(record["value"]), record.get("callback"), write_at)
            )
            if len(queue) == 1:
                self._push_head(queue)
        return taken

    def poll(self, timeout: float = 0) -> int:
        """Run the callbacks of received reports, waiting up to `timeout` for one; raise when the client failed."""
        self._collect()
        if timeout > 0 and not self._due:
            self._cluster.clock.advance(min(timeout, self._next_due()))
            self._collect()
        self._report_outage()
        if self._fatal is not None:
            fatal, self._fatal = self._fatal, None
            raise KafkaException(fatal)
        called = 0
        while self._due:
            item, error = self._due.popleft()
            called += 1
            if item.report is not None and not self.is_dead:
                item.report(error, Delivery(item, self._cluster.partition_of(item.key)))
                for call in self._cluster.on_report if error is None else ():
                    call()
        return called

    def purge(self, *, in_queue: bool = True, in_flight: bool = True, blocking: bool = True) -> None:
        """Purge queued records."""
        del in_flight, blocking
        if not in_queue:
            return
        for queue in self._all_queues():
            self._due.extend((item, KafkaError(KafkaError._PURGE_QUEUE, "purged")) for item in queue)
            queue.clear()
        self._heads.clear()

    def step(self) -> None:
        """Write due records."""
        cluster = self._cluster
        if not cluster.is_up or self.is_dead or self.has_failed:
            return
        now = cluster.clock.seconds
        while self._heads and self._heads[0][0] <= now:
            if self._is_gone():  # an observer of the writes ended the process
                return
            queue = heapq.heappop(self._heads)[2]
            item = queue.popleft()
            if queue:
                self._push_head(queue)
            if item.topic in cluster.refused_topics:
                cluster.refused_topics.discard(item.topic)
                self._fail(item)
                return
            self._write(item, max(item.write_at, cluster.down_until))

    def kill(self) -> None:
        """End the process. Of each partition in-flight records are written up to some point, the rest is not."""
        self.step()
        self.is_dead = True
        cluster = self._cluster
        for queue in self._all_queues():
            most = cluster.rng.choice((0, 0, 1, 3, len(queue))) if cluster.is_up else 0
            for item in list(queue)[:most]:
                self._write(item, cluster.clock.seconds)
            queue.clear()
        self.discard_in_flight()

    def kill_now(self) -> None:
        """End the process, and write no queued record."""
        self.is_dead = True
        for queue in self._all_queues():
            queue.clear()
        self.discard_in_flight()

    def _is_gone(self) -> bool:
        return self.is_dead

    def discard_in_flight(self) -> None:
        """Discard all in-flight records of this client."""
        self._cluster.detach(self.step)

    def _all_queues(self) -> list[deque[_Item]]:
        return [queue for topics in self._queues.values() for queue in topics.values()]

    def _push_head(self, queue: deque[_Item]) -> None:
        heapq.heappush(self._heads, (queue[0].write_at, next(self._numbers), queue))

    def _next_due(self) -> float:
        """Return the seconds until the next write or report."""
        cluster = self._cluster
        times = [max(queue[0].write_at, cluster.down_until) for queue in self._all_queues() if queue]
        times += [max(item.report_at, cluster.down_until) for item in self._unreported]
        return max(1e-4, min(times, default=1e9) - cluster.clock.seconds)

    def _write(self, item: _Item, seconds: float) -> None:
        cluster = self._cluster
        item.report_at = seconds + cluster.delay_of(item.topic) * cluster.rng.uniform(0.2, 2)
        self._unreported.append(item)
        record = cluster.append(item.topic, item.key, item.value, seconds=seconds, life=self._life)
        item.offset = record.offset

    def _fail(self, item: _Item) -> None:
        self.has_failed = True
        # As the real binding: a fatal error is raised by the next poll, before any report.
        where = f"{item.topic} [{self._cluster.partition_of(item.key)}]"
        self._fatal = KafkaError(KafkaError._GAPLESS_GUARANTEE, f"could not produce to {where}: refused")
        self._due.append((item, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "refused")))
        for queue in self._all_queues():
            given_back = KafkaError(KafkaError._GAPLESS_GUARANTEE, "after a refusal")
            self._due.extend((each, given_back) for each in queue)
            queue.clear()

    def _collect(self) -> None:
        cluster = self._cluster
        cluster.step()
        while cluster.is_up and self._unreported and self._unreported[0].report_at <= cluster.clock.seconds:
            self._due.append((self._unreported.popleft(), None))

    def _report_outage(self) -> None:
        """Report failed connections once per outage."""
        cluster = self._cluster
        if not cluster.is_up and self._reported_outage_until < cluster.down_until and not self.is_dead:
            self._reported_outage_until = cluster.down_until
            if self._on_error is not None:
                self._on_error(KafkaError(KafkaError._TRANSPORT, "the brokers are gone"))
                self._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
