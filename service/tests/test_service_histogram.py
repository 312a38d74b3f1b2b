"""Latencies are counted exactly, and a quantile is accurate to one bucket."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from marketfeed_service.histogram import LatencyHistogram, total

BOUNDS_US = (100, 600, 1_000, 20_000, 1_000_000, 100_000_000)

received = st.lists(st.integers(0, 200_000_000), min_size=1, max_size=50)


@given(st.lists(received, min_size=1, max_size=4))
def test_histogram_counts_equal_those_of_each_row(batches: list[list[int]]) -> None:
    now = 200_000_000
    histogram = LatencyHistogram(BOUNDS_US)
    expected = [0] * (len(BOUNDS_US) + 1)
    for batch in batches:
        histogram.observe_rows(batch, now)
        for one in batch:
            expected[bisect_left(BOUNDS_US, now - one)] += 1
    assert histogram.counts == expected
    assert histogram.count == sum(map(len, batches))
    assert histogram.sum_us == sum(now - one for batch in batches for one in batch)


@given(received)
def test_histogram_quantile_is_the_upper_bound_of_its_row(rows: list[int]) -> None:
    histogram = LatencyHistogram(BOUNDS_US)
    histogram.observe_rows(rows, 200_000_000)
    latencies = sorted(200_000_000 - one for one in rows)
    median = latencies[(len(latencies) + 1) // 2 - 1]
    bound = histogram.quantile_us(0.5)
    assert bound is not None
    assert bound == BOUNDS_US[min(bisect_left(BOUNDS_US, median), len(BOUNDS_US) - 1)]


def test_histogram_without_rows_has_no_quantile_and_negative_latency_counts_as_zero() -> None:
    assert LatencyHistogram(BOUNDS_US).quantile_us(0.99) is None
    ahead = LatencyHistogram(BOUNDS_US)
    ahead.observe_rows([1_000], 0)
    assert ahead.quantile_us(0.5) == BOUNDS_US[0]


def test_histogram_total_is_the_sum_of_the_histograms() -> None:
    one, other = LatencyHistogram(BOUNDS_US), LatencyHistogram(BOUNDS_US)
    one.observe_rows([0, 0], 500)
    other.observe_rows([0], 5_000_000)
    whole = total([one, other], BOUNDS_US)
    assert (whole.count, whole.sum_us) == (3, 5_001_000)
    assert whole.quantile_us(0.5) == 600


@given(st.lists(st.tuples(st.integers(0, 60_000_000), st.integers(1, 500))))
def test_histogram_in_seconds_is_cumulative(observed: list[tuple[int, int]]) -> None:
    histogram = LatencyHistogram(BOUNDS_US)
    for latency_us, times in observed:
        histogram.observe(latency_us, times)
    buckets, sum_seconds = histogram.in_seconds()
    assert sum_seconds == sum(latency_us * times for latency_us, times in observed) / 1e6
    assert [float(bound) for bound, _ in buckets] == [*(bound / 1e6 for bound in BOUNDS_US), float("inf")]
    for (_, below), bound_us in zip(buckets, [*BOUNDS_US, float("inf")], strict=True):
        assert below == sum(times for latency_us, times in observed if latency_us <= bound_us)
