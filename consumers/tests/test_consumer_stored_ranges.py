"""Deduplication by stored ranges gives the same result as a set of all ids."""

import pytest
from consumer_market import batches_of_ids, trade
from hypothesis import given

from marketfeed_consumers.planning.stored_ranges import EMPTY_RANGES, MissingRange, StoredRanges, deduplicate


def spans(ranges: StoredRanges) -> list[tuple[int, int]]:
    return [(span.first_id, span.last_id) for span in ranges.missing]


@given(batches_of_ids)
def test_stored_ranges_equal_a_set_of_all_ids(batches: list[list[int]]) -> None:
    ranges, stored, table = EMPTY_RANGES, set[int](), set[MissingRange]()
    for batch in batches:
        result = deduplicate(ranges, [trade(i) for i in batch])
        assert [one.trade_id for one in result.new] == sorted(set(batch) - stored)
        stored |= set(batch)
        ranges = result.ranges
        assert (ranges.first_id, ranges.last_id) == (min(stored), max(stored))
        missing = {i for span in ranges.missing for i in range(span.first_id, span.last_id + 1)}
        assert missing == set(range(min(stored), max(stored) + 1)) - stored
        # The changes of missing_trades result in the ranges in memory.
        assert table >= set(result.closed)
        assert not (table - set(result.closed)) & set(result.opened)
        table = table - set(result.closed) | set(result.opened)
        assert table == set(ranges.missing)


@given(batches_of_ids)
def test_stored_ranges_have_the_times_around_a_missing_range(batches: list[list[int]]) -> None:
    ranges = EMPTY_RANGES
    for batch in batches:
        ranges = deduplicate(ranges, [trade(i) for i in batch]).ranges
    for span in ranges.missing:
        assert span.after_time_us == trade(span.first_id - 1).trade_time_us
        assert span.before_time_us == trade(span.last_id + 1).trade_time_us
    assert ranges.first_time_us == trade(ranges.first_id).trade_time_us
    assert ranges.last_time_us == trade(ranges.last_id).trade_time_us


def test_stored_ranges_accept_ids_expired_by_an_older_release_only_if_young() -> None:
    """Regression: missing ids among them expired, including young ones."""
    ranges = StoredRanges(3, 50, 60, 9_000, 9_500, 50, 9_000)
    times = {10: 8_999, 11: 9_000, 12: 100, 49: 9_001, 61: 1}
    result = deduplicate(ranges, [trade(i, trade_time_us=time_us) for i, time_us in times.items()])
    assert [one.trade_id for one in result.new] == [11, 49, 61]
    retry_conflicts = deduplicate(
        result.ranges, [trade(10, trade_time_us=8_999), trade(12, trade_time_us=9_000), trade(11)]
    )
    assert [one.trade_id for one in retry_conflicts.new] == [12]


def test_stored_ranges_version_increases_only_with_new_ids() -> None:
    first = deduplicate(EMPTY_RANGES, [trade(1), trade(2)]).ranges
    assert first.version == 1
    retry_conflicts = deduplicate(first, [trade(2), trade(1)])
    assert (retry_conflicts.new, retry_conflicts.ranges) == ((), first)
    assert deduplicate(first, [trade(3)]).ranges.version == 2


@pytest.mark.parametrize(
    ("stored", "batch", "new", "missing"),
    [
        pytest.param([5, 6], [7, 8], [7, 8], [], id="a run that continues is added completely"),
        pytest.param([5, 6], [9, 10], [9, 10], [(7, 8)], id="a run after a gap leaves a range missing"),
        pytest.param([5, 9], [7], [7], [(6, 6), (8, 8)], id="a late id splits the range it was missing from"),
        pytest.param([5, 9], [8, 7, 6], [6, 7, 8], [], id="a backfill closes the range"),
        pytest.param([5, 6], [1], [1], [(2, 4)], id="an id below everything stored extends it downwards"),
        pytest.param(
            [5, 6], [8, 6, 8, 7], [7, 8], [], id="repeats within the batch and of what is stored add nothing"
        ),
        pytest.param([], [0], [0], [], id="id 0 is an id"),
    ],
)
def test_cases(stored: list[int], batch: list[int], new: list[int], missing: list[tuple[int, int]]) -> None:
    ranges = deduplicate(EMPTY_RANGES, [trade(i) for i in stored]).ranges if stored else EMPTY_RANGES
    result = deduplicate(ranges, [trade(i) for i in batch])
    assert [one.trade_id for one in result.new] == new
    assert spans(result.ranges) == missing
