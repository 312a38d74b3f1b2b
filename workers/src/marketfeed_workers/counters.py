"""The worker's plain counters: written by the hot path, read by metrics and status.

Plain integers and not Prometheus objects, because an increment of those takes a lock and costs as much as decoding
a frame; `metrics` reads these when it is scraped.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from marketfeed_wire import REJECTED

LATENCY_BOUNDS_US: Final = (
    250, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 8_000, 10_000, 12_500, 15_000, 20_000, 25_000, 35_000,
    50_000, 75_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
)  # fmt: skip


class LatencyBuckets:
    """A histogram of latencies in microseconds."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_US) + 1)
        self.sum_us = 0

    def observe(self, latency_us: int, times: int) -> None:
        """Count `times` events that took `latency_us`."""
        self.counts[bisect_left(LATENCY_BOUNDS_US, latency_us)] += times
        self.sum_us += latency_us * times


@dataclass(slots=True)
class StreamCounters:
    """One kind of stream (trades or quotes) and the topic that it goes to."""

    stream: str
    topic: str
    received: int = 0
    acknowledged: int = 0
    failed: int = 0
    conflated: int = 0
    outdated: int = 0
    socket_to_ack: LatencyBuckets = field(default_factory=LatencyBuckets)
    venue_to_socket: LatencyBuckets = field(default_factory=LatencyBuckets)
    """From the venue's event time to our read, corrected by the clock offset; a sample a read."""


@dataclass(slots=True)
class Counters:
    """Everything that one worker counts.

    Attributes:
        gaps, progress: notes that the worker publishes about itself.
        rejected: messages that cannot be true, which are kept as they came.
        rejections: reason -> messages that were rejected.
        failures: reason -> failures of fetching from the venue.
        gaps_opened: jumps in trade ids.
        gap_outcomes: filled, absent, unresolved or reordered -> gaps that came to it.
        backfilled: trades fetched over REST.
        unexpected: messages of symbols that this worker does not read (any more).
        paused_reads: times that sockets were not read for lack of room towards Kafka.
        rotations: reason -> connections that were replaced by a new one before they were closed.
        control_frames: command, ping or pong -> frames of that kind that we sent.
        clock_offset_us: the venue's clock minus ours.
        series_begun: (stream, symbol) -> how often its ids began again.
    """

    trades: StreamCounters
    quotes: StreamCounters
    gaps: StreamCounters
    progress: StreamCounters
    rejected: StreamCounters = field(default_factory=lambda: StreamCounters("rejected", REJECTED))
    rejections: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    gaps_opened: int = 0
    gap_outcomes: Counter[str] = field(default_factory=Counter)
    backfilled: int = 0
    unexpected: int = 0
    paused_reads: int = 0
    rotations: Counter[str] = field(default_factory=Counter)
    control_frames: Counter[str] = field(default_factory=Counter)
    clock_offset_us: int = 0
    series_begun: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def topics(self) -> tuple[StreamCounters, ...]:
        """The counters of every topic that is published to."""
        return self.trades, self.quotes, self.gaps, self.progress, self.rejected
