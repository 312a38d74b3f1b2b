"""Ranges of ids behave like sets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from marketfeed_workers.stream.id_ranges import IdRange, contains, merged, of_ids, total, within, without

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
    assert spelled_out(merged(many)) == sorted(set(spelled_out(many)))


@given(sets, ranges)
def test_id_ranges_without_is_the_difference(members: frozenset[int], cut: IdRange) -> None:
    assert spelled_out(without(of_ids(members), cut)) == sorted(members - set(range(cut.first, cut.last + 1)))


@given(sets, ranges)
def test_id_ranges_within_is_the_intersection(members: frozenset[int], frame: IdRange) -> None:
    assert spelled_out(within(of_ids(members), frame)) == sorted(
        members & set(range(frame.first, frame.last + 1))
    )


@given(sets, ids)
def test_id_ranges_contains_is_membership(members: frozenset[int], each: int) -> None:
    assert contains(of_ids(members), each) == (each in members)
