"""Backfill: fetches missing trade ids over REST, within the venue's rate limits.

One loop selects the next requests among the missing ids of all symbols:

    due ─▶ first what leaves the reach of REST soonest
        ─▶ at most MAX_FIRST_REQUESTS first requests and MAX_RETRIES retries
        ─▶ a response closes every gap that it covers; the rest has its own backoff

Retries use at most half of the request weight, and retries after a response without the ids at most half of that, so
that gaps that cannot be filled never delay others. Reorder buffers are flushed after GAP_HOLD_SECONDS; the backfill of
their gaps continues.
"""

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

from marketfeed_service import logs
from marketfeed_workers.backfill_schedule import SETTLE_SECONDS, GapSchedule, Request
from marketfeed_workers.counters import Counters
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.errors import REFUSED_SECONDS, Limited, Refused, VenueError
from marketfeed_workers.venues.venue import Fetched, VenueRest

log = logs.get(__name__)

MAX_FIRST_REQUESTS: Final = 4
MAX_RETRIES: Final = 2
RATE_SECONDS: Final = 1.0
"""Interval of measuring the id rate of a symbol."""
RECHECK_SECONDS: Final = 1.0
REJECTING_SECONDS: Final = 5.0
"""Delay of backfill while every message of a symbol is rejected, to fetch trades in batches."""
GATHER_SECONDS: Final = 0.01
"""Time to collect new gaps before requests are selected."""


class _Candidate(NamedTuple):
    """A due request; the smallest is sent first."""

    out_of_reach: bool
    seconds_left: float
    is_retry: bool
    requested: float
    first: int
    symbol: str
    request: Request


class Backfiller:
    """Backfills every symbol of a pipeline; run `run` as a task."""

    def __init__(
        self,
        settings: WorkerSettings,
        pipeline: Pipeline,
        rest: VenueRest,
        counters: Counters,
        now_us: Callable[[], int],
        rng: random.Random,
        *,
        monotonic: Callable[[], float],
        has_spare: Callable[[], bool] = lambda: True,
        has_ample_spare: Callable[[], bool] = lambda: True,
    ) -> None:
        """Create the backfiller.

        Args:
            settings: settings of the worker.
            pipeline: provides missing ids and publishes trades.
            rest: client of the venue.
            counters: counters of the worker.
            now_us: wall clock.
            rng: source of jitter.
            monotonic: monotonic clock.
            has_spare: whether request weight is left for retries.
            has_ample_spare: whether it is left for retries after a response without the ids.
        """
        self._hold_seconds = settings.gap_hold_seconds
        self._hold_trades = settings.gap_hold_trades
        self._pipeline = pipeline
        self._rest = rest
        self._counters = counters
        self._now_us = now_us
        self._monotonic = monotonic
        self._has_spare = has_spare
        self._has_ample_spare = has_ample_spare
        self._schedules: defaultdict[str, GapSchedule] = defaultdict(lambda: GapSchedule(rng))
        self._symbols: set[str] = set()
        self._in_flight: dict[tuple[str, bool], Request] = {}
        """(symbol, whether a retry) -> request; at most one of each per symbol."""
        self._rates: dict[str, _IdRate] = {}
        self._buffered_since: dict[tuple[str, int], float] = {}
        self._blocked_until = 0.0
        self._woken = asyncio.Event()
        self._skipping: dict[str, logs.Episode] = {}
        self._waiting = logs.Episode(log, "backfill paused", "backfill resumed", monotonic)
        pipeline.on_gap = self.wake

    async def run(self) -> None:
        """Backfill until cancelled."""
        self._symbols.update(symbol for symbol, flow in self._pipeline.flows.items() if flow.missing)
        async with asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                seconds = self._send_due(group)
                try:
                    async with asyncio.timeout(seconds):
                        await self._woken.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(GATHER_SECONDS)

    def wake(self, symbol: str) -> None:
        """Note that ids of the symbol are missing."""
        self._symbols.add(symbol)
        self._woken.set()

    def enforce_limits(self) -> None:
        """Flush reorder buffers that have held trades for too long, or too many."""
        now = self._monotonic()
        held = [flow for flow in self._pipeline.flows.values() if flow.sequence.buffered]
        since: dict[tuple[str, int], float] = {}
        for flow in held:
            gaps = {
                (flow.symbol, first): self._buffered_since.get((flow.symbol, first), now)
                for first in flow.blocking_gaps
            }
            since |= gaps
            if gaps and now - min(gaps.values()) >= self._hold_seconds:
                self._pipeline.flush(flow)
        self._buffered_since = since
        while held and sum(len(flow.sequence.buffered) for flow in held) > self._hold_trades:
            self._pipeline.flush(max(held, key=lambda flow: len(flow.sequence.buffered)))

    def _send_due(self, group: asyncio.TaskGroup) -> float | None:
        """Send the due requests; return the seconds until the next one is due, None: wait for `wake`."""
        now = self._monotonic()
        for symbol in list(self._symbols):
            flow = self._pipeline.flows.get(symbol)
            if flow is None or not flow.missing:
                self._remove(symbol)
        if not self._symbols:
            return None
        if self._pipeline.paused:
            return SETTLE_SECONDS  # back-pressure applies to fetched trades, too
        if now < self._blocked_until:
            return self._blocked_until - now
        candidates, next_due = self._candidates(now)
        for each in sorted(candidates):
            place = (each.symbol, each.is_retry)
            at_once = MAX_RETRIES if each.is_retry else MAX_FIRST_REQUESTS
            is_full = sum(is_retry == each.is_retry for _, is_retry in self._in_flight) >= at_once
            if place not in self._in_flight and not is_full:
                self._in_flight[place] = each.request
                group.create_task(self._request(each.symbol, each.request), name=f"backfill-{each.symbol}")
        return None if math.isinf(next_due) else max(0.0, next_due - now)

    def _candidates(self, now: float) -> tuple[list[_Candidate], float]:
        """Return the due requests, and when the next one is due."""
        due: list[_Candidate] = []
        next_due = math.inf
        may_retry, may_ask_again = self._has_spare(), self._has_ample_spare()
        for symbol in sorted(self._symbols):
            flow = self._pipeline.flows[symbol]
            best: dict[bool, _Candidate] = {}
            oldest, rate = self._reach(flow, now)
            schedule = self._schedules[symbol]
            schedule.settle_seconds = REJECTING_SECONDS if flow.is_rejecting else SETTLE_SECONDS
            for request in schedule.update(flow.sequence.missing(), now):
                if request.due > now:
                    next_due = min(next_due, request.due)
                    continue
                if request.is_retry and not (may_ask_again if request.failures else may_retry):
                    next_due = min(next_due, now + RECHECK_SECONDS)
                    continue
                out_of_reach = oldest is not None and request.ids.last < oldest
                left = math.inf
                if oldest is not None and not out_of_reach:
                    left = max(0, request.ids.first - oldest) / rate if rate else math.inf
                candidate = _Candidate(
                    out_of_reach,
                    left,
                    request.is_retry,
                    request.requested,
                    request.ids.first,
                    symbol,
                    request,
                )
                best[request.is_retry] = min(candidate, best.get(request.is_retry, candidate))
            due.extend(best.values())
        return due, next_due

    def _reach(self, flow: SymbolFlow, now: float) -> tuple[int | None, float]:
        """Return the oldest id that REST has row by row (None: any), and the ids per second by which it advances."""
        newest, kept = flow.sequence.newest, self._rest.newest_only
        if newest is None or kept is None:
            return None, 0.0
        rate = self._rates.setdefault(flow.symbol, _IdRate(newest, now))
        return newest - kept + 1, rate.measure(newest, now)

    async def _request(self, symbol: str, request: Request) -> None:
        try:
            await self._fetch(symbol, request)
        finally:
            del self._in_flight[symbol, request.is_retry]
            self._woken.set()

    async def _fetch(self, symbol: str, request: Request) -> None:
        flow = self._pipeline.flows.get(symbol)
        if flow is None:
            return  # the symbol was removed
        schedule = self._schedules[symbol]
        near_us = flow.time_before(request.ids.first) or self._now_us()
        try:
            fetched = await self._rest.trades(
                symbol, request.ids, near_us, flow.sequence.missing(), is_backfill=True
            )
        except VenueError as error:
            self._on_error(symbol, schedule, flow, request, error)
            return
        self._waiting.end()
        while self._pipeline.paused:  # noqa: ASYNC110 - back-pressure applies to fetched trades, too
            await asyncio.sleep(SETTLE_SECONDS)
        if self._pipeline.flows.get(symbol) is not flow:
            return  # the symbol was removed
        self._use(flow, fetched)
        schedule.on_response(
            request, fetched.reach, fetched.requested, flow.sequence.missing(), self._monotonic()
        )

    def _use(self, flow: SymbolFlow, fetched: Fetched) -> None:
        if fetched.refused:
            self._counters.failures["bad_row"] += len(fetched.refused)
            # The same rows come with each retry.
            skipping = self._skipping.setdefault(
                flow.symbol,
                logs.Episode(log, "REST rows skipped", "no more REST rows skipped", self._monotonic),
            )
            skipping.begin(
                symbol=flow.symbol,
                endpoint=fetched.proof,
                count=len(fetched.refused),
                first=fetched.refused[0],
            )
        else:
            self._end_skipping(flow.symbol)
        self._counters.backfilled += len(fetched.trades)
        self._pipeline.fetched.publish(flow, fetched)

    def _on_error(
        self, symbol: str, schedule: GapSchedule, flow: SymbolFlow, request: Request, error: VenueError
    ) -> None:
        now = self._monotonic()
        self._counters.failures[error.reason] += 1
        self._waiting.begin(symbol=symbol, reason=str(error))
        if isinstance(error, Limited | Refused):
            # It concerns the address, not a gap.
            seconds = error.retry_after_seconds if isinstance(error, Limited) else REFUSED_SECONDS
            self._blocked_until = max(self._blocked_until, now + seconds)
        elif error.reason.startswith("http_4"):
            # A response to this request: the venue does not have the ids.
            schedule.on_response(request, request.ids, None, flow.sequence.missing(), now)
        else:
            schedule.on_failure(request, flow.sequence.missing(), now)

    def _end_skipping(self, symbol: str) -> None:
        skipping = self._skipping.pop(symbol, None)
        if skipping is not None:
            skipping.end(symbol=symbol)

    def _remove(self, symbol: str) -> None:
        self._symbols.discard(symbol)
        self._end_skipping(symbol)
        self._schedules.pop(symbol, None)
        self._rates.pop(symbol, None)


class _IdRate:
    """Estimator of a symbol's ids per second."""

    def __init__(self, newest: int, now: float) -> None:
        self._newest, self._at, self._pace = newest, now, 0.0

    def measure(self, newest: int, now: float) -> float:
        """Update and return the rate."""
        elapsed = now - self._at
        if elapsed >= RATE_SECONDS:
            self._pace = (self._pace + max(0, newest - self._newest) / elapsed) / 2
            self._newest, self._at = newest, now
        return self._pace
