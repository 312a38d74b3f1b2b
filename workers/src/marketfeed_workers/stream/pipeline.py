"""The hot path: frames of one socket read → messages → reorder buffer → Kafka.

It runs inside the socket's callback, without a queue, a task or a wait per message. This module applies back-pressure:
when the queue to Kafka is full reading is paused on all sockets until half of it is acknowledged.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Final

from marketfeed_service import logs
from marketfeed_wire import (
    MAX_ID,
    Checkpoint,
    Gap,
    Trade,
    checkpoint_key,
    encode,
    key_for,
    same_trade,
)
from marketfeed_workers.connection.transports.socket import Socket
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.gap_publisher import GapPublisher
from marketfeed_workers.stream.id_series import (
    MAX_DECIDED,
    MAX_IDS_A_SECOND,
    OUTAGE_SECONDS,
    SeriesDecision,
    SuspectedReset,
    decide_by_known_row,
)
from marketfeed_workers.stream.quote_publisher import QuotePublisher
from marketfeed_workers.stream.recent_trades import RecentTrades
from marketfeed_workers.stream.rejected_messages import IMPOSSIBLE_TIME, RejectedMessages
from marketfeed_workers.stream.reorder_buffer import IncreasingIds, ReorderBuffer
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.clock import (
    EARLIEST_US,
    MAX_EVENT_DELAY_US,
    TOLERANCE_US,
    VenueClock,
)
from marketfeed_workers.venues.venue import Fetched, Reply, ShutdownNotice, Venue

log = logs.get(__name__)


class Pipeline:
    """Publishes the messages of all connections of a worker.

    Attributes:
        flows: the assigned symbols.
        gaps: publisher of gap records.
        quotes: publisher of quotes.
        on_gap: called with a symbol with a new gap.
        on_suspected_reset: called when the ids of a symbol may have been reset; see `id_series`.
        on_series_begun: called with a symbol that has begun a new id series.
        on_new_series: called when the held trades of a symbol have confirmed an id reset; see `begin_series`.
        on_rejected: called when a message was rejected for its time.
    """

    MAX_FIRST_TRADES: Final = 1000
    """Maximum number of first trades held for the acknowledgement of the series' start, to bound memory."""

    def __init__(
        self,
        venue: Venue,
        publisher: Publisher,
        counters: Counters,
        now_us: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
        clock: VenueClock | None = None,
    ) -> None:
        self.flows: dict[str, SymbolFlow] = {}
        self._reads_paused = logs.Episode(log, "reads paused", "reads resumed", monotonic)
        self.on_gap: Callable[[str], None] = _ignore
        self.on_suspected_reset: Callable[[], None] = _ignore_reset
        self.on_series_begun: Callable[[str], None] = _ignore
        self.on_new_series: Callable[[SymbolFlow], None] = partial(self.begin_series, first_id=None)
        self.on_rejected: Callable[[], None] = _do_nothing
        self._left: dict[str, int] = {}
        self._numbers = count()
        self._venue = venue.facts.name
        self._read_all = venue.read_all
        self._contiguous = venue.facts.trade_ids == "contiguous"
        self._publisher = publisher
        self._counters = counters
        self._now_us = now_us
        self._monotonic = monotonic
        self._recent = RecentTrades()
        self._clock = clock or VenueClock(now_us, monotonic)
        self._kinds = venue.kinds
        self._sockets: dict[Socket, None] = {}  # in the order of attachment
        self._due: list[Callable[[], None]] = []
        name = venue.facts.name
        self.gaps = GapPublisher(
            name, self.flows, publisher, counters, now_us, lambda symbol: self.on_gap(symbol)
        )
        self.quotes = QuotePublisher(
            self.flows,
            "bookTicker" in venue.kinds,
            publisher,
            counters,
            now_us,
            monotonic,
            self._note_unexpected,
        )
        self._rejected = RejectedMessages(name, publisher, counters, self._clock, lambda: self.on_rejected())

    @property
    def paused(self) -> bool:
        """Whether reading and backfill are paused until Kafka acknowledges."""
        return self._reads_paused.active

    def add_symbol(self, symbol: str) -> SymbolFlow:
        """Accept messages of a symbol from now on."""
        sequence = ReorderBuffer() if self._contiguous else IncreasingIds()
        return self.flows.setdefault(symbol, SymbolFlow(symbol, key_for(symbol), sequence))

    def confirm_series(self, flow: SymbolFlow) -> None:
        """Note that REST has shown no id reset of a symbol."""
        flow.is_gap_unverified, flow.has_late_rows, flow.unverified_responses = False, False, 0
        flow.verified_us = self._clock.time_us()

    def decide_by_row(
        self, flow: SymbolFlow, row: Trade | None, known_time_us: int, known_id: int
    ) -> SeriesDecision:
        """Decide by the venue's row of a published id whether the series continues."""
        known = self._recent.find(flow.symbol, known_id) if flow.has_late_rows else None
        return decide_by_known_row(row, known_time_us, self._clock.time_us(), known)

    def mark_outage(self, symbols: list[str], seconds: float) -> None:
        """Note an outage: ids may have been reset and have passed the newest known id.

        Within OUTAGE_SECONDS that is possible only if the newest known id is low.
        """
        reach = math.inf if seconds >= OUTAGE_SECONDS else seconds * MAX_IDS_A_SECOND
        for symbol in symbols:
            flow = self.flows.get(symbol)
            newest = flow.sequence.newest if flow is not None and self._contiguous else None
            if (
                flow is not None
                and newest is not None
                and newest <= reach
                and flow.newest_time_us is not None
            ):
                flow.is_gap_unverified = True

    def remove_symbol(self, symbol: str) -> None:
        """Stop accepting messages of a symbol, after flushing its reorder buffer."""
        flow = self.flows.get(symbol)
        if flow is not None:
            self._publish_first_trades(flow)
            self.flush(flow)
            self.quotes.end_lagging(symbol)
            self._left[symbol] = flow.resumed_id
            del self.flows[symbol]
            self.gaps.publish(flow)  # with every change: nobody comes back to it

    def attach(self, socket: Socket) -> None:
        """Add a socket, so that reading it can be paused."""
        self._sockets[socket] = None
        if self.paused:
            socket.pause_reading()

    def detach(self, socket: Socket) -> None:
        """Remove a socket that was closed."""
        self._sockets.pop(socket, None)

    def process(self, frames: list[bytes]) -> list[Reply | ShutdownNotice]:
        """Publish the messages of one read; return replies and notices about the connection."""
        now_us = self._now_us()
        batch = self._read_all(frames, now_us)
        for error in batch.refused:
            self._counters.failures[error.reason] += 1
            log.warning("frame skipped", reason=str(error))
        if batch.unexpected:
            self._counters.unexpected += len(batch.unexpected)
            log.warning("unexpected frame skipped", frame=repr(batch.unexpected[0][:200]))
        if batch.trades:
            self._publish_trades(batch.trades, now_us, frames)
        if batch.quotes:
            self.quotes.publish(batch.quotes, now_us)
        self._publisher.poll()
        if self._due or self.gaps.has_updates:
            self.run_deferred()
        if self._publisher.full:
            self._pause()
        return batch.notices

    def poll(self) -> None:
        """Process acknowledgements while no frames arrive; resume reading when there is room."""
        self._publisher.poll()
        self.run_deferred()
        if self.paused and self._publisher.has_room and not self._holds_too_many():
            self._reads_paused.end(pending=self._publisher.pending)
            for socket in list(self._sockets):
                socket.resume_reading()
                if self.paused:  # the frames kept by this socket filled the queue again
                    break

    def run_deferred(self) -> None:
        """Run the work deferred to acknowledgements. Delivery callbacks must not produce."""
        due, self._due[:] = list(self._due), []
        for each in due:
            each()
        self.gaps.run_updates()

    def held_symbols(self, seconds: float) -> list[str]:
        """Return the symbols whose trades have been held for longer than `seconds`. For any thread."""
        now = self._monotonic()
        held = [(flow.symbol, flow.suspected_reset) for flow in list(self.flows.values())]
        return [
            symbol
            for symbol, suspected_reset in held
            if suspected_reset is not None and now - suspected_reset.since > seconds
        ]

    def resumed_id(self, symbol: str) -> int:
        """Return the trade id after which a symbol resumed, also once it is removed; -1 without a checkpoint."""
        flow = self.flows.get(symbol)
        return flow.resumed_id if flow is not None else self._left.get(symbol, -1)

    def publish_gap_changes(self) -> None:
        """Publish changes of gaps that do not change their state, such as a part that was filled."""
        for flow in self.flows.values():
            if flow.gaps:
                self.gaps.publish(flow, with_partial=True)

    def adopt_gaps(self, flow: SymbolFlow, gaps: Sequence[Gap]) -> None:
        """Close the gap records of a process that ran beside this one and has ended; `gaps`: all of the symbol."""
        flow.adopt(gaps)
        self.gaps.publish(flow, with_partial=True)

    def backfill(self, flow: SymbolFlow, fetched: Fetched) -> int:
        """Publish fetched trades; return the number of ids that are no longer missing."""
        if self.flows.get(flow.symbol) is not flow:
            return 0  # the symbol was removed, or its ids were reset, during the request
        now_us = self._now_us()
        self._rejected.publish_rows(flow, fetched.refused, now_us)
        fetched = self._rejected.without_impossible(flow, fetched, now_us)
        if self._is_new(flow, fetched.trades):
            for trade in fetched.trades:
                self._begin(flow, trade, now_us)
            return 0
        if flow.is_of_new_series(fetched, self._clock.time_us()):
            # Published, they would fill gaps of the old series. If they do belong to it they are fetched again.
            flow.is_gap_unverified = flow.has_late_rows = True
            self.on_suspected_reset()
            return 0
        missing_before = flow.missing
        known = [trade for trade in fetched.trades if flow.sequence.is_known(trade.trade_id)]
        if known:
            fetched = fetched._replace(trades=[trade for trade in fetched.trades if trade not in known])
        ready = flow.accept_fetched(fetched, now_us)
        if fetched.trades:
            self._recent.add(list(fetched.trades))  # the stream may deliver them later, as duplicates
        self._publish_ready(
            flow, ready + [trade for trade in known if self._is_unproven(flow, trade)], now_us
        )
        self.gaps.publish(flow)
        if self._publisher.full:
            self._pause()
        return missing_before - flow.missing

    def flush(self, flow: SymbolFlow) -> None:
        """Flush the reorder buffer; the missing ids become unresolved."""
        now_us = self._now_us()
        self._publish_ready(flow, flow.sequence.flush(), now_us)
        self.gaps.publish(flow)

    def _publish_trades(self, trades: list[Trade], now_us: int, frames: list[bytes]) -> None:
        latest_us = self._clock.latest_us()
        reads_trades = "trade" in self._kinds
        rejected: list[Trade] = []
        records: list[Record] = []
        newest: dict[str, int] = {}
        gap_flows: dict[str, SymbolFlow] = {}
        batch = next(self._numbers)
        flows = self.flows
        last: Trade | None = None
        counters = self._counters.trades
        counters.received += len(trades)
        self._recent.add(trades)
        for trade in trades:
            flow = flows.get(trade.symbol)
            if flow is None or not reads_trades:
                self._note_unexpected("trade", trade.symbol)
                continue
            time_us, event_us = trade.trade_time_us, trade.event_time_us
            if not (
                # `is_possible`, inlined for speed: every trade passes here.
                EARLIEST_US <= time_us <= latest_us
                and (
                    event_us is None
                    or (
                        time_us - TOLERANCE_US <= event_us <= time_us + MAX_EVENT_DELAY_US
                        and event_us <= latest_us
                    )
                )
            ):
                rejected.append(trade)
                if self._contiguous and flow.has_not_begun:
                    self._begin_at_rejected(flow, trade.trade_id, now_us)
                flow.reject(trade.trade_id, IMPOSSIBLE_TIME, now_us)
                continue
            last = trade
            flow.trades += 1
            sequence = flow.sequence
            if (
                trade.trade_id == sequence.expected
                and not sequence.buffered
                and trade.trade_id > flow.known_to
            ):
                # Fast path, inlined for speed: the next id, and an empty reorder buffer.
                sequence.expected += 1
                records.append({"value": flow.encode(trade), "key": flow.key})
                newest[flow.series_key] = trade.trade_id
                if flow.last_trade_time_us is None or time_us > flow.last_trade_time_us:
                    flow.last_trade_time_us = time_us
            else:
                self._process_out_of_order(flow, trade, records, newest, gap_flows, batch, now_us)
        if records:
            self._publisher.publish(
                counters, records, now_us, newest, self.gaps.on_acknowledged(gap_flows, batch)
            )
        if rejected:
            self._reject_trades(rejected, frames, now_us)
        # Only a checked time: the clock is advanced by it.
        if last is not None and last.event_time_us is not None and last.origin == "stream":
            self._clock.accept(last.event_time_us)
            counters.venue_to_socket.observe(max(0, self._clock.time_us() - last.event_time_us), 1)

    def _reject_trades(self, trades: list[Trade], frames: list[bytes], now_us: int) -> None:
        """Publish trades with an impossible time as rejected messages; their ids are missing."""
        raws: dict[tuple[str, int], bytes] = {}
        for frame in frames:
            raws |= {
                (trade.symbol, trade.trade_id): frame for trade in self._read_all([frame], now_us).trades
            }
        for trade in trades:
            raw, fault = raws[trade.symbol, trade.trade_id], self._clock.fault(trade)
            self._rejected.publish(
                self.flows[trade.symbol], trade.trade_id, IMPOSSIBLE_TIME, fault, raw, now_us
            )
        self._recent.discard(trades)
        for symbol in dict.fromkeys(trade.symbol for trade in trades):
            flow = self.flows[symbol]
            if flow.missing:
                self.on_gap(symbol)
            self.gaps.publish(flow)
        self.on_rejected()

    def _process_out_of_order(
        self,
        flow: SymbolFlow,
        trade: Trade,
        records: list[Record],
        newest: dict[str, int],
        gap_flows: dict[str, SymbolFlow],
        batch: int,
        now_us: int,
    ) -> None:
        """Process a trade that is not simply the next: after a gap, a duplicate, or one that fills a gap."""
        if flow.suspected_reset is not None and trade.trade_time_us > flow.suspected_reset.after_time_us:
            if not flow.suspected_reset.hold(trade):
                flow.sequence.duplicates += 1
            self._decide_by_held(flow)
            return
        if self._is_new(flow, [trade]):
            self._begin(flow, trade, now_us)
            return
        if flow.sequence.is_known(trade.trade_id):
            if not self._is_unproven(flow, trade):
                return
            if self._looks_like_reset(flow, trade):
                self._hold_for_reset(flow, trade)
                return
            ready = [trade]
        elif self._is_unverified_gap(flow, trade):
            self._hold_for_reset(flow, trade, is_gap=True)
            return
        else:
            ready = flow.accept(trade, now_us)
        for each in ready:
            records.append({"value": flow.encode(each), "key": flow.key})
            name = flow.series_key
            newest[name] = max(each.trade_id, newest.get(name, -1))
        flow.update_last_trade_time(ready)
        if ready and flow.track_gap_trades(batch, ready):
            gap_flows[flow.symbol] = flow
        self.gaps.publish(flow)

    def _is_new(self, flow: SymbolFlow, trades: list[Trade]) -> bool:
        """Return whether the series has no checkpoint yet; a series that begins with id 0 needs none."""
        if flow.first_id is not None:
            return bool(trades)
        return self._contiguous and flow.sequence.expected is None and bool(trades and trades[0].trade_id)

    def _begin(self, flow: SymbolFlow, trade: Trade, now_us: int) -> None:
        """Hold a symbol's first trades until Kafka has acknowledged a checkpoint of the series' start.

        Otherwise a worker that is killed after the first trade and before the first checkpoint leaves no trace: the
        next process would begin with its own first trade, and the trades in between would be missing unnoticed.
        """
        flow.first_trades.append(trade)
        if len(flow.first_trades) == 1 and flow.first_id is None:
            checkpoint = Checkpoint(
                self._venue, flow.symbol, trade.trade_id - 1, now_us, id_series=flow.id_series
            )
            key = checkpoint_key(self._venue, flow.symbol, flow.id_series)
            record: Record = {"value": encode(checkpoint), "key": key}
            begun = partial(self._due.append, partial(self._publish_first_trades, flow))
            self._publisher.publish(self._counters.progress, [record], now_us, {}, begun)
        elif len(flow.first_trades) >= self.MAX_FIRST_TRADES:
            self._due.append(partial(self._publish_first_trades, flow))

    def _begin_at_rejected(self, flow: SymbolFlow, trade_id: int, now_us: int) -> None:
        """Begin a symbol whose first trade was rejected: its id is the first missing one."""
        flow.first_id = trade_id
        self._publish_series_start(flow, trade_id, now_us, partial(self._begin_after_rejected, flow))

    def _publish_series_start(
        self, flow: SymbolFlow, first_id: int, now_us: int, on_acknowledged: Callable[[], None]
    ) -> None:
        """Publish a checkpoint of the start of a series; call `on_acknowledged` after its acknowledgement."""
        checkpoint = Checkpoint(
            self._venue,
            flow.symbol,
            max(0, first_id - 1),
            now_us,
            id_series=flow.id_series,
            next_id=first_id if first_id == 0 else None,
        )
        key = checkpoint_key(self._venue, flow.symbol, flow.id_series)
        record: Record = {"value": encode(checkpoint), "key": key}
        self._publisher.publish(
            self._counters.progress, [record], now_us, {}, partial(self._due.append, on_acknowledged)
        )

    def _begin_after_rejected(self, flow: SymbolFlow) -> None:
        self._publish_first_trades(flow)
        flow.skip_rejected(self._now_us())
        if flow.missing:
            self.on_gap(flow.symbol)
        self.gaps.publish(flow)

    def _publish_first_trades(self, flow: SymbolFlow) -> None:
        """Publish the held first trades of a symbol."""
        trades, flow.first_trades = flow.first_trades, []
        now_us = self._now_us()
        if flow.first_id is not None:
            flow.sequence.resume_after(flow.first_id - 1, [])
            flow.first_id = None
        ready: list[Trade] = []
        for trade in trades:
            if not flow.sequence.is_known(trade.trade_id):
                ready += flow.accept(trade, now_us)
            elif self._is_unproven(flow, trade):
                ready.append(trade)
        self._publish_ready(flow, ready, now_us)
        self.gaps.publish(flow)

    def _publish_ready(self, flow: SymbolFlow, ready: list[Trade], now_us: int) -> None:
        if ready:
            # Also for fetched trades: later trades are compared with the newest id and time.
            flow.update_last_trade_time(ready)
            batch = next(self._numbers)
            gap_flows = {flow.symbol: flow} if flow.track_gap_trades(batch, ready) else {}
            records: list[Record] = [{"value": flow.encode(trade), "key": flow.key} for trade in ready]
            newest = {flow.series_key: max(trade.trade_id for trade in ready)}
            self._publisher.publish(
                self._counters.trades, records, now_us, newest, self.gaps.on_acknowledged(gap_flows, batch)
            )

    def _note_unexpected(self, kind: str, symbol: str) -> None:
        self._counters.unexpected += 1
        log.warning("unexpected message skipped", kind=kind, symbol=symbol)

    def _is_unproven(self, flow: SymbolFlow, trade: Trade) -> bool:
        """Return whether a trade with a known id has other content, or no copy is left to compare it with.

        It is then published, so that consumers compare it with the stored one.
        """
        first = self._recent.find(trade.symbol, trade.trade_id)
        if first is not None and first is not trade:
            if same_trade(first, trade):
                flow.sequence.duplicates += 1
                return False
            flow.conflicts += 1
        else:
            flow.unproven += 1
        return True

    def _looks_like_reset(self, flow: SymbolFlow, trade: Trade) -> bool:
        newest_us = flow.newest_time_us
        return trade.origin == "stream" and newest_us is not None and trade.trade_time_us > newest_us

    def _is_unverified_gap(self, flow: SymbolFlow, trade: Trade) -> bool:
        return (
            (flow.is_gap_unverified or (flow.checkpoint_is_exact and flow.last_trade_time_us is None))
            and flow.sequence.expected is not None
            and trade.trade_id > flow.sequence.expected
            and trade.origin == "stream"
            and self.on_suspected_reset is not _ignore_reset
        )

    def _hold_for_reset(self, flow: SymbolFlow, trade: Trade, *, is_gap: bool = False) -> None:
        """Hold the symbol's trades from this one on until an id reset is confirmed or excluded."""
        newest = flow.sequence.newest
        after_us = flow.newest_time_us
        flow.checkpoint_is_exact = flow.checkpoint_is_exact and not is_gap
        flow.is_gap_unverified = False
        flow.known_to, known_to = MAX_ID, flow.known_to
        flow.suspected_reset = SuspectedReset(
            -1 if after_us is None else after_us,
            0 if newest is None else newest + 1,
            self._monotonic(),
            [trade],
            is_gap=is_gap,
            known_to=known_to,
        )
        self.on_suspected_reset()

    def _decide_by_held(self, flow: SymbolFlow) -> None:
        """Decide by the held trades, if they suffice."""
        suspected_reset = flow.suspected_reset
        if suspected_reset is not None and suspected_reset.is_decided:
            if len(suspected_reset.trades) >= MAX_DECIDED:
                self._pause()
        elif suspected_reset is not None:
            decision = suspected_reset.decide()
            if decision is not SeriesDecision.UNDECIDED:
                self._due.append(partial(self.decide, flow, decision))

    def _holds_too_many(self) -> bool:
        """Return whether so many trades are held for a new series that reading must pause."""
        held = [flow.suspected_reset for flow in self.flows.values()]
        return any(one is not None and one.is_decided and len(one.trades) >= MAX_DECIDED for one in held)

    def decide(self, flow: SymbolFlow, decision: SeriesDecision) -> None:
        """Process the held trades in the decided series."""
        suspected_reset = flow.suspected_reset
        if suspected_reset is None or self.flows.get(flow.symbol) is not flow:
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
        now_us = self._now_us()
        ready: list[Trade] = []
        for trade in suspected_reset.trades:
            ready += [trade] if flow.sequence.is_known(trade.trade_id) else flow.accept(trade, now_us)
        self._publish_ready(flow, ready, now_us)
        self.gaps.publish(flow)

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
        self._recent.restart_symbol(flow.symbol, held)
        log.error(
            "trade id reset detected",
            symbol=flow.symbol,
            id_series=new.id_series,
            first_id=first,
            after_id=after_id,
            held=len(held),
        )
        self._publish_series_start(new, first, self._now_us(), partial(self._publish_first_trades, new))
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
        self._recent.restart_symbol(flow.symbol, [])
        log.error(
            "id series of another worker joined",
            symbol=flow.symbol,
            id_series=new.id_series,
            after_id=new.resumed_id,
            held=len(held),
        )
        if new.missing:
            self.on_gap(new.symbol)
        self._process_held(new, held)

    def _process_held(self, flow: SymbolFlow, held: list[Trade]) -> None:
        """Process held trades as if they were received now."""
        now_us, batch = self._now_us(), next(self._numbers)
        records: list[Record] = []
        newest: dict[str, int] = {}
        gap_flows: dict[str, SymbolFlow] = {}
        if held:
            self._recent.add(list(held))
        for trade in held:
            self._process_out_of_order(flow, trade, records, newest, gap_flows, batch, now_us)
        if records:
            settled = self.gaps.on_acknowledged(gap_flows, batch)
            self._publisher.publish(self._counters.trades, records, now_us, newest, settled)

    def _end_series(self, flow: SymbolFlow) -> None:
        """Flush a series that ends; its missing ids stay unresolved."""
        flow.suspected_reset = None
        self._publish_first_trades(flow)
        self.flush(flow)
        self.gaps.end_series(flow)

    def _successor(self, flow: SymbolFlow, **fields: Any) -> SymbolFlow:
        """Return the successor of `flow` in another series, with the given `fields`."""
        new = SymbolFlow(
            flow.symbol,
            flow.key,
            ReorderBuffer() if self._contiguous else IncreasingIds(),
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
        self.flows[flow.symbol] = new
        self.on_series_begun(flow.symbol)
        self._counters.series_begun["trade", flow.symbol] += 1
        return new

    def _pause(self) -> None:
        if not self.paused:
            self._counters.paused_reads += 1
            self._reads_paused.begin(pending=self._publisher.pending)
            for socket in self._sockets:
                socket.pause_reading()


def _ignore(_symbol: str) -> None:
    """Default of the callbacks with a symbol."""


def _ignore_reset() -> None:
    """Default of `on_suspected_reset`: ids are not monitored."""


def _do_nothing() -> None:
    """Default of `on_rejected`."""
