"""Id resets of the symbols of a pipeline: trades held until a decision, and changes to another series.

`id_series` has the rule, `id_series_monitor` decides over REST.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from marketfeed_service import logs
from marketfeed_wire import MAX_ID, Trade
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.stream.first_trades import FirstTrades
from marketfeed_workers.stream.id_series import (
    MAX_DECIDED,
    MAX_IDS_A_SECOND,
    OUTAGE_SECONDS,
    SeriesDecision,
    SuspectedReset,
    decide_by_known_row,
)
from marketfeed_workers.stream.parts import ProcessTrade, StreamParts
from marketfeed_workers.stream.reorder_buffer import IncreasingIds, ReorderBuffer
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.stream.trade_publisher import TradePublisher

log = logs.get(__name__)


class IdResets:
    """Holds trades of symbols whose ids may have been reset.

    Attributes:
        on_suspected_reset: called when the ids of a symbol may have been reset; see `id_series`.
        on_series_begun: called with a symbol that has begun a new id series.
        on_new_series: called when the held trades of a symbol have confirmed an id reset; see `begin_series`.
    """

    def __init__(
        self,
        parts: StreamParts,
        trades: TradePublisher,
        first_trades: FirstTrades,
        process: ProcessTrade,
    ) -> None:
        """Set the parts of the pipeline.

        Args:
            parts: what all parts share.
            trades: publishes trades.
            first_trades: begins series.
            process: processes a trade as if it was received now.
        """
        self.on_suspected_reset: Callable[[], None] = _ignore_reset
        self.on_series_begun: Callable[[str], None] = _ignore
        self.on_new_series: Callable[[SymbolFlow], None] = partial(self.begin_series, first_id=None)
        self._parts = parts
        self._trades = trades
        self._first_trades = first_trades
        self._process = process

    def suspect(self, flow: SymbolFlow) -> None:
        """Have REST verify whether the venue has reset the ids: it has trades of a lower id and a later time."""
        flow.is_gap_unverified = flow.has_late_rows = True
        self.on_suspected_reset()

    def confirm_series(self, flow: SymbolFlow) -> None:
        """Note that REST has shown no id reset of a symbol."""
        flow.is_gap_unverified, flow.has_late_rows, flow.unverified_responses = False, False, 0
        flow.verified_us = self._parts.clock.time_us()

    def decide_by_row(
        self, flow: SymbolFlow, row: Trade | None, known_time_us: int, known_id: int
    ) -> SeriesDecision:
        """Decide by the venue's row of a published id whether the series continues."""
        known = self._trades.recent.find(flow.symbol, known_id) if flow.has_late_rows else None
        return decide_by_known_row(row, known_time_us, self._parts.clock.time_us(), known)

    def mark_outage(self, symbols: list[str], seconds: float) -> None:
        """Note an outage: ids may have been reset and have passed the newest known id.

        Within OUTAGE_SECONDS that is possible only if the newest known id is low.
        """
        reach = math.inf if seconds >= OUTAGE_SECONDS else seconds * MAX_IDS_A_SECOND
        for symbol in symbols:
            flow = self._parts.flows.get(symbol)
            newest = flow.sequence.newest if flow is not None and self._parts.contiguous else None
            if (
                flow is not None
                and newest is not None
                and newest <= reach
                and flow.newest_time_us is not None
            ):
                flow.is_gap_unverified = True

    def held_symbols(self, seconds: float) -> list[str]:
        """Return the symbols whose trades have been held for longer than `seconds`. For any thread."""
        now = self._parts.monotonic()
        held = [(flow.symbol, flow.suspected_reset) for flow in list(self._parts.flows.values())]
        return [
            symbol
            for symbol, suspected_reset in held
            if suspected_reset is not None and now - suspected_reset.since > seconds
        ]

    def looks_like_reset(self, flow: SymbolFlow, trade: Trade) -> bool:
        """Return whether a trade with a known id is later than the newest one."""
        newest_us = flow.newest_time_us
        return trade.origin == "stream" and newest_us is not None and trade.trade_time_us > newest_us

    def is_unverified_gap(self, flow: SymbolFlow, trade: Trade) -> bool:
        """Return whether a gap before a trade may be an id reset."""
        return (
            (flow.is_gap_unverified or (flow.checkpoint_is_exact and flow.last_trade_time_us is None))
            and flow.sequence.expected is not None
            and trade.trade_id > flow.sequence.expected
            and trade.origin == "stream"
            and self.on_suspected_reset is not _ignore_reset
        )

    def hold(self, flow: SymbolFlow, trade: Trade, *, is_gap: bool = False) -> None:
        """Hold the symbol's trades from this one on until an id reset is confirmed or excluded."""
        newest = flow.sequence.newest
        after_us = flow.newest_time_us
        flow.checkpoint_is_exact = flow.checkpoint_is_exact and not is_gap
        flow.is_gap_unverified = False
        flow.known_to, known_to = MAX_ID, flow.known_to
        flow.suspected_reset = SuspectedReset(
            -1 if after_us is None else after_us,
            0 if newest is None else newest + 1,
            self._parts.monotonic(),
            [trade],
            is_gap=is_gap,
            known_to=known_to,
        )
        self.on_suspected_reset()

    def decide_by_held(self, flow: SymbolFlow) -> None:
        """Decide by the held trades, if they suffice."""
        suspected_reset = flow.suspected_reset
        if suspected_reset is not None and suspected_reset.is_decided:
            if len(suspected_reset.trades) >= MAX_DECIDED:
                self._parts.reads.pause()
        elif suspected_reset is not None:
            decision = suspected_reset.decide()
            if decision is not SeriesDecision.UNDECIDED:
                self._parts.due.append(partial(self.decide, flow, decision))

    def holds_too_many(self) -> bool:
        """Return whether so many trades are held for a new series that reading must pause."""
        held = [flow.suspected_reset for flow in self._parts.flows.values()]
        return any(one is not None and one.is_decided and len(one.trades) >= MAX_DECIDED for one in held)

    def decide(self, flow: SymbolFlow, decision: SeriesDecision) -> None:
        """Process the held trades in the decided series."""
        suspected_reset = flow.suspected_reset
        if suspected_reset is None or self._parts.flows.get(flow.symbol) is not flow:
            return
        if decision is SeriesDecision.RESTARTED:
            self.on_new_series(flow)
            return
        flow.suspected_reset, flow.known_to = None, suspected_reset.known_to
        if not suspected_reset.is_gap:
            log.warning(
                "held trades published unchanged",
                symbol=flow.symbol,
                count=len(suspected_reset.trades),
                first_id=suspected_reset.trades[0].trade_id,
            )
        now_us = self._parts.now_us()
        ready: list[Trade] = []
        for trade in suspected_reset.trades:
            ready += [trade] if flow.sequence.is_known(trade.trade_id) else flow.accept(trade, now_us)
        self._trades.publish(flow, ready, now_us)
        self._parts.gaps.publish(flow)

    def begin_series(self, flow: SymbolFlow, first_id: int | None, newest_series: int = 0) -> None:
        """Begin a new series after an id reset. Its start is acknowledged before its trades are published.

        Args:
            flow: the symbol.
            first_id: first id of the series; None: the first held id.
            newest_series: newest series with a record in Kafka.
        """
        held = flow.suspected_reset.trades if flow.suspected_reset is not None else []
        lowest = min((trade.trade_id for trade in held), default=0)
        first = lowest if first_id is None else first_id
        after_id = flow.sequence.newest
        self._end_series(flow)
        new = self._successor(
            flow,
            first_trades=held,
            id_series=max(flow.id_series, newest_series) + 1,
            first_id=first,
            checkpoint_time_us=flow.newest_time_us,
            resumed_id=first - 1,
        )
        self._trades.recent.restart_symbol(flow.symbol, held)
        log.error(
            "trade id reset detected",
            symbol=flow.symbol,
            id_series=new.id_series,
            first_id=first,
            after_id=after_id,
            held=len(held),
        )
        self._first_trades.publish_start(
            new, first, self._parts.now_us(), partial(self._first_trades.publish, new)
        )
        if new.low_quotes is not None and new.quote_series < new.id_series:
            # Otherwise the quotes were reset already, and these only lag.
            new.low_quotes.follows_trades = True

    def join_series(self, flow: SymbolFlow, resume: Callable[[SymbolFlow], None]) -> None:
        """Continue in a series begun by another worker, from its checkpoint, as a new process would.

        `resume` sets a flow to the state recovered from Kafka. Whether the held trades belong to that series, or the
        ids have been reset again, is decided by the usual rule.
        """
        held = flow.suspected_reset.trades if flow.suspected_reset is not None else []
        self._end_series(flow)
        new = self._successor(flow)
        resume(new)
        self._trades.recent.restart_symbol(flow.symbol, [])
        log.error(
            "id series of another worker joined",
            symbol=flow.symbol,
            id_series=new.id_series,
            after_id=new.resumed_id,
            held=len(held),
        )
        if new.missing:
            self._parts.gaps.on_gap(new.symbol)
        self._process_held(new, held)

    def _process_held(self, flow: SymbolFlow, held: list[Trade]) -> None:
        """Process held trades as if they were received now."""
        now_us, batch = self._parts.now_us(), next(self._trades.numbers)
        records: list[Record] = []
        newest: dict[str, int] = {}
        gap_flows: dict[str, SymbolFlow] = {}
        if held:
            self._trades.recent.add(list(held))
        for trade in held:
            self._process(flow, trade, records, newest, gap_flows, batch, now_us)
        if records:
            settled = self._parts.gaps.on_acknowledged(gap_flows, batch)
            self._parts.publisher.publish(self._parts.counters.trades, records, now_us, newest, settled)

    def _end_series(self, flow: SymbolFlow) -> None:
        """Flush a series that ends; its missing ids stay unresolved."""
        flow.suspected_reset = None
        self._first_trades.publish(flow)
        self._trades.flush(flow)
        self._parts.gaps.end_series(flow)

    def _successor(self, flow: SymbolFlow, **fields: Any) -> SymbolFlow:
        """Return the successor of `flow` in another series, with the given `fields`."""
        new = SymbolFlow(
            flow.symbol,
            flow.key,
            ReorderBuffer() if self._parts.contiguous else IncreasingIds(),
            trades=flow.trades,
            quotes=flow.quotes,
            last_update_id=flow.last_update_id,
            quote_series=flow.quote_series,
            low_quotes=flow.low_quotes,
            conflicts=flow.conflicts,
            unproven=flow.unproven,
            last_quote=flow.last_quote,
            **fields,
        )
        new.sequence.duplicates = flow.sequence.duplicates
        self._parts.flows[flow.symbol] = new
        self.on_series_begun(flow.symbol)
        self._parts.counters.series_begun["trade", flow.symbol] += 1
        return new


def _ignore(_symbol: str) -> None:
    """Default of `on_series_begun`."""


def _ignore_reset() -> None:
    """Default of `on_suspected_reset`: ids are not monitored."""
