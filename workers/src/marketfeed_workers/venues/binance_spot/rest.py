"""Binance's REST side: which symbols there are, and trades by id. Source: binance-spot-api-docs, rest-api.md.

What can repair a hole, in the order tried:

- ``historicalTrades``: exact rows by id, as old as the venue keeps them; Binance US wants an API key for it.
- ``trades``: exact rows, but only the newest 1,000 of a symbol.
- ``aggTrades``: rows that each cover trade ids f to l. They prove which ids exist; only where f = l is the row a
  trade, otherwise the trades are known to exist and cannot be had without a key.
"""

from http import HTTPStatus
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
from aiohttp import ClientError, ClientTimeout

from marketfeed_chassis import logs
from marketfeed_wire import Trade
from marketfeed_wire.messages import Id
from marketfeed_workers.errors import Limited, Unreachable, error_for_status
from marketfeed_workers.id_ranges import IdRange, merged, of_ids, without
from marketfeed_workers.venues.binance_spot.fields import TimeMs
from marketfeed_workers.venues.venue import Fetched, RestAccess, SymbolInfo

log = logs.get(__name__)

T = TypeVar("T")

_TIMEOUT: Final = ClientTimeout(total=10)
_PAGE: Final = 1000
_MINUTE_MS: Final = 60_000
_AGGREGATE_PAGES: Final = 10
_KEY_REFUSED: Final = "http_401"
_AGGREGATE_WINDOW_MS: Final = 3_600_000  # longer spans are refused (-1127)


# What a row must be so that it can be stored: a gap that such rows fill is filled.
_Decimal = Annotated[str, msgspec.Meta(pattern=r"^([0-9]+\.?[0-9]*|\.[0-9]+)$", max_length=64)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class Weights(NamedTuple):
    """Request weights by endpoint, to plan with; what was really used comes back in each answer."""

    exchange_info: int
    trades: int
    historical_trades: int
    agg_trades: int
    time: int


class _RateLimit(msgspec.Struct, rename="camel"):
    rate_limit_type: str
    interval: str
    interval_num: _Positive
    limit: _Positive


class _Symbol(msgspec.Struct):
    symbol: str
    status: str


class _ExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: list[_Symbol]
    rate_limits: list[_RateLimit] = []


class _TradeRow(msgspec.Struct, rename="camel"):
    id: Id
    price: _Decimal
    qty: _Decimal
    time: TimeMs
    is_buyer_maker: bool


class _AggregateRow(msgspec.Struct):
    a: int
    f: Id
    l: Id  # noqa: E741 - the venue's name for it
    p: _Decimal
    q: _Decimal
    T: TimeMs
    m: bool


class _ServerTime(msgspec.Struct, rename="camel"):
    server_time: int


class BinanceRest:
    """See `VenueRest`."""

    def __init__(self, venue: str, access: RestAccess, *, weights: Weights, history_needs_key: bool) -> None:
        self._venue = venue
        self._base = access.base.rstrip("/")
        self._session = access.session
        self._budget = access.budget
        self._weights = weights
        self._api_key = access.api_key.get_secret_value()
        self._history_needs_key = history_needs_key
        self._has_history = bool(self._api_key) or not history_needs_key
        self._now_us = access.now_us

    async def symbols(self) -> dict[str, SymbolInfo]:
        """Every symbol that the venue lists.

        All are fetched and filtered here: asked for by name, one unknown symbol fails the whole request (-1121).
        """
        info = await self._get(_ExchangeInfo, "exchangeInfo", self._weights.exchange_info)
        for limit in info.rate_limits:
            if limit.rate_limit_type == "REQUEST_WEIGHT" and limit.interval == "MINUTE":
                self._budget.limit = limit.limit // limit.interval_num
        return {each.symbol: SymbolInfo(each.status, each.status == "TRADING") for each in info.symbols}

    async def server_time_us(self) -> int:
        """The venue's clock."""
        return (await self._get(_ServerTime, "time", self._weights.time)).server_time * 1000

    async def newest_trade(self, symbol: str) -> Trade | None:
        """The newest trade that the venue has of a symbol; None when it has none."""
        rows = await self._get(list[_TradeRow], "trades", self._weights.trades, symbol=symbol, limit="1")
        return self._trade(symbol, rows[-1]) if rows else None

    async def first_id_since(self, symbol: str, time_us: int) -> int | None:
        """The id of the first trade at or after a time; None when there is none within an hour of it."""
        start_ms = time_us // 1000
        rows = await self._get(
            list[_AggregateRow],
            "aggTrades",
            self._weights.agg_trades,
            symbol=symbol,
            startTime=str(start_ms),
            endTime=str(start_ms + _AGGREGATE_WINDOW_MS - 1),
            limit="1",
        )
        return rows[0].f if rows else None

    async def trades(self, symbol: str, ids: IdRange, near_time_us: int) -> Fetched:
        """What the venue has of `ids`, or of their beginning; see the module's text for where it is looked for."""
        if self._has_history:
            try:
                return await self._by_history(symbol, ids)
            except Unreachable as error:
                if error.reason != _KEY_REFUSED or not self._api_key:
                    raise
                self._do_without_key(error)
                return await self.trades(symbol, ids, near_time_us)
        newest = await self._by_newest(symbol, ids)
        return newest if newest is not None else await self._by_aggregates(symbol, ids, near_time_us)

    def _do_without_key(self, error: Unreachable) -> None:
        """A key that is refused must not cost what can be had without one."""
        log.error("the venue refuses BINANCE_API_KEY; going on without it", reason=str(error))
        self._api_key = ""
        self._has_history = not self._history_needs_key

    async def _by_history(self, symbol: str, ids: IdRange) -> Fetched:
        rows = await self._get(
            list[_TradeRow],
            "historicalTrades",
            self._weights.historical_trades,
            symbol=symbol,
            fromId=str(ids.first),
            limit=str(min(_PAGE, ids.size + 1)),  # one more: a row beyond proves that what is before is whole
        )
        # Ids beyond the last row are not absent: the endpoint's database may lag behind the stream.
        return self._of_rows(
            symbol, ids, rows, IdRange(ids.first, rows[-1].id) if rows else None, "historicalTrades"
        )

    async def _by_newest(self, symbol: str, ids: IdRange) -> Fetched | None:
        rows = await self._get(
            list[_TradeRow], "trades", self._weights.trades, symbol=symbol, limit=str(_PAGE)
        )
        if not rows or rows[-1].id < ids.first or rows[0].id > ids.last:
            return None
        # All that the symbol ever had, where its ids have not come further than a page. Fewer rows alone tell nothing:
        # the endpoint answers from memory, which the venue may have begun anew.
        is_all = len(rows) < _PAGE and rows[-1].id <= _PAGE
        rows_from = ids.first if is_all else max(ids.first, rows[0].id)
        return self._of_rows(symbol, ids, rows, IdRange(rows_from, rows[-1].id), "trades")

    async def _by_aggregates(self, symbol: str, ids: IdRange, near_time_us: int) -> Fetched:
        start_ms = near_time_us // 1000 - _MINUTE_MS
        end_ms = start_ms + _AGGREGATE_WINDOW_MS - 1
        where = {"startTime": str(start_ms), "endTime": str(end_ms)}
        rows: list[_AggregateRow] = []
        for _ in range(_AGGREGATE_PAGES):
            page = await self._get(
                list[_AggregateRow],
                "aggTrades",
                self._weights.agg_trades,
                symbol=symbol,
                limit=str(_PAGE),
                **where,
            )
            rows += page
            # A short page ends the data only where it was asked for by id: by time it ends after an hour.
            if not page or page[-1].l >= ids.last or (len(page) < _PAGE and "fromId" in where):
                break
            where = {"fromId": str(page[-1].a + 1)}
        return self._of_aggregates(symbol, ids, rows)

    def _of_aggregates(self, symbol: str, ids: IdRange, rows: list[_AggregateRow]) -> Fetched:
        if not rows or rows[0].f > ids.first or rows[-1].l < ids.first:
            return Fetched([], [], "aggTrades")
        absent = [IdRange(ids.first, min(ids.last, rows[-1].l))]
        for each in merged(IdRange(row.f, row.l) for row in rows):
            absent = without(absent, each)
        # A row of one trade is that trade; of a row of several only their sum is known.
        single = [
            _TradeRow(row.f, row.p, row.q, row.T, row.m)
            for row in rows
            if row.f == row.l and ids.first <= row.f <= ids.last
        ]
        return Fetched([self._trade(symbol, row) for row in single], absent, "aggTrades")

    def _of_rows(
        self, symbol: str, ids: IdRange, rows: list[_TradeRow], whole: IdRange | None, proof: str
    ) -> Fetched:
        """`whole`: the ids within which every trade that exists is among `rows`."""
        wanted = [row for row in rows if ids.first <= row.id <= ids.last]
        absent: list[IdRange] = []
        if whole is not None and whole.first <= min(whole.last, ids.last):
            absent = [IdRange(whole.first, min(whole.last, ids.last))]
            for each in of_ids(row.id for row in wanted):
                absent = without(absent, each)
        return Fetched([self._trade(symbol, row) for row in wanted], absent, proof)

    def _trade(self, symbol: str, row: _TradeRow) -> Trade:
        # REST rows carry no event time: only when the trade was matched, and now, when it was received.
        return Trade(
            self._venue, symbol, row.id, row.price, row.qty, row.is_buyer_maker,
            row.time * 1000, None, self._now_us(), "backfill",
        )  # fmt: skip

    async def _get(self, kind: type[T], endpoint: str, weight: int, **parameters: str) -> T:
        url = f"{self._base}/api/v3/{endpoint}"
        await self._budget.take(weight)
        headers = {"X-MBX-APIKEY": self._api_key} if self._api_key else {}
        try:
            # Redirects are not followed: where data comes from is the user's choice, and a key is for nobody else.
            async with self._session.get(
                url, params=parameters, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as answer:
                used = answer.headers.get("X-MBX-USED-WEIGHT-1M", "")
                if used.isdigit():
                    self._budget.observe(int(used))
                if answer.status != HTTPStatus.OK:
                    raise error_for_status(answer.status, answer.headers.get("Retry-After"), url)
                body = await answer.read()
        except Limited as error:
            self._budget.block(error)
            raise
        except (ClientError, TimeoutError) as error:
            raise Unreachable("rest_unreachable", f"{url}: {error or type(error).__name__}") from error
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreachable("bad_answer", f"{url} answered what is not its format: {error}") from None
