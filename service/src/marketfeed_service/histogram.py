"""Histogram of latencies in microseconds: plain integers, without the lock of a Prometheus object."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise


class LatencyHistogram:
    """Counts of latencies in buckets.

    Attributes:
        bounds_us: upper bounds of the buckets, ascending.
        counts: count of each bucket, not cumulative; one more bucket counts latencies above the last bound.
        sum_us: sum of the latencies.
    """

    __slots__ = ("bounds_us", "counts", "sum_us")

    def __init__(self, bounds_us: Sequence[int]) -> None:
        self.bounds_us = bounds_us
        self.counts = [0] * (len(bounds_us) + 1)
        self.sum_us = 0

    @property
    def count(self) -> int:
        """Number of latencies."""
        return sum(self.counts)

    def observe(self, latency_us: int, times: int) -> None:
        """Count `times` events that took `latency_us`."""
        self.counts[bisect_left(self.bounds_us, latency_us)] += times
        self.sum_us += latency_us * times

    def observe_rows(self, received_us: Sequence[int], committed_us: int) -> None:
        """Count rows by their receive times, all committed at `committed_us`.

        The sorted times are bisected at the bounds, of which most batches span few.
        """
        if not received_us:
            return
        received, bounds = sorted(received_us), self.bounds_us
        self.sum_us += committed_us * len(received) - sum(received)
        low = bisect_left(bounds, committed_us - received[-1])
        high = bisect_left(bounds, committed_us - received[0])
        if low == high:
            self.counts[low] += len(received)
            return
        # Cumulative counts at each bound: a latency at or below it was received at or after committed_us - bound.
        below = [len(received) - bisect_left(received, committed_us - bound) for bound in bounds[low:high]]
        for bucket, (start, end) in enumerate(pairwise([0, *below, len(received)]), low):
            self.counts[bucket] += end - start

    def add(self, other: "LatencyHistogram") -> None:
        """Add the counts of `other`, which has the same bounds."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.sum_us += other.sum_us

    def quantile_us(self, share: float) -> int | None:
        """Return the bound below which `share` of the latencies lie; None without latencies."""
        rank, seen = share * self.count, 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= rank:
                return self.bounds_us[min(bucket, len(self.bounds_us) - 1)]
        return None

    def in_seconds(self) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative buckets and sum for `HistogramMetricFamily.add_metric`."""
        buckets: list[tuple[str, float]] = []
        below = 0
        for bound_us, count in zip([*self.bounds_us, None], self.counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound_us is None else str(bound_us / 1e6), below))
        return buckets, self.sum_us / 1e6


def total(histograms: Iterable[LatencyHistogram], bounds_us: Sequence[int]) -> LatencyHistogram:
    """Return the sum of `histograms`, all with the bounds `bounds_us`."""
    whole = LatencyHistogram(bounds_us)
    for one in histograms:
        whole.add(one)
    return whole
