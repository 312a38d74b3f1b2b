"""Arithmetic of id ranges: which ids of those expected are not there."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class IdRange(NamedTuple):
    """Ids from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


def size(ranges: Iterable[IdRange]) -> int:
    """How many ids are in `ranges`, which do not overlap."""
    return sum(each.last - each.first + 1 for each in ranges)


def without(expected: Iterable[IdRange], present: Iterable[IdRange]) -> list[IdRange]:
    """The ids of `expected` that are in none of `present`, in order.

    `present` may come in any order and overlap; the ranges of `expected` do not overlap.
    """
    there = sorted(present)
    missing: list[IdRange] = []
    for first, last in sorted(expected):
        next_id = first
        for low, high in there:
            if high < next_id:
                continue
            if low > last:
                break
            if low > next_id:
                missing.append(IdRange(next_id, low - 1))
            next_id = high + 1
        if next_id <= last:
            missing.append(IdRange(next_id, last))
    return missing


def of_ids(ids: Iterable[int]) -> list[IdRange]:
    """The fewest ranges that hold exactly `ids`, which may repeat and come in any order."""
    ranges: list[IdRange] = []
    for number in sorted(set(ids)):
        if ranges and number == ranges[-1].last + 1:
            ranges[-1] = IdRange(ranges[-1].first, number)
        else:
            ranges.append(IdRange(number, number))
    return ranges


def text(ranges: Sequence[IdRange], most: int = 5) -> str:
    """`ranges` for a reader: the first `most`, and how many more there are."""
    shown = ", ".join(map(str, ranges[:most]))
    more = len(ranges) - most
    if more <= 0:
        return shown
    return f"{shown} and {more:,} more {'range' if more == 1 else 'ranges'}"
