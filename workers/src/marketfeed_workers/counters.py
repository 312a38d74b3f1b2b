"""Counters of the worker: incremented by the hot path, read by metrics and status.

Plain integers instead of Prometheus objects, whose increments take a lock and cost as much as decoding a frame.
`metrics` reads them at a scrape.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from marketfeed_service.histogram import LatencyHistogram
from marketfeed_wire import REJECTED

LATENCY_BOUNDS_US: Final = (
    250, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 8_000, 10_000, 12_500, 15_000, 20_000, 25_000, 35_000,
    50_000, 75_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
)  # fmt: skip


def _latencies() -> LatencyHistogram:
    return LatencyHistogram(LATENCY_BOUNDS_US)


@dataclass(slots=True)
class StreamCounters:
    """Counters of one type of messages and its topic."""

    stream: str
    topic: str
    received: int = 0
    acknowledged: int = 0
    failed: int = 0
    conflated: int = 0
    outdated: int = 0
    socket_to_ack: LatencyHistogram = field(default_factory=_latencies)
    venue_to_socket: LatencyHistogram = field(default_factory=_latencies)
    """Latency from the venue's event time to the read, corrected by the clock offset; one sample per read."""


@dataclass(slots=True)
class Counters:
    """Counters of a worker.

    Attributes:
        gaps, progress: gap records and checkpoints.
        rejected: messages rejected as impossible, published unchanged.
        rejections: reason -> number of rejected messages.
        failures: reason -> number of failures of fetching from the venue.
        gaps_opened: number of gaps in trade ids.
        gap_outcomes: backfilled, absent, unresolved or reordered -> number of gaps.
        backfilled: number of trades fetched over REST.
        unexpected: number of messages of symbols or streams that are not subscribed.
        paused_reads: number of pauses of reading because the queue to Kafka was full.
        rotations: reason -> number of rotations.
        control_frames: command, ping or pong -> number of sent frames.
        clock_offset_us: the venue's clock minus the host's.
        series_begun: (stream, symbol) -> number of id resets.
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
        """Counters of every topic."""
        return self.trades, self.quotes, self.gaps, self.progress, self.rejected
