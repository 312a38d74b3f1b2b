"""What a consumer process has done and where it stands.

Plain values, written by the loop's thread and read by /status and /metrics.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

from marketfeed_consumers.decode import Partition
from marketfeed_consumers.knowledge import Mark
from marketfeed_consumers.latency import Histogram
from marketfeed_consumers.plan import MarkKey, Plan
from marketfeed_consumers.tables.book_tickers import NAME as BOOK_TICKERS
from marketfeed_consumers.tables.trades import NAME as TRADES
from marketfeed_consumers.writer import Stored


@dataclass(slots=True)
class Progress:
    """One partition that is ours.

    Attributes:
        next_offset: as stored.
        end_offset: the partition's end as the broker last told it.
    """

    epoch: int
    next_offset: int
    end_offset: int | None = None


@dataclass(slots=True)
class State:
    """Counters since the process began, what it owns now, and what it knows to be stored of the symbols it has seen."""

    partitions: dict[Partition, Progress] = field(default_factory=dict)
    joined: bool = False
    kafka_trouble: str = ""
    inserted: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    latencies: dict[MarkKey, Histogram] = field(default_factory=dict)
    newest_received_us: dict[str, int] = field(default_factory=dict)
    known: dict[MarkKey, Mark] = field(default_factory=dict)
    last_step: float = field(default_factory=time.monotonic)

    def stored(self, plan: Plan, result: Stored) -> None:
        """Note a committed plan."""
        self.batches += 1
        self.inserted.update(result.written.inserted)
        self.duplicates.update(result.written.duplicates)
        self.dead_letters.update(letter.topic for letter in plan.dead_letters)
        for topic, number, _, next_offset in plan.steps:
            if (topic, number) in self.partitions:
                self.partitions[topic, number].next_offset = next_offset
        for key, trades in chain(plan.trades.new.items(), plan.trades.doubtful.items()):
            self._stored_rows((TRADES, *key), [one.received_time_us for one in trades], result)
        for key, quotes in chain(plan.quotes.new.items(), plan.quotes.doubtful.items()):
            self._stored_rows((BOOK_TICKERS, *key), [one.received_time_us for one in quotes], result)

    def _stored_rows(self, key: MarkKey, received_us: list[int], result: Stored) -> None:
        histogram = self.latencies.get(key)
        if histogram is None:
            histogram = self.latencies[key] = Histogram()
        histogram.add(received_us, result.committed_time_us)
        newest = received_us[-1]
        if newest > self.newest_received_us.get(key[0], 0):
            self.newest_received_us[key[0]] = newest
