"""Arithmetic of id ranges."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_cli import ranges
from marketfeed_cli.ranges import IdRange

ids = st.sets(st.integers(0, 60))


def in_ranges(found: list[IdRange]) -> set[int]:
    return {number for each in found for number in range(each.first, each.last + 1)}


@pytest.mark.parametrize(
    ("expected", "present", "missing"),
    [
        pytest.param([(1, 5)], [(1, 5)], [], id="all present"),
        pytest.param([(1, 5)], [], [(1, 5)], id="none present"),
        pytest.param([(1, 5)], [(2, 3)], [(1, 1), (4, 5)], id="both ends missing"),
        pytest.param([(1, 5)], [(1, 2), (4, 5)], [(3, 3)], id="one in the middle"),
        pytest.param([(1, 5)], [(4, 9), (0, 1)], [(2, 3)], id="beyond both ends, unsorted"),
        pytest.param([(1, 5)], [(1, 4), (2, 3)], [(5, 5)], id="one within the other"),
        pytest.param([(1, 3), (7, 9)], [(2, 8)], [(1, 1), (9, 9)], id="two expected"),
        pytest.param([], [(1, 5)], [], id="nothing expected"),
    ],
)
def test_ranges_without_present_ids(
    expected: list[tuple[int, int]], present: list[tuple[int, int]], missing: list[tuple[int, int]]
) -> None:
    found = ranges.without([IdRange(*each) for each in expected], [IdRange(*each) for each in present])
    assert found == missing


@given(ids, ids)
def test_ranges_without_equals_set_difference(expected: set[int], present: set[int]) -> None:
    found = ranges.without(ranges.of_ids(expected), ranges.of_ids(present))
    assert in_ranges(found) == expected - present
    assert ranges.size(found) == len(expected - present)


@given(ids)
def test_ranges_of_ids_are_exact_and_not_adjacent(numbers: set[int]) -> None:
    found = ranges.of_ids(numbers)
    assert in_ranges(found) == numbers
    assert all(left.last + 1 < right.first for left, right in pairwise(found))


def test_ranges_text_lists_the_first_and_counts_the_rest() -> None:
    found = ranges.of_ids([1, 2, 3, 5, 7, 8])
    assert ranges.text(found) == "1-3, 5, 7-8"
    assert ranges.text(found, limit=1) == "1-3 and 2 more ranges"
    assert ranges.text(found, limit=2) == "1-3, 5 and 1 more range"
