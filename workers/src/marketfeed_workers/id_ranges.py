"""Ranges of trade ids and what one does with them. A list of ranges is sorted and its ranges do not touch."""

from collections.abc import Iterable
from typing import NamedTuple


class IdRange(NamedTuple):
    """Ids from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many ids there are in it."""
        return self.last - self.first + 1


def holds(ranges: Iterable[IdRange], trade_id: int) -> bool:
    """Whether an id is in one of `ranges`."""
    return any(first <= trade_id <= last for first, last in ranges)


def total(ranges: Iterable[IdRange]) -> int:
    """How many ids there are in `ranges`."""
    return sum(each.size for each in ranges)


def without(ranges: Iterable[IdRange], cut: IdRange) -> list[IdRange]:
    """`ranges` with every id of `cut` taken out."""
    left: list[IdRange] = []
    for first, last in ranges:
        if first < cut.first:
            left.append(IdRange(first, min(last, cut.first - 1)))
        if last > cut.last:
            left.append(IdRange(max(first, cut.last + 1), last))
        # both parts are kept where `cut` lies inside; none where it covers the range
    return left


def within(ranges: Iterable[IdRange], frame: IdRange) -> list[IdRange]:
    """The parts of `ranges` that lie in `frame`."""
    return [
        IdRange(max(first, frame.first), min(last, frame.last))
        for first, last in ranges
        if first <= frame.last and last >= frame.first
    ]


def merged(ranges: Iterable[IdRange]) -> list[IdRange]:
    """`ranges`, in any order and overlapping, as a sorted list whose ranges do not touch."""
    result: list[IdRange] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1].last + 1:
            result[-1] = IdRange(result[-1].first, max(last, result[-1].last))
        else:
            result.append(IdRange(first, last))
    return result


def of_ids(ids: Iterable[int]) -> list[IdRange]:
    """The ranges that hold exactly `ids`."""
    return merged(IdRange(each, each) for each in ids)
