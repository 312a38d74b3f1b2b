"""What a consumer process has done and where it stands.

Plain values, written by the loop's thread and read by /status and /metrics.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

from marketfeed_consumers.database.tables.book_tickers import NAME as BOOK_TICKERS
from marketfeed_consumers.database.tables.trades import NAME as TRADES
from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.latency import Histogram
from marketfeed_consumers.planning.plan import Plan, RangesKey
from marketfeed_consumers.planning.stored_ranges import StoredRanges
from marketfeed_consumers.storage.writer import Stored
from marketfeed_wire import Trade


@dataclass(slots=True)
class PartitionState:
    """One partition that is ours.

    Attributes:
        next_offset: as stored.
        leader_epoch: of the partition at `next_offset`, as stored; -1 where it is unknown.
        end_offset: the partition's end as the broker last told it; None while that is not known.
    """

    epoch: int
    next_offset: int
    end_offset: int | None = None
    leader_epoch: int = -1


@dataclass(slots=True)
class State:
    """Counters since the process began, what it owns now, and what it knows to be stored of the symbols it has seen.

    Attributes:
        kafka_error: why nothing can be read at the moment; "" when all is well.
        missing_topics: those of ours that do not exist.
        unknown_topics: those that the client has not found once; it does not say when it has.
        brokers_down_at: when the client last lost its last broker, by the monotonic clock.
        conflicts: (table, symbol) -> messages that contradict what is stored.
        unverifiable: table -> messages that repeat what has expired.
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
    latencies: dict[RangesKey, Histogram] = field(default_factory=dict)
    newest_received_us: dict[str, int] = field(default_factory=dict)
    stored_ranges: dict[RangesKey, StoredRanges] = field(default_factory=dict)
    last_step: float = field(default_factory=time.monotonic)

    def stored(self, plan: Plan, result: Stored) -> None:
        """Note a committed plan."""
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
            histogram = self.latencies[key] = Histogram()
        histogram.add(received_us, result.committed_time_us)
        newest = received_us[-1]
        if newest > self.newest_received_us.get(key[0], 0):
            self.newest_received_us[key[0]] = newest
