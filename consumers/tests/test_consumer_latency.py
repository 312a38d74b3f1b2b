"""Latencies are counted exactly, and a quantile is accurate to one bucket."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from marketfeed_consumers.latency import BOUNDS_US, Histogram, total

received = st.lists(st.integers(0, 200_000_000), min_size=1, max_size=50)


@given(st.lists(received, min_size=1, max_size=4))
def test_latency_counts_equal_those_of_each_row(batches: list[list[int]]) -> None:
    now = 200_000_000
    histogram = Histogram()
    expected = [0] * (len(BOUNDS_US) + 1)
    for batch in batches:
        histogram.add(batch, now)
        for one in batch:
            expected[bisect_left(BOUNDS_US, now - one)] += 1
    assert histogram.counts == expected
    assert histogram.rows == sum(map(len, batches))
    assert histogram.sum_us == sum(now - one for batch in batches for one in batch)


@given(received)
def test_latency_quantile_is_the_upper_bound_of_its_row(rows: list[int]) -> None:
    histogram = Histogram()
    histogram.add(rows, 200_000_000)
    latencies = sorted(200_000_000 - one for one in rows)
    median = latencies[(len(latencies) + 1) // 2 - 1]
    bound = histogram.quantile_us(0.5)
    assert bound is not None
    assert bound == BOUNDS_US[min(bisect_left(BOUNDS_US, median), len(BOUNDS_US) - 1)]


def test_latency_without_rows_has_no_quantile_and_negative_latency_counts_as_zero() -> None:
    assert Histogram().quantile_us(0.99) is None
    ahead = Histogram()
    ahead.add([1_000], 0)
    assert ahead.quantile_us(0.5) == BOUNDS_US[0]


def test_latency_total_is_the_sum_of_the_histograms() -> None:
    one, other = Histogram(), Histogram()
    one.add([0, 0], 500)
    other.add([0], 5_000_000)
    whole = total([one, other])
    assert (whole.rows, whole.sum_us) == (3, 5_001_000)
    assert whole.quantile_us(0.5) == 600 or whole.quantile_us(0.5) in BOUNDS_US
