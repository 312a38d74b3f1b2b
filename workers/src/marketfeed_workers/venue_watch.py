"""Watches the venue over REST: its clock, and which symbols trade."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from marketfeed_chassis import logs
from marketfeed_workers.counters import Counters
from marketfeed_workers.errors import REFUSED_SECONDS, Refused, VenueError
from marketfeed_workers.pipeline import Pipeline
from marketfeed_workers.venue_clock import VenueClock
from marketfeed_workers.venues.venue import VenueRest

log = logs.get(__name__)

CLOCK_SECONDS: Final = 60.0
MIN_CLOCK_SECONDS: Final = 1.0
SYMBOLS_SECONDS: Final = 300.0
MIN_SYMBOLS_SECONDS: Final = 5.0
DELISTED: Final = "delisted"


class VenueWatch:
    """Run `run` as a task.

    Attributes:
        not_trading: symbols that are read but not trading now -> their status.
    """

    def __init__(
        self,
        rest: VenueRest,
        pipeline: Pipeline,
        counters: Counters,
        clock: VenueClock,
    ) -> None:
        self.not_trading: dict[str, str] = {}
        self._symbols_due = asyncio.Event()
        self._rest = rest
        self._pipeline = pipeline
        self._counters = counters
        self._clock = clock
        self._clock_due = asyncio.Event()
        pipeline.on_rejected = self._clock_due.set

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            clock = self._every(CLOCK_SECONDS, MIN_CLOCK_SECONDS, self._measure_clock, self._clock_due)
            symbols = self._every(SYMBOLS_SECONDS, MIN_SYMBOLS_SECONDS, self._read_symbols, self._symbols_due)
            group.create_task(clock, name="clock")
            group.create_task(symbols, name="symbols")

    def read_symbols_soon(self) -> None:
        """Have the listing read before its time, at most every MIN_SYMBOLS_SECONDS."""
        self._symbols_due.set()

    @property
    def delisted(self) -> list[str]:
        """The symbols that the venue does not list any more. For any thread."""
        return [symbol for symbol, status in list(self.not_trading.items()) if status == DELISTED]

    async def _every(
        self, seconds: float, min_seconds: float, work: Callable[[], Awaitable[None]], due: asyncio.Event
    ) -> None:
        """Do `work` every `seconds`, or when it is `due`; at most every `min_seconds`."""
        while True:
            delay = seconds
            try:
                await work()
            except VenueError as error:
                if isinstance(error, Refused):
                    delay = max(seconds, REFUSED_SECONDS)
                self._counters.failures[error.reason] += 1
                log.warning("the venue's REST side does not answer as it should", reason=str(error))
            # What refuses us is not asked again before its time, whatever is due.
            soonest = min_seconds if delay == seconds else delay
            await asyncio.sleep(soonest)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(due.wait(), max(0.0, delay - soonest))
            due.clear()

    async def _measure_clock(self) -> None:
        venue_us, at = await self._rest.server_time()
        self._clock.measure(venue_us, at)
        self._counters.clock_offset_us = self._clock.ahead_us()

    async def _read_symbols(self) -> None:
        listed = await self._rest.symbols()
        for symbol in self.not_trading.keys() - self._pipeline.flows.keys():
            del self.not_trading[symbol]
        for symbol in self._pipeline.flows:
            info = listed.get(symbol)
            status = DELISTED if info is None else "" if info.trading else info.status
            if status and self.not_trading.get(symbol) != status:
                log.warning("symbol is not trading", symbol=symbol, status=status)
                self.not_trading[symbol] = status
            elif not status and self.not_trading.pop(symbol, ""):
                log.info("symbol is trading again", symbol=symbol)
