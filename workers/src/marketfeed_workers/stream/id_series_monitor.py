"""Detection of id resets over REST; `id_series` has the rule."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from marketfeed_service import logs
from marketfeed_service.errors import StartupError
from marketfeed_workers import startup
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.recovery import RecoveredState
from marketfeed_workers.stream.id_series import (
    LowQuotes,
    SeriesDecision,
    SuspectedReset,
    series_start,
)
from marketfeed_workers.stream.id_series_requests import IdSeriesRequests
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.errors import VenueError
from marketfeed_workers.venues.venue import VenueRest

log = logs.get(__name__)

CHECK_SECONDS: Final = 1.0
MAX_RESPONSES: Final = 5
"""Responses without a decision, a second apart (REST may lag behind the stream), after which the series continues."""


class IdSeriesMonitor:
    """Detects id resets; run `run` as a task."""

    def __init__(
        self,
        pipeline: Pipeline,
        rest: VenueRest,
        counters: Counters,
        has_spare: Callable[[], bool] = lambda: True,
        is_read: Callable[[str], bool] = lambda _: True,
        recover_state: Callable[[], Awaitable[RecoveredState]] | None = None,
    ) -> None:
        """Register with the pipeline.

        Args:
            has_spare: whether request weight is left for checks that are not urgent.
            is_read: whether a symbol is subscribed now.
            recover_state: returns what Kafka holds now; raises StartupError. None: no other worker begins a series.
        """
        self._pipeline = pipeline
        self._requests = IdSeriesRequests(pipeline, rest, counters)
        self._counters = counters
        self._has_spare = has_spare
        self._is_read = is_read
        self._recover_state = recover_state
        self._unread = logs.Episode(
            log, "id series not begun: checkpoints cannot be read", "checkpoints read for a new id series"
        )
        self._decided: list[SymbolFlow] = []
        self._decided_event = asyncio.Event()
        self._woken = asyncio.Event()
        pipeline.resets.on_suspected_reset = self._woken.set
        pipeline.resets.on_series_begun = rest.ids_restarted
        if recover_state is not None:
            pipeline.resets.on_new_series = self._begin_soon

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._check_resumed(), name="id-series-at-start")
            group.create_task(self._begin_decided(), name="id-series-decided")
            while True:
                self._woken.clear()
                await self.check()
                try:
                    async with asyncio.timeout(CHECK_SECONDS):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    async def check(self) -> None:
        """Try to decide for every symbol with held trades or low quotes."""
        suspects = [
            flow
            for flow in self._pipeline.flows.values()
            if flow.suspected_reset is not None and not flow.suspected_reset.is_decided
        ]
        low_quotes = self._pipeline.quotes.low_quotes_due()
        await asyncio.gather(
            *(self._resolve(flow) for flow in suspects),
            *(self._resolve_quotes(flow, low) for flow, low in low_quotes),
        )

    async def _resolve_quotes(self, flow: SymbolFlow, low: LowQuotes) -> None:
        """Decide by the venue's newest update id, or by the quotes alone if REST does not respond."""
        decision, known = low.decide(await self._requests.newest_update_id(flow.symbol)), None
        if decision is SeriesDecision.UNDECIDED:
            return  # retried in a second
        if decision is SeriesDecision.RESTARTED and self._recover_state is not None:
            memory = await self._recovered_state()
            if memory is None:
                return  # retried in a second
            known = memory.quotes.get(flow.symbol)
        self._pipeline.quotes.decide(flow, low, decision, known)

    async def _resolve(self, flow: SymbolFlow) -> None:
        suspected_reset = flow.suspected_reset
        if suspected_reset is None:
            return
        # A first gap is normal for a process that was down: not logged.
        if not (suspected_reset.responses or suspected_reset.rest_failed or suspected_reset.is_gap):
            log.warning(
                "trades held: possible id reset",
                symbol=flow.symbol,
                first_id=suspected_reset.trades[0].trade_id,
                expected_id=suspected_reset.expected,
            )
        decision = await self._decision_by_rest(flow, suspected_reset)
        first_id = None
        if decision is SeriesDecision.RESTARTED:
            first_id = await self._requests.first_id(flow, suspected_reset.after_time_us)
            if first_id is None and suspected_reset.responses < MAX_RESPONSES:
                return  # REST lags, or is unavailable for a moment
            if first_id is None:
                log.warning("start of the id series unknown; first received trade used", symbol=flow.symbol)
        if flow.suspected_reset is not suspected_reset or (
            suspected_reset.is_decided and decision is not SeriesDecision.RESTARTED
        ):
            return  # decided by the held trades in the meantime
        if decision is SeriesDecision.RESTARTED:
            begins = series_start(first_id, suspected_reset.trades)
            await self._begin(flow, begins, lambda: flow.suspected_reset is suspected_reset)
        elif decision is SeriesDecision.CONTINUES:
            self._pipeline.resets.decide(flow, decision)

    async def _decision_by_rest(self, flow: SymbolFlow, suspected_reset: SuspectedReset) -> SeriesDecision:
        """Return the decision by REST, or by the held trades if REST decides nothing."""
        decision = SeriesDecision.UNDECIDED
        try:
            async with self._requests.place():
                decision = await self._requests.decide(
                    flow,
                    suspected_reset.after_time_us,
                    suspected_reset.expected,
                    only_known_row=suspected_reset.is_gap,
                )
                suspected_reset.responses += 1
                suspected_reset.rest_failed = False
        except VenueError as error:
            self._counters.failures[error.reason] += 1
            suspected_reset.rest_failed = True
        except TimeoutError:
            suspected_reset.rest_failed = True
        if decision is SeriesDecision.UNDECIDED:
            decision = suspected_reset.decide()
        if decision is SeriesDecision.UNDECIDED and suspected_reset.responses >= MAX_RESPONSES:
            decision = SeriesDecision.CONTINUES
        return decision

    async def _check_resumed(self) -> None:
        """Check resumed symbols once, and symbols after outages."""
        while True:
            await self.check_resumed()
            await self.check_after_outages()
            await asyncio.sleep(CHECK_SECONDS)

    async def check_resumed(self) -> None:
        """Check the resumed symbols that have not been checked yet."""
        for flow in list(self._pipeline.flows.values()):
            if flow.checkpoint_time_us is None or flow.is_start_checked or not self._has_spare():
                continue
            flow.is_start_checked = True
            await self._check(flow)

    async def check_after_outages(self) -> None:
        """Compare the newest trade of each symbol after an outage with the venue's row of the same id."""
        for flow in list(self._pipeline.flows.values()):
            after_us, newest = flow.newest_time_us, flow.sequence.newest
            if (
                not flow.is_gap_unverified
                or flow.suspected_reset is not None
                or after_us is None
                or newest is None
            ):
                continue
            if not (self._is_read(flow.symbol) and self._has_spare()):
                continue
            try:
                decision = await self._requests.decide(flow, after_us, newest + 1, only_known_row=True)
                is_ours = self._pipeline.flows.get(flow.symbol) is flow and flow.suspected_reset is None
                if not is_ours or flow.sequence.newest != newest:
                    continue  # a trade received in the meantime is held, or continues the series
                flow.unverified_responses += 1
                if decision is SeriesDecision.RESTARTED and await self._begin_without_trades(flow, after_us):
                    continue
                if decision is SeriesDecision.CONTINUES:
                    self._pipeline.resets.confirm_series(flow)
                elif flow.unverified_responses >= MAX_RESPONSES:
                    flow.is_gap_unverified, flow.unverified_responses = False, 0
            except VenueError as error:
                self._counters.failures[error.reason] += 1
                return  # the first trade after a gap is held until it is decided

    async def _check(self, flow: SymbolFlow) -> None:
        after_us, expected = flow.checkpoint_time_us, flow.sequence.expected
        if (
            after_us is None
            or expected is None
            or flow.last_trade_time_us is not None
            or flow.suspected_reset
        ):
            return  # decided by the stream
        try:
            decision = await self._requests.decide(flow, after_us, expected)
        except VenueError as error:
            self._counters.failures[error.reason] += 1
            return  # the first trades of the stream decide
        is_ours = self._pipeline.flows.get(flow.symbol) is flow and flow.suspected_reset is None
        if decision is SeriesDecision.RESTARTED and is_ours and flow.last_trade_time_us is None:
            await self._begin_without_trades(flow, after_us)

    async def _begin_without_trades(self, flow: SymbolFlow, after_us: int) -> bool:
        """Begin a new series before its first trade on the stream; return whether REST has its start."""
        newest = flow.sequence.newest
        first_id = await self._requests.first_id(flow, after_us)
        if first_id is not None:
            await self._begin(
                flow, first_id, lambda: flow.suspected_reset is None and flow.sequence.newest == newest
            )
        return first_id is not None

    def _begin_soon(self, flow: SymbolFlow) -> None:
        """Schedule the begin of a series with the held trades, after the newest series is read from Kafka."""
        if flow.suspected_reset is not None and not flow.suspected_reset.is_decided:
            flow.suspected_reset.is_decided = True
            self._decided.append(flow)
            self._decided_event.set()

    async def _begin_decided(self) -> None:
        while True:
            await self._decided_event.wait()
            self._decided_event.clear()
            await self.begin_decided()
            if self._decided:
                await asyncio.sleep(CHECK_SECONDS)
                self._decided_event.set()

    async def begin_decided(self) -> None:
        """Begin the decided series; keep those for which Kafka could not be read."""
        flows, self._decided = self._decided, []
        begun = await asyncio.gather(*(self._begin(flow, None, partial(_is_held, flow)) for flow in flows))
        self._decided += [flow for flow, is_begun in zip(flows, begun, strict=True) if not is_begun]

    async def _begin(self, flow: SymbolFlow, first_id: int | None, is_due: Callable[[], bool]) -> bool:
        """Begin a new series, or join the newest one of another worker; return whether that is done.

        `is_due` returns whether the flow is unchanged since the decision.
        """
        memory = RecoveredState() if self._recover_state is None else await self._recovered_state()
        if memory is None:
            return False
        if self._pipeline.flows.get(flow.symbol) is not flow or not is_due():
            return True
        checkpoint = memory.checkpoints.get(flow.symbol)
        if checkpoint is not None and checkpoint.id_series > flow.id_series:
            self._pipeline.resets.join_series(flow, lambda new: startup.resume(memory, new, None))
        else:
            self._pipeline.resets.begin_series(flow, first_id, memory.newest_series(flow.symbol))
        return True

    async def _recovered_state(self) -> RecoveredState | None:
        """Return the state recovered from Kafka now; None if it cannot be read."""
        assert self._recover_state is not None  # noqa: S101 - callers look first
        try:
            memory = await self._recover_state()
        except StartupError as error:
            self._unread.begin(reason=str(error))
            return None
        self._unread.end()
        return memory


def _is_held(flow: SymbolFlow) -> bool:
    return flow.suspected_reset is not None
