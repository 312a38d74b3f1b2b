"""Monitoring of the venue over REST: its clock, and which symbols trade."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from marketfeed_service import logs
from marketfeed_workers.counters import Counters
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.clock import VenueClock
from marketfeed_workers.venues.errors import REFUSED_SECONDS, Refused, Unreachable, VenueError
from marketfeed_workers.venues.venue import VenueRest

log = logs.get(__name__)

CLOCK_SECONDS: Final = 60.0
MIN_CLOCK_SECONDS: Final = 1.0
SYMBOLS_SECONDS: Final = 300.0
MIN_SYMBOLS_SECONDS: Final = 5.0
DELISTED: Final = "delisted"


class VenueMonitor:
    """Monitors the venue; run `run` as a task.

    Attributes:
        not_trading: assigned symbols that do not trade -> status.
    """

    def __init__(
        self,
        rest: VenueRest,
        pipeline: Pipeline,
        counters: Counters,
        clock: VenueClock,
    ) -> None:
        self.not_trading: dict[str, str] = {}
        self._received: dict[str, int] = {}
        """Symbol without a listing entry -> number of its messages at the last check."""
        self._symbols_due = asyncio.Event()
        self._rest = rest
        self._pipeline = pipeline
        self._counters = counters
        self._clock = clock
        self._clock_due = asyncio.Event()
        pipeline.on_rejected = self._clock_due.set

    async def run(self) -> None:
        """Monitor until cancelled."""
        async with asyncio.TaskGroup() as group:
            clock = self._every(
                "clock", CLOCK_SECONDS, MIN_CLOCK_SECONDS, self._measure_clock, self._clock_due
            )
            symbols = self._every(
                "symbols", SYMBOLS_SECONDS, MIN_SYMBOLS_SECONDS, self._read_symbols, self._symbols_due
            )
            group.create_task(clock, name="clock")
            group.create_task(symbols, name="symbols")

    def request_listing(self) -> None:
        """Request the listing before its next interval, at most every MIN_SYMBOLS_SECONDS."""
        self._symbols_due.set()

    @property
    def delisted(self) -> list[str]:
        """Delisted symbols. For any thread."""
        return [symbol for symbol, status in list(self.not_trading.items()) if status == DELISTED]

    async def _every(
        self,
        name: str,
        seconds: float,
        min_seconds: float,
        work: Callable[[], Awaitable[None]],
        due: asyncio.Event,
    ) -> None:
        """Run `work` every `seconds`, or when `due` is set; at most every `min_seconds`."""
        failing = logs.Episode(log, "REST requests failing", "REST requests recovered")
        while True:
            delay = seconds
            try:
                await work()
                failing.end(request=name)
            except VenueError as error:
                if isinstance(error, Refused):
                    delay = max(seconds, REFUSED_SECONDS)
                self._counters.failures[error.reason] += 1
                failing.begin(request=name, reason=str(error))
            # After a refusal the delay is kept even if `due` is set.
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
        flows = self._pipeline.flows
        for symbol in self.not_trading.keys() - flows.keys():
            del self.not_trading[symbol]
        for symbol in self._received.keys() - (flows.keys() - listed.keys()):
            del self._received[symbol]
        if not listed:
            raise Unreachable("bad_answer", "the venue's listing is empty")
        absent = [symbol for symbol in flows if symbol not in listed]
        for symbol in flows:
            info = listed.get(symbol)
            if info is not None:
                self._set_status(symbol, "" if info.trading else info.status)
        for symbol in absent:
            await self._check_listing(symbol)

    async def _check_listing(self, symbol: str) -> None:
        """Confirm by name that a symbol without a valid listing entry is delisted."""
        is_listed = await self._rest.is_listed(symbol)
        flow = self._pipeline.flows.get(symbol)
        if flow is None:
            return
        received = flow.trades + flow.quotes
        # A symbol that delivers is not delisted, whatever REST returns.
        if not is_listed and self._received.get(symbol, received) == received:
            self._set_status(symbol, DELISTED)
        elif self.not_trading.get(symbol) == DELISTED:
            self._set_status(symbol, "")
        self._received[symbol] = received

    def check_deliveries(self) -> None:
        """Reset the status of delisted symbols that deliver."""
        for symbol in self.delisted:
            flow = self._pipeline.flows.get(symbol)
            if flow is not None and flow.trades + flow.quotes != self._received.get(symbol):
                self._set_status(symbol, "")

    def _set_status(self, symbol: str, status: str) -> None:
        """Set the status of a symbol; "" if it trades."""
        if status and self.not_trading.get(symbol) != status:
            log.warning("symbol trading stopped", symbol=symbol, status=status)
            self.not_trading[symbol] = status
        elif not status and self.not_trading.pop(symbol, ""):
            log.info("symbol trading resumed", symbol=symbol)
