"""Repair: fetches the trade ids that the stream did not bring, within the venue's budget.

A task a symbol that lacks something, a few at a time. While trades are held back the hole before them comes first;
once they were let go on, what is late is tried again with growing intervals, for as long as the worker runs.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from marketfeed_chassis import backoff, logs
from marketfeed_workers.counters import Counters
from marketfeed_workers.errors import REFUSED_SECONDS, Limited, Refused, VenueError
from marketfeed_workers.flow import SymbolFlow
from marketfeed_workers.id_ranges import IdRange
from marketfeed_workers.pipeline import Pipeline
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.venues.venue import VenueRest

log = logs.get(__name__)

SETTLE_SECONDS: Final = 0.1
"""Two connections that overlap bring trades a little out of order: this much is left to the stream itself."""
FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 3600.0
AT_ONCE: Final = 4
PAGE: Final = 1000
"""Ids asked for at once; what lies beyond comes in further requests."""


class RepairDesk:
    """Repairs every symbol of a pipeline; run `run` as a task."""

    def __init__(
        self,
        settings: WorkerSettings,
        pipeline: Pipeline,
        rest: VenueRest,
        counters: Counters,
        now_us: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self._hold_us = int(settings.gap_hold_seconds * 1_000_000)
        self._hold_trades = settings.gap_hold_trades
        self._pipeline = pipeline
        self._rest = rest
        self._counters = counters
        self._now_us = now_us
        self._chance = chance
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._group: asyncio.TaskGroup | None = None
        pipeline.on_hole = self.wake

    async def run(self) -> None:
        """Repair until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for symbol, flow in self._pipeline.flows.items():
                if flow.missing:
                    self.wake(symbol)
            await asyncio.Event().wait()

    def wake(self, symbol: str) -> None:
        """Something of the symbol is missing."""
        running = self._tasks.get(symbol)
        if self._group is not None and (running is None or running.done()):
            self._tasks[symbol] = self._group.create_task(self._repair(symbol), name=f"repair-{symbol}")

    def enforce_bounds(self) -> None:
        """Let trades go on that have waited for too long, or that are too many."""
        now_us = self._now_us()
        held = [flow for flow in self._pipeline.flows.values() if flow.sequence.waiting]
        for flow in held:
            since_us = flow.held_since_us
            # Whichever way the clock was set meanwhile: a hold must end.
            if since_us is not None and abs(now_us - since_us) >= self._hold_us:
                self._pipeline.give_up(flow)
        while held and sum(len(flow.sequence.waiting) for flow in held) > self._hold_trades:
            self._pipeline.give_up(max(held, key=lambda flow: len(flow.sequence.waiting)))

    async def _repair(self, symbol: str) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        delays = backoff.delays(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, self._chance)
        while (flow := self._pipeline.flows.get(symbol)) is not None and flow.missing:
            progressed, delay = await self._attempt(flow)
            if progressed:
                delays = backoff.delays(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, self._chance)
            else:
                await asyncio.sleep(max(delay, next(delays)))

    async def _attempt(self, flow: SymbolFlow) -> tuple[bool, float]:
        """Ask once; whether something is no longer missing, and else the least delay in seconds."""
        progressed = False
        for hole in _pages([*flow.sequence.holes(), *flow.sequence.late]):
            while self._pipeline.paused:  # noqa: ASYNC110 - what is fetched must find room, as what is read
                await asyncio.sleep(SETTLE_SECONDS)
            try:
                async with self._places:
                    fetched = await self._rest.trades(
                        flow.symbol, hole, flow.time_before(hole.first) or self._now_us()
                    )
            except VenueError as error:
                self._counters.failures[error.reason] += 1
                log.warning("repair has to wait", symbol=flow.symbol, reason=str(error))
                return progressed, _delay_after(error)
            self._counters.backfilled += len(fetched.trades)
            progressed = bool(self._pipeline.backfill(flow, fetched)) or progressed
            if flow.sequence.waiting and progressed:
                break  # look again: the hole before the waiting trades comes first
        return progressed, 0.0


def _pages(holes: list[IdRange]) -> list[IdRange]:
    """The first page of each hole, at most as many as are worth asking for before looking again."""
    return [IdRange(hole.first, min(hole.last, hole.first + PAGE - 1)) for hole in holes[:AT_ONCE]]


def _delay_after(error: VenueError) -> float:
    if isinstance(error, Refused):
        return REFUSED_SECONDS
    return error.retry_after_seconds if isinstance(error, Limited) else 0.0
