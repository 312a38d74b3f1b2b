"""Requests to REST that decide whether the ids of a symbol were reset; `id_series` has the rule."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from marketfeed_service.id_ranges import IdRange
from marketfeed_workers.counters import Counters
from marketfeed_workers.stream.id_series import (
    MS_US,
    SeriesDecision,
    decide_by_first_since,
    decide_by_newest,
)
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.errors import VenueError
from marketfeed_workers.venues.venue import VenueRest

REST_TIMEOUT_SECONDS: Final = 3.0
"""Timeout of REST, after which the held trades may decide alone."""
MAX_REQUESTS: Final = 4
PAGE: Final = 1000
"""Number of ids searched for the start of a series if the venue does not find it by time."""


class IdSeriesRequests:
    """Requests to REST about the id series of symbols, a few at once."""

    def __init__(self, pipeline: Pipeline, rest: VenueRest, counters: Counters) -> None:
        self._pipeline = pipeline
        self._rest = rest
        self._counters = counters
        self._places = asyncio.Semaphore(MAX_REQUESTS)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a free place, and limit the time of the requests made in it; raises TimeoutError."""
        async with self._places, asyncio.timeout(REST_TIMEOUT_SECONDS):
            yield

    async def newest_update_id(self, symbol: str) -> int | None:
        """Return the venue's newest update id; None if REST does not respond or has none."""
        try:
            async with self.place():
                return await self._rest.newest_update_id(symbol)
        except VenueError as error:
            self._counters.failures[error.reason] += 1
        except TimeoutError:
            self._counters.failures["rest_timeout"] += 1
        return None

    async def decide(
        self, flow: SymbolFlow, after_time_us: int, expected: int, *, only_known_row: bool = False
    ) -> SeriesDecision:
        """Decide by the venue's newest trade, and if that is above ours, by the venue's row of our newest trade."""
        newest = None if only_known_row else await self._rest.newest_trade(flow.symbol)
        lacks = newest is not None and flow.sequence.lacks(newest.trade_id)
        decision = decide_by_newest(newest, after_time_us, expected, lacks)
        is_beyond = only_known_row or (newest is not None and newest.trade_id >= expected)
        if decision is not SeriesDecision.UNDECIDED or not is_beyond:
            return decision
        known_id = min(expected - 1, flow.sequence.newest_received)
        exact = flow.checkpoint_is_exact or flow.last_trade_time_us is not None or only_known_row
        if known_id < 0 or not exact:
            return SeriesDecision.UNDECIDED
        fetched = await self._rest.trades(flow.symbol, IdRange(known_id, known_id), after_time_us)
        row = next((trade for trade in fetched.trades if trade.trade_id == known_id), None)
        if row is not None or flow.has_late_rows:
            return self._pipeline.resets.decide_by_row(flow, row, after_time_us, known_id)
        # Without a key only aggregates and their ids are available of older trades.
        first_id = await self._rest.first_id_since(flow.symbol, _after(after_time_us))
        return decide_by_first_since(first_id, known_id)

    async def first_id(self, flow: SymbolFlow, after_time_us: int) -> int | None:
        """Return the first id of the new series, if REST has it."""
        try:
            async with self.place():
                first_id = await self._rest.first_id_since(flow.symbol, _after(after_time_us))
                return first_id if first_id is not None else await self._lowest(flow, after_time_us)
        except VenueError as error:
            self._counters.failures[error.reason] += 1
        except TimeoutError:
            self._counters.failures["rest_timeout"] += 1
        return None

    async def _lowest(self, flow: SymbolFlow, after_time_us: int) -> int | None:
        """Return the lowest id of the new series within a page before the held trades, if REST has one."""
        held = flow.suspected_reset.trades if flow.suspected_reset is not None else []
        last = min((trade.trade_id for trade in held), default=0) - 1
        if last < 0:
            return None
        fetched = await self._rest.trades(flow.symbol, IdRange(max(0, last - PAGE + 1), last), after_time_us)
        newer = [trade.trade_id for trade in fetched.trades if trade.trade_time_us > after_time_us]
        return min(newer, default=None)


def _after(time_us: int) -> int:
    """Return the next millisecond: the resolution of REST."""
    return (time_us // MS_US + 1) * MS_US
