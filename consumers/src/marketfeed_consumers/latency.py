"""Wire-to-commit latency: from the worker's socket read to the database's response to COMMIT.

Counted in buckets with fixed bounds, nine per power of ten from 100 µs to 100 s, so that the error of a quantile is
below a seventh of its value. The sorted times of a batch are bisected at the bounds, of which most batches span few.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

_STEPS: Final = (1, 1.3, 1.7, 2.2, 2.8, 3.6, 4.6, 6, 7.7)
BOUNDS_US: Final[tuple[int, ...]] = (
    *(round(10**exponent * step) for exponent in range(2, 8) for step in _STEPS),
    100_000_000,
)
"""Upper bounds of the buckets in microseconds; one more bucket counts values above the last bound."""


class Histogram:
    """A histogram of latencies."""

    __slots__ = ("counts", "rows", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.rows = 0
        self.sum_us = 0

    def add(self, received_us: Sequence[int], committed_us: int) -> None:
        """Count rows by their receive times, all committed at `committed_us`."""
        if not received_us:
            return
        received = sorted(received_us)
        self.rows += len(received)
        self.sum_us += committed_us * len(received) - sum(received)
        low = bisect_left(BOUNDS_US, committed_us - received[-1])
        high = bisect_left(BOUNDS_US, committed_us - received[0])
        if low == high:
            self.counts[low] += len(received)
            return
        # Cumulative counts at each bound: a latency at or below it was received at or after committed_us - bound.
        below = [len(received) - bisect_left(received, committed_us - bound) for bound in BOUNDS_US[low:high]]
        for bucket, (start, end) in enumerate(pairwise([0, *below, len(received)]), low):
            self.counts[bucket] += end - start

    def quantile_us(self, share: float) -> int | None:
        """Return the bound below which `share` of the rows lie; None without rows."""
        return quantile_us(self.counts, share)


def quantile_us(counts: Sequence[int], share: float) -> int | None:
    """Return the bound below which `share` of the counted rows lie; None without rows."""
    rank, seen = share * sum(counts), 0
    for bucket, count in enumerate(counts):
        seen += count
        if count and seen >= rank:
            return BOUNDS_US[min(bucket, len(BOUNDS_US) - 1)]
    return None


def total(histograms: Iterable[Histogram]) -> Histogram:
    """Return the sum of `histograms`."""
    whole = Histogram()
    for one in histograms:
        whole.counts = [a + b for a, b in zip(whole.counts, one.counts, strict=True)]
        whole.rows += one.rows
        whole.sum_us += one.sum_us
    return whole
