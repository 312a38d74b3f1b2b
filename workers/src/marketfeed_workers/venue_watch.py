"""Watching the venue over REST: its clock, which symbols trade, and whether a silence means that a stream is mute."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from marketfeed_chassis import logs
from marketfeed_workers.counters import Counters
from marketfeed_workers.errors import REFUSED_SECONDS, Limited, Refused, VenueError
from marketfeed_workers.flow import SymbolFlow
from marketfeed_workers.pipeline import Pipeline
from marketfeed_workers.silence import Pulse
from marketfeed_workers.venues.venue import Fetched, Venue, VenueRest

log = logs.get(__name__)

LOOK_SECONDS: Final = 1.0
CLOCK_SECONDS: Final = 60.0
SYMBOLS_SECONDS: Final = 300.0
PROBES_A_LOOK: Final = 2
"""A whole connection that is mute is found by its first two symbols; the rest need not be asked about."""


class VenueWatch:
    """Run `run` as a task.

    Attributes:
        not_trading: symbols that are read but not trading now -> their status.
    """

    def __init__(
        self,
        venue: Venue,
        rest: VenueRest,
        pipeline: Pipeline,
        counters: Counters,
        connected_since_us: Callable[[str], int | None],
        renew: Callable[[str, str], None],
        now_us: Callable[[], int],
    ) -> None:
        self.not_trading: dict[str, str] = {}
        self._venue = venue
        self._rest = rest
        self._pipeline = pipeline
        self._counters = counters
        self._connected_since_us = connected_since_us
        self._renew = renew
        self._now_us = now_us
        self._pulses: dict[str, Pulse] = {}
        # A silence is checked by the newest trade's id, which tells nothing where trades are not read.
        self._can_ask = "trade" in venue.kinds

    def lively_streams(self, symbols: list[str]) -> set[str]:
        """The streams of those symbols that bring data all the time."""
        return {
            stream
            for symbol in symbols
            if symbol in self._pulses and self._pulses[symbol].is_lively and symbol not in self.not_trading
            for stream in self._venue.streams(symbol)
        }

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(CLOCK_SECONDS, self._measure_clock), name="clock")
            group.create_task(self._every(SYMBOLS_SECONDS, self._read_symbols), name="symbols")
            group.create_task(self._every(LOOK_SECONDS, self._look), name="silence")

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            delay = seconds
            try:
                await work()
            except VenueError as error:
                if isinstance(error, Refused):
                    delay = max(seconds, REFUSED_SECONDS)
                self._counters.failures[error.reason] += 1
                log.warning("the venue's REST side does not answer as it should", reason=str(error))
            await asyncio.sleep(delay)

    async def _measure_clock(self) -> None:
        """The venue's time against the middle of the request's (Cristian's algorithm)."""
        sent_us = self._now_us()
        venue_us = await self._rest.server_time_us()
        self._counters.clock_offset_us = venue_us - (sent_us + self._now_us()) // 2

    async def _read_symbols(self) -> None:
        listed = await self._rest.symbols()
        for symbol in self._pipeline.flows:
            info = listed.get(symbol)
            status = (
                "" if info is not None and info.trading else info.status if info is not None else "delisted"
            )
            if status and self.not_trading.get(symbol) != status:
                log.warning("symbol is not trading", symbol=symbol, status=status)
                self.not_trading[symbol] = status
            elif not status and self.not_trading.pop(symbol, ""):
                log.info("symbol is trading again", symbol=symbol)

    async def _look(self) -> None:
        now_us = self._now_us()
        self._forget_what_left()
        silent: list[SymbolFlow] = []
        for symbol, flow in self._pipeline.flows.items():
            seen = flow.trades + flow.quotes
            pulse = self._pulses.setdefault(symbol, Pulse(seen, now_us))
            pulse.look(seen, now_us)
            if (
                self._can_ask
                and symbol not in self.not_trading
                and not self._pipeline.paused
                and pulse.is_silent(now_us)
            ):
                silent.append(flow)
        silent.sort(key=lambda flow: self._pulses[flow.symbol].allowed_us)
        for flow in silent[:PROBES_A_LOOK]:
            try:
                await self._probe(flow)
            except (Limited, Refused):
                raise
            except VenueError as error:
                self._counters.failures[error.reason] += 1
                # It may be gone from the venue. Asked about less often from now on, and not in the others' way.
                self._pulses[flow.symbol].was_quiet(self._now_us())
                await self._read_symbols()

    def _forget_what_left(self) -> None:
        flows = self._pipeline.flows
        for symbol in [*self._pulses.keys() - flows.keys(), *self.not_trading.keys() - flows.keys()]:
            self._pulses.pop(symbol, None)
            self.not_trading.pop(symbol, None)

    async def _probe(self, flow: SymbolFlow) -> None:
        """Ask the venue whether it has trades that the stream did not bring."""
        seen = flow.trades + flow.quotes
        newest = await self._rest.newest_trade(flow.symbol)
        if flow.trades + flow.quotes != seen:
            return  # it spoke while we asked
        if flow.beginning:
            return  # it has begun, and waits for Kafka
        known_id = flow.sequence.newest  # what waits behind a hole has come, too
        self._pulses[flow.symbol].was_quiet(self._now_us())
        if newest is None or (known_id is not None and newest.trade_id <= known_id):
            return
        since_us = self._connected_since_us(flow.symbol)
        before_us = newest.trade_time_us - self._counters.clock_offset_us
        if since_us is None or (known_id is None and before_us < since_us):
            return  # not connected, or nothing that this worker has promised to bring
        self._pipeline.backfill(flow, Fetched([newest], [], "trades"))
        self._pipeline.on_hole(flow.symbol)
        if before_us >= since_us:
            log.warning(
                "stream is mute: the venue has newer trades", symbol=flow.symbol, newest_id=newest.trade_id
            )
            self._counters.failures["mute_stream"] += 1
            self._renew(flow.symbol, "mute_stream")
