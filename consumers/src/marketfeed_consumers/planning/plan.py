"""The plan of a batch: new rows, candles, missing ranges and offsets.

Pure functions. A plan is computed from a decoded batch and the stored ranges; it contains everything that the
transaction writes. Its `ranges` include the stored ranges after the commit, so the next batch can be planned while
this one is being written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter, eq, is_not, not_
from typing import Final, NamedTuple, TypeAlias

from marketfeed_consumers.database.tables import book_tickers, trades
from marketfeed_consumers.kafka.decode import Batch, DeadLetter, Partition
from marketfeed_consumers.planning.candles import Candle, candles
from marketfeed_consumers.planning.conflicts import Conflict
from marketfeed_consumers.planning.plausible_times import EARLIEST_US
from marketfeed_consumers.planning.recent_trades import RecentTrades
from marketfeed_consumers.planning.rows import Rows
from marketfeed_consumers.planning.stored_ranges import (
    EMPTY_RANGES,
    Key,
    MissingRange,
    StoredRanges,
    deduplicate,
)
from marketfeed_wire import MAX_ID, BookTicker, Gap, Trade, same_quote, same_trade

_TRADE_ID: Final[Callable[[Trade], int]] = attrgetter("trade_id")
RangesKey: TypeAlias = tuple[str, str, str, int]
"""(table, venue, symbol, id series)."""


class OffsetAdvance(NamedTuple):
    """The advance of a partition's offset; the transaction fails unless `expected_offset` is the stored next offset.

    `leader_epoch` is that of the partition at `next_offset`, -1 if unknown.
    """

    topic: str
    partition: int
    expected_offset: int
    next_offset: int
    leader_epoch: int = -1


@dataclass(slots=True)
class Plan:
    """The content of one transaction.

    Attributes:
        ranges: (table, venue, symbol, id series) -> stored ranges before and after.
        opened, closed: ranges to insert into and to delete from missing_trades, by symbol.
        gaps: the newest record of each gap.
        size: number of records in the batch.
        verify_rows: see `plan`.
    """

    offset_advances: Sequence[OffsetAdvance]
    trades: Rows[Trade]
    quotes: Rows[BookTicker]
    candles: list[Candle]
    tops: list[BookTicker]
    ranges: dict[RangesKey, tuple[StoredRanges, StoredRanges]]
    opened: list[tuple[Key, MissingRange]]
    closed: list[tuple[Key, MissingRange]]
    gaps: Sequence[Gap]
    dead_letters: Sequence[DeadLetter]
    size: int
    verify_rows: bool = False

    def after(self) -> dict[RangesKey, StoredRanges]:
        """Return the stored ranges after the commit, of the symbols in the plan."""
        return {key: after for key, (_, after) in self.ranges.items()}


def ranges_keys(batch: Batch) -> list[RangesKey]:
    """Return the keys of the stored ranges that planning `batch` needs."""
    return [(trades.NAME, *key) for key in batch.trades] + [(book_tickers.NAME, *key) for key in batch.quotes]


def offset_advances(batch: Batch, positions: Mapping[Partition, int]) -> list[OffsetAdvance]:
    """Return the offset advances of `batch` from the current `positions`."""
    return [
        OffsetAdvance(
            topic, number, positions[topic, number], next_offset, batch.leader_epochs.get((topic, number), -1)
        )
        for (topic, number), next_offset in sorted(batch.next_offsets.items())
    ]


def plan(
    batch: Batch,
    stored_ranges: Mapping[RangesKey, StoredRanges],
    positions: Mapping[Partition, int],
    *,
    verify_rows: bool = False,
    recent: RecentTrades | None = None,
) -> Plan:
    """Return the plan that stores `batch`.

    Args:
        batch: decoded records.
        stored_ranges: the stored ranges of all its symbols, see `ranges_keys`.
        positions: the next offset of each of its partitions, as stored before this batch.
        verify_rows: look up every row before it is written, for a table that another process has written to, so that
            the stored ranges are wrong.
        recent: trades stored before this batch; those of the plan are added.
    """
    if recent is None:
        recent = RecentTrades()
    made = Plan(
        offset_advances=offset_advances(batch, positions),
        trades=Rows(),
        quotes=Rows(),
        candles=[],
        tops=[],
        ranges={},
        opened=[],
        closed=[],
        gaps=_newest(batch.gaps),
        dead_letters=batch.dead_letters,
        size=len(batch.records),
        verify_rows=verify_rows,
    )
    for key, group in batch.trades.items():
        _plan_trades(made, key, group, stored_ranges[trades.NAME, *key], verify_rows, recent)
    for key, quotes in batch.quotes.items():
        _plan_quotes(made, key, quotes, stored_ranges[book_tickers.NAME, *key], verify_rows)
    # A symbol has one top of book, that of the newest series.
    made.tops = list({(top.venue, top.symbol): top for top in sorted(made.tops, key=_series_of)}.values())
    return made


def _series_of(quote: BookTicker) -> int:
    return quote.id_series


def _newest(gaps: Sequence[Gap]) -> list[Gap]:
    ordered = sorted(gaps, key=lambda gap: gap.updated_time_us)
    return list({(gap.venue, gap.symbol, gap.id_series, gap.first_id): gap for gap in ordered}.values())


def _plan_trades(
    made: Plan,
    key: Key,
    group: Sequence[Trade],
    ranges: StoredRanges,
    verify_rows: bool,
    recent: RecentTrades,
) -> None:
    new, after, opened, closed = deduplicate(ranges, group)
    if len(new) != len(group):
        _compare_duplicates(made.trades, key, group, new, None if verify_rows else recent)
    if not new:
        return
    made.ranges[trades.NAME, *key] = (ranges, after)
    made.opened += [(key, span) for span in opened]
    made.closed += [(key, span) for span in closed]
    if verify_rows:
        made.trades.unverified[key] = new
        return
    made.trades.new[key] = new
    recent.add(key, new)
    made.trades.copy_text.append(trades.copy_text(key, new).encode())
    made.candles += candles(key, new)


def _compare_duplicates(
    rows: Rows[Trade], key: Key, group: Sequence[Trade], new: Sequence[Trade], recent: RecentTrades | None
) -> None:
    """Compare the trades of `group` that are not `new`; look up those without a copy in `recent` (None: all)."""
    ids = list(map(_TRADE_ID, group))
    first_of_each = dict(zip(map(_TRADE_ID, new), new, strict=True))
    firsts = list(map(first_of_each.get, ids))
    if recent is not None and not all(firsts):
        first_of_each = recent.held(key, ids) | first_of_each
        firsts = list(map(first_of_each.get, ids))
    is_duplicate = list(map(is_not, firsts, group))
    possible_duplicates, firsts = list(compress(group, is_duplicate)), list(compress(firsts, is_duplicate))
    if recent is None or not all(firsts):
        is_known = [recent is not None and first is not None for first in firsts]
        rows.possible_duplicates[key] = list(compress(possible_duplicates, map(not_, is_known)))
        possible_duplicates, firsts = (
            list(compress(possible_duplicates, is_known)),
            list(compress(firsts, is_known)),
        )
    # Nearly all duplicates are equal in every field: those are counted in one pass.
    is_same = list(map(eq, firsts, possible_duplicates))
    rows.duplicates += sum(is_same)
    for first, trade in compress(zip(firsts, possible_duplicates, strict=True), map(not_, is_same)):
        if first is not None and same_trade(first, trade):
            rows.duplicates += 1
        elif first is not None:
            rows.conflicts.append(Conflict(trade, first))


def _plan_quotes(
    made: Plan, key: Key, group: Sequence[BookTicker], ranges: StoredRanges, verify_rows: bool
) -> None:
    above, below = _split_at_last_id(group, EMPTY_RANGES.last_id if verify_rows else ranges.last_id)
    if verify_rows:
        above, below = [], above
    kept = below
    if below and ranges.expired_before_us:
        # Retention has deleted their rows: a lookup would find them new.
        kept = [quote for quote in below if not _has_expired(quote, ranges)]
    made.quotes.expired += len(below) - len(kept)
    below = kept
    if len(group) != len(above):
        _compare_quotes(made.quotes, key, group, MAX_ID if verify_rows else ranges.last_id)
    if not (above or below):
        return
    if below:
        made.quotes.unverified[key] = below
    if above:
        made.quotes.new[key] = above
        made.quotes.copy_text.append(book_tickers.copy_text(key, above).encode())
    quotes = [*below, *above]
    made.ranges[book_tickers.NAME, *key] = (ranges, _ranges_with_quotes(ranges, quotes))
    if quotes[-1].update_id > ranges.last_id:
        made.tops.append(quotes[-1])


def _compare_quotes(rows: Rows[BookTicker], key: Key, group: Sequence[BookTicker], last_id: int) -> None:
    """Compare duplicates within a batch; up to `last_id` the stored row may differ from the first of them."""
    first: dict[int, BookTicker] = {}
    for quote in group:
        held = first.setdefault(quote.update_id, quote)
        if held is quote:
            continue
        if quote.update_id <= last_id:
            rows.possible_duplicates.setdefault(key, []).append(quote)
        elif held == quote or same_quote(held, quote):
            rows.duplicates += 1
        else:
            rows.conflicts.append(Conflict(quote, held))


def _has_expired(quote: BookTicker, ranges: StoredRanges) -> bool:
    """Return whether the quote is older than the retention limit."""
    return EARLIEST_US <= quote.received_time_us < ranges.expired_before_us


def _split_at_last_id(
    group: Sequence[BookTicker], last_id: int
) -> tuple[Sequence[BookTicker], Sequence[BookTicker]]:
    """Return the quotes above `last_id` and the others, both ascending and without duplicates."""
    ids = [quote.update_id for quote in group]
    if ids[0] > last_id and all(map(int.__lt__, ids, ids[1:])):
        return group, ()
    by_id = {quote.update_id: quote for quote in reversed(group)}
    ordered = [by_id[update_id] for update_id in sorted(by_id)]
    return (
        [quote for quote in ordered if quote.update_id > last_id],
        [quote for quote in ordered if quote.update_id <= last_id],
    )


def _ranges_with_quotes(ranges: StoredRanges, quotes: Sequence[BookTicker]) -> StoredRanges:
    first, last = quotes[0], quotes[-1]
    ids = (
        (first.update_id, last.update_id)
        if ranges.is_empty
        else (
            min(ranges.first_id, first.update_id),
            max(ranges.last_id, last.update_id),
        )
    )
    first_time_us = (
        ranges.first_time_us if ids[0] == ranges.first_id and not ranges.is_empty else first.received_time_us
    )
    last_time_us = (
        ranges.last_time_us if ids[1] == ranges.last_id and not ranges.is_empty else last.received_time_us
    )
    return StoredRanges(
        ranges.version + 1,
        *ids,
        first_time_us,
        last_time_us,
        ranges.expired_below_id,
        ranges.expired_before_us,
    )
