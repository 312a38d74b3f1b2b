"""Arithmetic of id ranges."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class IdRange(NamedTuple):
    """Ids from `first` to `last`, inclusive."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


def size(ranges: Iterable[IdRange]) -> int:
    """Return the number of ids in `ranges`, which must not overlap."""
    return sum(each.last - each.first + 1 for each in ranges)


def without(expected: Iterable[IdRange], present: Iterable[IdRange]) -> list[IdRange]:
    """Return the ids of `expected` that are in none of `present`, in order.

    `present` may be unsorted and overlap; the ranges of `expected` must not overlap.
    """
    sorted_present = sorted(present)
    missing: list[IdRange] = []
    for first, last in sorted(expected):
        next_id = first
        for low, high in sorted_present:
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
    """Return the minimal ranges that contain exactly `ids`, which may be unsorted and repeat."""
    ranges: list[IdRange] = []
    for number in sorted(set(ids)):
        if ranges and number == ranges[-1].last + 1:
            ranges[-1] = IdRange(ranges[-1].first, number)
        else:
            ranges.append(IdRange(number, number))
    return ranges


def text(ranges: Sequence[IdRange], limit: int = 5) -> str:
    """Format the first `limit` ranges and the number of further ones."""
    shown = ", ".join(map(str, ranges[:limit]))
    more = len(ranges) - limit
    if more <= 0:
        return shown
    return f"{shown} and {more:,} more {'range' if more == 1 else 'ranges'}"
