"""Poison messages are found by bisection, and only those."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from marketfeed_consumers.storage.quarantine import find_poison


@given(st.lists(st.booleans(), max_size=60))
def test_poison_records_are_found_exactly(bad: list[bool]) -> None:
    items = list(enumerate(bad))
    trials = 0

    def refusal(part: Sequence[tuple[int, bool]]) -> str | None:
        nonlocal trials
        trials += 1
        return next((f"no {number}" for number, is_bad in part if is_bad), None)

    found = list(find_poison(items, refusal))
    assert [one[:2] for one in found] == [
        ((number, True), f"no {number}") for number, is_bad in items if is_bad
    ]
    ends = [-1, *(number for number, is_bad in items if is_bad)]
    assert [one.accepted for one in found] == [after - before - 1 for before, after in pairwise(ends)]
    assert trials <= (len(found) + 1) * (len(items).bit_length() + 1) + 1


@given(st.lists(st.integers(0, 5), max_size=40))
def test_poison_is_the_later_of_two_conflicting_records(items: list[int]) -> None:
    numbered = list(enumerate(items))

    def refusal(part: Sequence[tuple[int, int]]) -> str | None:
        values = [value for _, value in part]
        return "twice" if len(set(values)) != len(values) else None

    refused = {found.item for found in find_poison(numbered, refusal)}
    kept = [item for item in numbered if item not in refused]
    assert refusal(kept) is None
    assert [value for _, value in kept] == list(dict.fromkeys(items))
