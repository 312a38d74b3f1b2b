"""Ranges of trade ids. A list of ranges is sorted, and its ranges are disjoint and not adjacent."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class IdRange(NamedTuple):
    """Ids from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.last - self.first + 1


def contains(ranges: Iterable[IdRange], trade_id: int) -> bool:
    """Return whether an id is in one of `ranges`."""
    return any(first <= trade_id <= last for first, last in ranges)


def membership(ranges: Sequence[IdRange]) -> Callable[[int], bool]:
    """Return a function like `contains` for repeated lookups in the same `ranges`."""
    firsts = [first for first, _ in ranges]

    def is_held(trade_id: int) -> bool:
        at = bisect_right(firsts, trade_id)
        return at > 0 and trade_id <= ranges[at - 1].last

    return is_held


def total(ranges: Iterable[IdRange]) -> int:
    """Return the number of ids in `ranges`."""
    return sum(each.size for each in ranges)


def without(ranges: Iterable[IdRange], cut: IdRange) -> list[IdRange]:
    """Return `ranges` without the ids of `cut`."""
    left: list[IdRange] = []
    for first, last in ranges:
        if first < cut.first:
            left.append(IdRange(first, min(last, cut.first - 1)))
        if last > cut.last:
            left.append(IdRange(max(first, cut.last + 1), last))
        # both parts are kept if `cut` is inside; none if it covers the range
    return left


def difference(ranges: Iterable[IdRange], others: Iterable[IdRange]) -> list[IdRange]:
    """Return `ranges` without the ids of `others`, which may overlap and be in any order."""
    cuts = merged(others)
    return [left for each in ranges for left in _without_all(each, part_of(cuts, each))]


def within(ranges: Iterable[IdRange], frame: IdRange) -> list[IdRange]:
    """Return the parts of `ranges` within `frame`."""
    return [
        IdRange(max(first, frame.first), min(last, frame.last))
        for first, last in ranges
        if first <= frame.last and last >= frame.first
    ]


def part_of(ranges: Sequence[IdRange], frame: IdRange) -> list[IdRange]:
    """Return the same as `within`, fast for many sorted `ranges`."""
    at = bisect_left(ranges, frame.first, key=_last_of)
    result: list[IdRange] = []
    while at < len(ranges) and ranges[at].first <= frame.last:
        result.append(IdRange(max(ranges[at].first, frame.first), min(ranges[at].last, frame.last)))
        at += 1
    return result


def _last_of(each: IdRange) -> int:
    return each.last


def _without_all(each: IdRange, cuts: Iterable[IdRange]) -> list[IdRange]:
    first, left = each.first, list[IdRange]()
    for cut in cuts:
        if first < cut.first:
            left.append(IdRange(first, cut.first - 1))
        first = cut.last + 1
    return [*left, IdRange(first, each.last)] if first <= each.last else left


def common(some: Sequence[IdRange], others: Sequence[IdRange]) -> list[IdRange]:
    """Return the intersection of two lists."""
    result: list[IdRange] = []
    at = 0
    for each in some:
        while at < len(others) and others[at].last < each.first:
            at += 1
        found = at
        while found < len(others) and others[found].first <= each.last:
            result.append(IdRange(max(each.first, others[found].first), min(each.last, others[found].last)))
            found += 1
    return result


def merged(ranges: Iterable[IdRange]) -> list[IdRange]:
    """Return the union of `ranges`, which may overlap and be in any order."""
    result: list[IdRange] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1].last + 1:
            result[-1] = IdRange(result[-1].first, max(last, result[-1].last))
        else:
            result.append(IdRange(first, last))
    return result


def of_ids(ids: Iterable[int]) -> list[IdRange]:
    """Return the ranges of exactly `ids`."""
    result: list[IdRange] = []
    first = last = None
    for each in sorted(ids):
        if first is None or last is None:
            first = each
        elif each > last + 1:
            result.append(IdRange(first, last))
            first = each
        last = each
    return [*result, IdRange(first, last)] if first is not None and last is not None else result
