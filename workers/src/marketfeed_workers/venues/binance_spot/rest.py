"""Client of Binance's REST API: listing, clock, and trades by id. Source: binance-spot-api-docs, rest-api.md.

Endpoints for backfill, in the order tried:

- ``historicalTrades``: rows by id, as far back as the venue keeps them; Binance US requires an API key.
- ``trades``: rows, but only the newest 1,000 of a symbol.
- ``aggTrades``: each row covers trade ids f to l. Rows prove which ids exist; a row with f = l is a trade, otherwise
  the single trades are not available without a key.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from marketfeed_service import logs
from marketfeed_service.id_ranges import IdRange, merged
from marketfeed_wire import Trade
from marketfeed_wire.messages import Id
from marketfeed_workers.venues.binance_spot import rows
from marketfeed_workers.venues.binance_spot.fields import TimeMs
from marketfeed_workers.venues.binance_spot.listing import Listing, read_listing
from marketfeed_workers.venues.binance_spot.rest_client import RestClient, Weights
from marketfeed_workers.venues.binance_spot.rows import AggregateRow, Page, TradeRow
from marketfeed_workers.venues.errors import UnknownSymbol, Unreachable
from marketfeed_workers.venues.venue import BestQuote, Fetched, RestAccess, SymbolInfo, VenueTime

log = logs.get(__name__)

_PAGE: Final = 1000
_MINUTE_MS: Final = 60_000
_AGGREGATE_PAGES: Final = 10
_KEY_REFUSED: Final = "http_401"
_AGGREGATE_WINDOW_MS: Final = 3_600_000  # longer spans are refused (-1127)


class _BookTicker(msgspec.Struct, rename="camel"):
    bid_price: rows.DecimalText
    bid_qty: rows.DecimalText
    ask_price: rows.DecimalText
    ask_qty: rows.DecimalText


class _Depth(msgspec.Struct, rename="camel"):
    last_update_id: Id


class _ServerTime(msgspec.Struct, rename="camel"):
    server_time: TimeMs


_book_ticker: Final = msgspec.json.Decoder(_BookTicker)
_depth: Final = msgspec.json.Decoder(_Depth)
_server_time: Final = msgspec.json.Decoder(_ServerTime)


class BinanceRest:
    """See `VenueRest`."""

    def __init__(self, venue: str, access: RestAccess, *, weights: Weights, history_needs_key: bool) -> None:
        self._venue = venue
        self._client = RestClient(access, weights)
        self._budget = access.budget
        self._weights = weights
        self._history_needs_key = history_needs_key
        self._has_history = bool(self._client.api_key) or not history_needs_key
        self._now_us = access.now_us
        self._monotonic = access.monotonic
        self._count_failure = access.count_failure
        self._odd_entries = logs.Episode(log, "listing entries skipped", "listing entries complete")
        self._no_limit = logs.Episode(
            log,
            "weight limit missing in the listing; documented limit assumed",
            "weight limit received",
        )
        self._oldest_of_newest: dict[str, int] = {}

    @property
    def newest_only(self) -> int | None:
        """Number of a symbol's newest trades that are available row by row; None: all."""
        return None if self._has_history else _PAGE

    def ids_restarted(self, symbol: str) -> None:
        """Reset the oldest id of the newest trades."""
        self._oldest_of_newest.pop(symbol, None)

    async def symbols(self) -> dict[str, SymbolInfo]:
        """Return every listed symbol.

        The whole listing is fetched: in a request by name one unknown symbol fails the request (-1121).
        """
        listing: Listing = await self._client.get(read_listing, "exchangeInfo", self._weights.exchange_info)
        if listing.refused:
            self._count_failure("bad_listing_entry", len(listing.refused))
            self._odd_entries.begin(count=len(listing.refused), first=listing.refused[0])
        else:
            self._odd_entries.end()
        if listing.minute_weight is None:
            self._no_limit.begin(assumed=self._weights.a_minute)
        else:
            self._no_limit.end(limit=listing.minute_weight)
        self._budget.limit = listing.minute_weight or self._weights.a_minute
        return listing.symbols

    async def is_listed(self, symbol: str) -> bool:
        """Return whether the venue lists a symbol, by a request for this symbol alone."""
        try:
            await self._client.get(bytes, "ticker/bookTicker", self._weights.book_ticker, symbol=symbol)
        except UnknownSymbol:
            return False
        return True

    async def server_time(self) -> VenueTime:
        """Return the venue's time; request weight is counted by minutes of this clock."""
        await self._budget.acquire(self._weights.time)  # before `sent`: it may wait
        sent = self._monotonic()
        found = await self._client.request(_server_time.decode, "time")
        at = (sent + self._monotonic()) / 2
        self._budget.align(found.server_time / 1000)
        return VenueTime(found.server_time * 1000, at)

    async def newest_trade(self, symbol: str) -> Trade | None:
        """Return the newest trade of a symbol; None if there is none."""
        page = await self._client.rows(rows.TRADES, "trades", self._weights.trades, symbol=symbol, limit="1")
        if page.refused:
            raise Unreachable("bad_answer", f"the newest trade of {symbol} is invalid: {page.refused[0]}")
        return self._trade(symbol, page.rows[-1]) if page.rows else None

    async def best_quote(self, symbol: str) -> BestQuote | None:
        """Return the current best bid and ask of a symbol."""
        row = await self._client.get(
            _book_ticker.decode, "ticker/bookTicker", self._weights.book_ticker, symbol=symbol
        )
        return BestQuote(*map(Decimal, (row.bid_price, row.bid_qty, row.ask_price, row.ask_qty)))

    async def newest_update_id(self, symbol: str) -> int | None:
        """Return the update id of the symbol's order book, which bookTicker shares."""
        found = await self._client.get(_depth.decode, "depth", self._weights.depth, symbol=symbol, limit="5")
        return found.last_update_id

    async def first_id_since(self, symbol: str, time_us: int) -> int | None:
        """Return the id of the first trade at or after a time; None if there is none.

        Searched within an hour, then without an end, then by bisection of the aggregate ids, so that trades after a
        quiet period of any length are found.
        """
        start_ms = max(0, time_us // 1000)
        window = {"startTime": str(start_ms), "endTime": str(start_ms + _AGGREGATE_WINDOW_MS - 1)}
        for where in (window, {"startTime": str(start_ms)}):
            page = await self._client.aggregate_rows(symbol, limit="1", **where)
            if page.rows and start_ms <= page.rows[0].T:
                return page.rows[0].f
        return await self._first_id_by_halving(symbol, start_ms)

    async def _first_id_by_halving(self, symbol: str, start_ms: int) -> int | None:
        newest = await self._client.aggregate_rows(symbol, limit="1")
        if not newest.rows or start_ms > newest.rows[-1].T:
            return None
        found, low, high = newest.rows[-1], 0, newest.rows[-1].a
        while low < high:
            middle = (low + high) // 2
            page = await self._client.aggregate_rows(symbol, fromId=str(middle), limit="1")
            if not page.rows or page.rows[0].a < middle:
                raise Unreachable(
                    "bad_answer", f"{self._client.base}: aggTrades of {symbol} does not follow fromId"
                )
            if start_ms > page.rows[0].T:
                low = page.rows[0].a + 1
            else:
                found, high = page.rows[0], middle
        return found.f

    async def trades(
        self,
        symbol: str,
        ids: IdRange,
        near_time_us: int,
        also: Sequence[IdRange] = (),
        *,
        is_backfill: bool = False,
    ) -> Fetched:
        """Fetch the trades of `ids`, or of a part; see `VenueRest.trades` and the module's docstring."""
        query = _Query(symbol, ids, merged([ids, *also]), near_time_us, is_backfill)
        if self._has_history:
            try:
                return await self._by_history(query)
            except Unreachable as error:
                if error.reason != _KEY_REFUSED or not self._client.api_key:
                    raise
                self._drop_key(error)
                return await self.trades(symbol, ids, near_time_us, also, is_backfill=is_backfill)
        newest = await self._by_newest(query)
        return newest if newest is not None else await self._by_aggregates(query)

    def _drop_key(self, error: Unreachable) -> None:
        """Continue without the rejected key, with what is available without one."""
        log.error("BINANCE_API_KEY rejected; continuing without it", reason=str(error))
        self._client.api_key = ""
        self._has_history = not self._history_needs_key

    async def _by_history(self, query: "_Query") -> Fetched:
        first = query.ids.first
        requested = IdRange(first, min(query.needed[-1].last, first + _PAGE - 1))
        page = await self._client.rows(
            rows.TRADES,
            "historicalTrades",
            self._weights.historical_trades,
            query.is_backfill,
            symbol=query.symbol,
            fromId=str(first),
            limit=str(
                min(_PAGE, requested.size + 1)
            ),  # one more: a row after the range proves the range complete
        )
        # Ids beyond the last row are not absent: the endpoint's database may lag behind the stream.
        return self._fetched(query, page, page.rows, first, "historicalTrades")._replace(requested=requested)

    async def _by_newest(self, query: "_Query") -> Fetched | None:
        """Fetch the newest trades; return None if they are all newer, or all older, than the requested ids."""
        oldest_known = self._oldest_of_newest.get(query.symbol, 0)
        if query.ids.last < oldest_known:
            return None  # the newest trades only advance
        page = await self._client.rows(
            rows.TRADES,
            "trades",
            self._weights.trades,
            query.is_backfill,
            symbol=query.symbol,
            limit=str(_PAGE),
        )
        known = [span for span in page.spans if span is not None]
        if not known or known[-1].last < query.ids.first or known[0].first > query.ids.last:
            if len(known) == _PAGE:
                self._oldest_of_newest[query.symbol] = known[0].first
            return None
        # Ids before the first row are not proven absent, even with few rows: the endpoint returns cached trades, the
        # cache may have been cleared, and ids may restart at any number.
        return self._fetched(query, page, page.rows, None, "trades")

    async def _by_aggregates(self, query: "_Query") -> Fetched:
        start_ms = max(0, query.near_time_us // 1000 - _MINUTE_MS)
        end_ms = start_ms + _AGGREGATE_WINDOW_MS - 1
        where = {"startTime": str(start_ms), "endTime": str(end_ms)}
        found: Page[AggregateRow] = Page([], [], [])
        for _ in range(_AGGREGATE_PAGES):
            page = await self._client.aggregate_rows(
                query.symbol, query.is_backfill, limit=str(_PAGE), **where
            )
            found = found + page
            # A short page is the last one only in a request by id: a request by time ends after an hour.
            is_last = len(page.spans) < _PAGE and "fromId" in where
            if not page.rows or (page.last_id or 0) >= query.ids.last or is_last:
                break
            following = str(max(row.a for row in page.rows) + 1)
            if where == {"fromId": following}:
                break  # the endpoint ignores fromId
            where = {"fromId": following}
        # A row of one trade is that trade; a row of several is only their sum.
        single = [TradeRow(row.f, row.p, row.q, row.T, row.m) for row in found.rows if row.f == row.l]
        return self._fetched(query, found, single, None, "aggTrades")

    def _fetched(
        self,
        query: "_Query",
        page: Page[TradeRow] | Page[AggregateRow],
        trades: Sequence[TradeRow],
        since: int | None,
        proof: str,
    ) -> Fetched:
        proven = rows.needed_part(rows.prove(page.spans, since), query.needed)
        needed = rows.needed_rows(trades, query.needed)
        return Fetched(
            [self._trade(query.symbol, row) for row in needed],
            proven.absent,
            proof,
            covered=proven.covered,
            refused=tuple(page.refused),
        )

    def _trade(self, symbol: str, row: TradeRow) -> Trade:
        # REST rows have no event time.
        return Trade(
            self._venue, symbol, row.id, row.price, row.qty, row.is_buyer_maker,
            row.time * 1000, None, self._now_us(), "backfill",
        )  # fmt: skip


class _Query(NamedTuple):
    symbol: str
    ids: IdRange
    """The ids to request."""
    needed: list[IdRange]
    """These and other missing ids, sorted: whatever a response covers of them is used."""
    near_time_us: int
    is_backfill: bool = False
