"""Ranges of ids behave like sets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_service.id_ranges import IdRange, contains, difference, merged, of_ids, total, within, without

ids = st.integers(0, 40)
ranges = st.tuples(ids, ids).map(lambda pair: IdRange(min(pair), max(pair)))
sets = st.frozensets(ids)


def spelled_out(given_ranges: list[IdRange]) -> list[int]:
    return [each for first, last in given_ranges for each in range(first, last + 1)]


@given(sets)
def test_id_ranges_round_trip_of_a_set(members: frozenset[int]) -> None:
    made = of_ids(members)
    assert spelled_out(made) == sorted(members)
    assert all(one.last + 1 < other.first for one, other in pairwise(made)), "they touch"
    assert total(made) == len(members)


@given(st.lists(ranges))
def test_id_ranges_merged_is_the_union(many: list[IdRange]) -> None:
    whole = merged(many)
    assert spelled_out(whole) == sorted(set(spelled_out(many)))
    assert of_ids(spelled_out(many)) == whole


@given(sets, ranges)
def test_id_ranges_without_is_the_difference(members: frozenset[int], cut: IdRange) -> None:
    assert spelled_out(without(of_ids(members), cut)) == sorted(members - set(range(cut.first, cut.last + 1)))


@given(sets, ranges)
def test_id_ranges_within_is_the_intersection(members: frozenset[int], frame: IdRange) -> None:
    assert spelled_out(within(of_ids(members), frame)) == sorted(
        members & set(range(frame.first, frame.last + 1))
    )


@given(sets, st.lists(ranges))
def test_id_ranges_difference_is_that_of_sets(members: frozenset[int], others: list[IdRange]) -> None:
    assert spelled_out(difference(of_ids(members), others)) == sorted(members - set(spelled_out(others)))


@pytest.mark.parametrize(
    ("some", "others", "expected"),
    [
        pytest.param([(1, 5)], [(1, 5)], [], id="all"),
        pytest.param([(1, 5)], [], [(1, 5)], id="none"),
        pytest.param([(1, 5)], [(2, 3)], [(1, 1), (4, 5)], id="in the middle"),
        pytest.param([(1, 5)], [(1, 2), (4, 5)], [(3, 3)], id="both ends"),
        pytest.param([(1, 5)], [(4, 9), (0, 1)], [(2, 3)], id="beyond both ends, unsorted"),
        pytest.param([(1, 5)], [(1, 4), (2, 3)], [(5, 5)], id="one within the other"),
        pytest.param([(1, 3), (7, 9)], [(2, 8)], [(1, 1), (9, 9)], id="one over two"),
        pytest.param([], [(1, 5)], [], id="of nothing"),
    ],
)
def test_id_ranges_difference_is_minimal(
    some: list[tuple[int, int]], others: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    assert difference([IdRange(*each) for each in some], [IdRange(*each) for each in others]) == expected


@given(sets, ids)
def test_id_ranges_contains_is_membership(members: frozenset[int], each: int) -> None:
    assert contains(of_ids(members), each) == (each in members)
