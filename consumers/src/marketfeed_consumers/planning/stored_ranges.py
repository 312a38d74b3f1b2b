"""Stored ranges of one symbol and id series: deduplication of new ids without a query.

Trade ids are contiguous per symbol, so the stored ids are a span without its missing ranges. Both are in the database
(high_water_marks, missing_trades) and change in the same transaction as the rows; the mark's version, compared and set
there, verifies that the copy in memory is current. Quotes' update ids are not contiguous: only their span is kept, and
an id inside the span has to be looked up.

The id of a row that retention has deleted stays inside the span and is not missing.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from marketfeed_service.id_ranges import of_ids
from marketfeed_wire import MAX_ID, Trade

Key: TypeAlias = tuple[str, str, int]
"""(venue, symbol, id series)."""


class MissingRange(NamedTuple):
    """Trade ids `first_id`..`last_id`, inclusive, that are not stored.

    The times are those of the adjacent stored trades, so the missing trades were matched between them. None at the two
    open ends: before the first stored trade and after the last.
    """

    first_id: int
    last_id: int
    after_time_us: int | None
    before_time_us: int | None


@dataclass(frozen=True, slots=True)
class StoredRanges:
    """One symbol's row of high_water_marks, and its rows of missing_trades.

    Attributes:
        version: incremented by each change; 0 if the row does not exist yet.
        first_id, last_id: the span of stored ids; undefined at version 0.
        first_time_us, last_time_us: trade times at both ends of the span.
        expired_below_id: retention of an earlier release has deleted all rows below it, and their missing ranges.
        expired_before_us: retention has deleted all older rows.
        missing: missing ranges inside the span, ascending.
    """

    version: int
    first_id: int
    last_id: int
    first_time_us: int
    last_time_us: int
    expired_below_id: int
    expired_before_us: int
    missing: tuple[MissingRange, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no row of this symbol has been stored."""
        return self.last_id < self.first_id


EMPTY_RANGES: Final = StoredRanges(0, 0, -1, 0, 0, 0, 0)
"""The ranges of a symbol without stored rows."""


class Deduplicated(NamedTuple):
    """The result of deduplicating a batch's trades of one symbol.

    Attributes:
        new: trades that are not stored, ascending by id, without duplicates.
        ranges: the stored ranges after `new` is stored.
        opened, closed: ranges to insert into and to delete from missing_trades.
    """

    new: Sequence[Trade]
    ranges: StoredRanges
    opened: Sequence[MissingRange]
    closed: Sequence[MissingRange]


def deduplicate(ranges: StoredRanges, trades: Sequence[Trade]) -> Deduplicated:
    """Return which of `trades` (one symbol, any order, any duplicates) are new, and the stored ranges after them."""
    ids = [trade.trade_id for trade in trades]
    first = ids[0]
    if first > ranges.last_id and not ranges.is_empty and ids == list(range(first, first + len(ids))):
        return _appended(ranges, trades)
    by_id = dict(zip(reversed(ids), reversed(trades), strict=True))  # the first of each id
    ordered = sorted(by_id)
    above = bisect_right(ordered, ranges.last_id)
    if ranges.is_empty or (above and (ranges.missing or ordered[0] < ranges.first_id)):
        return _spread(ranges, by_id, ordered)
    # All ids inside the span are duplicates.
    if above == len(ordered):
        return Deduplicated((), ranges, (), ())
    if ordered[-1] - ordered[above] == len(ordered) - 1 - above:
        return _appended(ranges, [by_id[trade_id] for trade_id in ordered[above:]])
    return _spread(ranges, by_id, ordered)


def _appended(ranges: StoredRanges, trades: Sequence[Trade]) -> Deduplicated:
    # The case of nearly every batch: without its duplicates one run of ids above the span.
    first, last = trades[0], trades[-1]
    opened: tuple[MissingRange, ...] = ()
    if first.trade_id > ranges.last_id + 1:
        opened = (
            MissingRange(ranges.last_id + 1, first.trade_id - 1, ranges.last_time_us, first.trade_time_us),
        )
    after = StoredRanges(
        ranges.version + 1,
        ranges.first_id,
        last.trade_id,
        ranges.first_time_us,
        last.trade_time_us,
        ranges.expired_below_id,
        ranges.expired_before_us,
        ranges.missing + opened,
    )
    return Deduplicated(trades, after, opened, ())


def _spread(ranges: StoredRanges, by_id: Mapping[int, Trade], ordered: Iterable[int]) -> Deduplicated:
    # All other cases: each new run of ids splits the ranges that are not stored, including the two open ends.
    if ranges.expired_below_id:
        # It may have been stored and expired.
        ordered = (
            trade_id
            for trade_id in ordered
            if trade_id >= ranges.expired_below_id
            or by_id[trade_id].trade_time_us >= ranges.expired_before_us
        )
    unstored = _unstored(ranges)
    starts = [span.first_id for span in unstored]
    new: list[Trade] = []
    for first, last in of_ids(ordered):
        at = max(bisect_right(starts, first) - 1, 0)
        while at < len(unstored) and unstored[at].first_id <= last:
            span = unstored[at]
            own = [by_id[one] for one in range(max(first, span.first_id), min(last, span.last_id) + 1)]
            parts = _split(span, own[0], own[-1]) if own else [span]
            new += own
            unstored[at : at + 1] = parts
            starts[at : at + 1] = [part.first_id for part in parts]
            # Past the part below `own`; one above it lies above `last` and ends the loop.
            at += not own or span.first_id < own[0].trade_id
    if not new:
        return Deduplicated((), ranges, (), ())
    after = _ranges_with(ranges, unstored, new)
    before_set, after_set = set(ranges.missing), set(after.missing)
    return Deduplicated(new, after, sorted(after_set - before_set), sorted(before_set - after_set))


def _unstored(ranges: StoredRanges) -> list[MissingRange]:
    if ranges.is_empty:
        return [MissingRange(0, MAX_ID, None, None)]
    ends = (
        MissingRange(0, ranges.first_id - 1, None, ranges.first_time_us),
        MissingRange(ranges.last_id + 1, MAX_ID, ranges.last_time_us, None),
    )
    return [span for span in (ends[0], *ranges.missing, ends[1]) if span.first_id <= span.last_id]


def _split(span: MissingRange, first: Trade, last: Trade) -> list[MissingRange]:
    """Return the parts of `span` on both sides of the run of ids from `first` to `last`."""
    halves = (
        MissingRange(span.first_id, first.trade_id - 1, span.after_time_us, first.trade_time_us),
        MissingRange(last.trade_id + 1, span.last_id, last.trade_time_us, span.before_time_us),
    )
    return [half for half in halves if half.first_id <= half.last_id]


def _ranges_with(
    ranges: StoredRanges, unstored: Sequence[MissingRange], new: Sequence[Trade]
) -> StoredRanges:
    first, last = new[0], new[-1]
    first_id, first_time_us = first.trade_id, first.trade_time_us
    last_id, last_time_us = last.trade_id, last.trade_time_us
    if not ranges.is_empty and ranges.first_id < first_id:
        first_id, first_time_us = ranges.first_id, ranges.first_time_us
    if not ranges.is_empty and ranges.last_id > last_id:
        last_id, last_time_us = ranges.last_id, ranges.last_time_us
    inside = tuple(span for span in unstored if first_id < span.first_id and span.last_id < last_id)
    return StoredRanges(
        ranges.version + 1,
        first_id,
        last_id,
        first_time_us,
        last_time_us,
        ranges.expired_below_id,
        ranges.expired_before_us,
        inside,
    )
