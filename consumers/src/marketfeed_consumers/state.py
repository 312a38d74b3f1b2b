"""The state of a consumer process: counters, owned partitions, stored ranges.

Plain values, written by the loop's thread and read by /status and /metrics.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from marketfeed_consumers.database.tables.book_tickers import NAME as BOOK_TICKERS
from marketfeed_consumers.database.tables.trades import NAME as TRADES
from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.planning.plan import Plan, RangesKey
from marketfeed_consumers.planning.stored_ranges import StoredRanges
from marketfeed_consumers.storage.transaction import Stored
from marketfeed_service.histogram import LatencyHistogram
from marketfeed_wire import Trade

_STEPS: Final = (1, 1.3, 1.7, 2.2, 2.8, 3.6, 4.6, 6, 7.7)
LATENCY_BOUNDS_US: Final[tuple[int, ...]] = (
    *(round(10**exponent * step) for exponent in range(2, 8) for step in _STEPS),
    100_000_000,
)
"""Bounds of the wire-to-commit latency: nine per power of ten, so the error of a quantile is below a seventh of it."""


@dataclass(slots=True)
class PartitionState:
    """One owned partition.

    Attributes:
        next_offset: the committed offset in the database.
        leader_epoch: stored leader epoch of the partition at `next_offset`; -1 if unknown.
        end_offset: the log end offset in the broker's last response; None if unknown.
    """

    epoch: int
    next_offset: int
    end_offset: int | None = None
    leader_epoch: int = -1


@dataclass(slots=True)
class State:
    """Counters since the start of the process, the owned partitions, and the stored ranges of its symbols.

    Attributes:
        kafka_error: why Kafka cannot be read; "" if it can.
        missing_topics: subscribed topics that do not exist.
        unknown_topics: topics that the client has reported as unknown; it does not report when it finds them.
        brokers_down_at: when the client last lost its last broker, by the monotonic clock.
        conflicts: (table, symbol) -> messages with the id of a stored row and another content.
        unverifiable: table -> duplicates of expired rows.
    """

    partitions: dict[Partition, PartitionState] = field(default_factory=dict)
    joined: bool = False
    kafka_error: str = ""
    missing_topics: set[str] = field(default_factory=set)
    unknown_topics: set[str] = field(default_factory=set)
    brokers_down_at: float = -math.inf
    inserted: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    conflicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    unverifiable: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    latencies: dict[RangesKey, LatencyHistogram] = field(default_factory=dict)
    newest_received_us: dict[str, int] = field(default_factory=dict)
    stored_ranges: dict[RangesKey, StoredRanges] = field(default_factory=dict)
    last_step: float = field(default_factory=time.monotonic)

    def stored(self, plan: Plan, result: Stored) -> None:
        """Count a committed plan and advance its partitions."""
        self.batches += 1
        self.inserted.update(result.written.inserted)
        self.duplicates.update(result.written.duplicates)
        self.unverifiable.update(result.written.unverifiable)
        for received, _ in result.written.conflicts:
            table = TRADES if isinstance(received, Trade) else BOOK_TICKERS
            self.conflicts[table, received.symbol] += 1
        self.expired.update(result.written.expired)
        self.dead_letters.update(letter.topic for letter in plan.dead_letters)
        for step in plan.offset_advances:
            owned = self.partitions.get((step.topic, step.partition))
            if owned is not None:
                owned.next_offset, owned.leader_epoch = step.next_offset, step.leader_epoch
        for key, trades in chain(plan.trades.new.items(), plan.trades.unverified.items()):
            self._stored_rows((TRADES, *key), [one.received_time_us for one in trades], result)
        for key, quotes in chain(plan.quotes.new.items(), plan.quotes.unverified.items()):
            self._stored_rows((BOOK_TICKERS, *key), [one.received_time_us for one in quotes], result)

    def _stored_rows(self, key: RangesKey, received_us: list[int], result: Stored) -> None:
        histogram = self.latencies.get(key)
        if histogram is None:
            histogram = self.latencies[key] = LatencyHistogram(LATENCY_BOUNDS_US)
        histogram.observe_rows(received_us, result.committed_time_us)
        newest = received_us[-1]
        if newest > self.newest_received_us.get(key[0], 0):
            self.newest_received_us[key[0]] = newest
