"""The hot path: what one socket read delivered → messages → continuity → Kafka.

A plain call from the socket's callback, without a queue, a task or a wait a message. Back-pressure is a decision of
this module: when Kafka's queue is full every socket stops being read until half of it is acknowledged.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Final

from msgspec.structs import replace

from marketfeed_service import logs
from marketfeed_wire import (
    MAX_ID,
    MAX_RAW_BYTES,
    BookTicker,
    Gap,
    Progress,
    QuoteProgress,
    RejectedMessage,
    Trade,
    encode,
    gap_key,
    key_for,
    progress_key,
    same_trade,
)
from marketfeed_workers.connection.transports.socket import Socket
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.publisher import Publisher, Record
from marketfeed_workers.stream.gaps import FROM_STREAM, SERIES_ENDED, GapEntry
from marketfeed_workers.stream.id_series import (
    MAX_DECIDED,
    MAX_IDS_A_SECOND,
    OUTAGE_SECONDS,
    LowQuotes,
    SeriesDecision,
    SuspectedReset,
    decide_by_known_row,
)
from marketfeed_workers.stream.recent_trades import RecentTrades
from marketfeed_workers.stream.reorder_buffer import IncreasingIds, ReorderBuffer
from marketfeed_workers.stream.series_key import encoder
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.clock import (
    EARLIEST_US,
    MAX_EVENT_DELAY_US,
    TOLERANCE_US,
    VenueClock,
    is_possible,
)
from marketfeed_workers.venues.venue import Fetched, Reply, ShutdownNotice, Venue

log = logs.get(__name__)

IMPOSSIBLE_TIME: Final = "impossible_time"
"""Why a message was rejected, in metrics."""


class Pipeline:
    """Turns frames into published messages, for all connections of a worker.

    Attributes:
        flows: the symbols that are read.
        on_gap: called with a symbol whose trade ids jumped.
        on_suspected_reset: called when the ids of a symbol may have begun again; see `id_series`.
        on_series_begun: called with a symbol whose trade ids have begun again, whoever decided that.
        on_new_series: called when what is held of a symbol has shown that its ids begin again; see `begin_series`.
        on_rejected: called when a message was rejected for its time.
    """

    MAX_FIRST_TRADES: Final = 1000
    """First trades of a symbol that wait for Kafka's word; more go on without it, so that memory stays bounded."""

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
        self._lagging: dict[str, logs.Episode] = {}
        """Symbol -> quotes of it lag behind the venue's newest update id."""
        self.on_gap: Callable[[str], None] = _ignore
        self.on_suspected_reset: Callable[[], None] = _ignore_reset
        self.on_series_begun: Callable[[str], None] = _ignore
        self.on_new_series: Callable[[SymbolFlow], None] = partial(self.begin_series, first_id=None)
        self.on_rejected: Callable[[], None] = _do_nothing
        self._unacknowledged_gaps: dict[str, dict[int, int]] = {}
        """Symbol -> first records of its gaps that Kafka has not acknowledged, by number -> the first id of each."""
        self._left: dict[str, int] = {}
        self._numbers = count()
        self._gap_updates: list[SymbolFlow] = []
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
        self._sockets: dict[Socket, None] = {}  # in the order of their opening
        self._due: list[Callable[[], None]] = []

    @property
    def paused(self) -> bool:
        """Whether sockets are not read, and nothing should be fetched, until Kafka acknowledges."""
        return self._reads_paused.active

    def add_symbol(self, symbol: str) -> SymbolFlow:
        """Take the symbol's messages from now on."""
        sequence = ReorderBuffer() if self._contiguous else IncreasingIds()
        return self.flows.setdefault(symbol, SymbolFlow(symbol, key_for(symbol), sequence))

    def confirm_series(self, flow: SymbolFlow) -> None:
        """REST has shown that the ids of a symbol go on."""
        flow.is_gap_unverified, flow.has_late_rows, flow.unverified_responses = False, False, 0
        flow.verified_us = self._clock.time_us()

    def decide_by_row(
        self, flow: SymbolFlow, row: Trade | None, known_time_us: int, known_id: int
    ) -> SeriesDecision:
        """What the venue's row of an id that was published says of the series."""
        known = self._recent.find(flow.symbol, known_id) if flow.has_late_rows else None
        return decide_by_known_row(row, known_time_us, self._clock.time_us(), known)

    def mark_outage(self, symbols: list[str], seconds: float) -> None:
        """Note that the symbols were not read: their ids may have begun again and have passed the newest known.

        In less than OUTAGE_SECONDS they have only where the newest known is so low that they can.
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
        """Its messages are no longer ours; what waits behind a hole goes out first."""
        flow = self.flows.get(symbol)
        if flow is not None:
            self._publish_first_trades(flow)
            self.flush(flow)
            self._end_lagging(symbol)
            self._left[symbol] = flow.resumed_id
            del self.flows[symbol]
            self._publish_gaps(flow)  # with every change: nobody comes back to it

    def attach(self, socket: Socket) -> None:
        """A socket whose frames come here, so that it can be held back."""
        self._sockets[socket] = None
        if self.paused:
            socket.pause_reading()

    def detach(self, socket: Socket) -> None:
        """That socket has ended."""
        self._sockets.pop(socket, None)

    def process(self, frames: list[bytes]) -> list[Reply | ShutdownNotice]:
        """Publish what `frames`, delivered by one read, hold; returns what concerns the connection itself."""
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
            self._publish_quotes(batch.quotes, now_us)
        self._publisher.poll()
        if self._due or self._gap_updates:
            self.run_deferred()
        if self._publisher.full:
            self._pause()
        return batch.notices

    def poll(self) -> None:
        """Take in acknowledgements while no frames come; read again when there is room."""
        self._publisher.poll()
        self.run_deferred()
        if self.paused and self._publisher.has_room and not self._holds_too_many():
            self._reads_paused.end(pending=self._publisher.pending)
            for socket in list(self._sockets):
                socket.resume_reading()
                if self.paused:  # what this one had held back filled the queue again
                    break

    def run_deferred(self) -> None:
        """Do what waited for acknowledgements that have come. Not in their callback: that may not produce."""
        due, self._due[:] = list(self._due), []
        for each in due:
            each()
        flows, self._gap_updates[:] = list(self._gap_updates), []
        for flow in flows:
            flow.gap_update_scheduled = False
            self._publish_gaps(flow)

    def held_symbols(self, seconds: float) -> list[str]:
        """The symbols whose trades have been held back for longer than that. For any thread."""
        now = self._monotonic()
        held = [(flow.symbol, flow.suspected_reset) for flow in list(self.flows.values())]
        return [
            symbol
            for symbol, suspected_reset in held
            if suspected_reset is not None and now - suspected_reset.since > seconds
        ]

    def checkpoint(self, symbol: str, acknowledged_id: int) -> int:
        """How far a symbol may be told to be stored: up to the first gap of which Kafka has no record yet."""
        unacknowledged = self._unacknowledged_gaps.get(symbol, {}).values()
        return min([acknowledged_id, *(first_id - 1 for first_id in unacknowledged)])

    def resumed_id(self, symbol: str) -> int:
        """The trade id that a symbol went on after, also once it has left; -1 where it began anew."""
        flow = self.flows.get(symbol)
        return flow.resumed_id if flow is not None else self._left.get(symbol, -1)

    def publish_gap_changes(self) -> None:
        """Publish what has changed in gaps without changing their states, such as a part that was filled."""
        for flow in self.flows.values():
            if flow.gaps:
                self._publish_gaps(flow, with_partial=True)

    def adopt_gaps(self, flow: SymbolFlow, gaps: Sequence[Gap]) -> None:
        """Close the gap records of a process that ran beside this one and has ended; `gaps`: all of the symbol."""
        flow.adopt(gaps)
        self._publish_gaps(flow, with_partial=True)

    def backfill(self, flow: SymbolFlow, fetched: Fetched) -> int:
        """Publish trades that were fetched; the number of ids that are no longer missing."""
        if self.flows.get(flow.symbol) is not flow:
            return 0  # it left, or its ids began again, while the venue was asked
        now_us = self._now_us()
        self._keep_refused(flow, fetched.refused, now_us)
        fetched = self._without_impossible(flow, fetched, now_us)
        if self._is_new(flow, fetched.trades):
            for trade in fetched.trades:
                self._begin(flow, trade, now_us)
            return 0
        if flow.is_of_new_series(fetched, self._clock.time_us()):
            # Published, they would fill gaps of the old series. They are fetched again where they do belong to it.
            flow.is_gap_unverified = flow.has_late_rows = True
            self.on_suspected_reset()
            return 0
        missing_before = flow.missing
        known = [trade for trade in fetched.trades if flow.sequence.is_known(trade.trade_id)]
        if known:
            fetched = fetched._replace(trades=[trade for trade in fetched.trades if trade not in known])
        ready = flow.accept_fetched(fetched, now_us)
        if fetched.trades:
            self._recent.add(
                list(fetched.trades)
            )  # the stream may bring them yet, and they are its repeats then
        self._publish_ready(
            flow, ready + [trade for trade in known if self._is_unproven(flow, trade)], now_us
        )
        self._publish_gaps(flow)
        if self._publisher.full:
            self._pause()
        return missing_before - flow.missing

    def flush(self, flow: SymbolFlow) -> None:
        """Go on without the ids that are missing; they stay wanted."""
        now_us = self._now_us()
        self._publish_ready(flow, flow.sequence.flush(), now_us)
        self._publish_gaps(flow)

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
                # `is_possible`, inlined because every trade passes here.
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
                # The straight way, inlined because nearly every trade takes it: the next id, and nothing waits.
                sequence.expected += 1
                records.append({"value": flow.encode(trade), "key": flow.key})
                newest[flow.series_key] = trade.trade_id
                if flow.last_trade_time_us is None or time_us > flow.last_trade_time_us:
                    flow.last_trade_time_us = time_us
            else:
                self._process_out_of_order(flow, trade, records, newest, gap_flows, batch, now_us)
        if records:
            self._publisher.publish(
                counters, records, now_us, newest, self._on_acknowledged(gap_flows, batch)
            )
        if rejected:
            self._reject_trades(rejected, frames, now_us)
        # Only a time that was found possible: the clock follows it.
        if last is not None and last.event_time_us is not None and last.origin == "stream":
            self._clock.accept(last.event_time_us)
            counters.venue_to_socket.observe(max(0, self._clock.time_us() - last.event_time_us), 1)

    def _reject_trades(self, trades: list[Trade], frames: list[bytes], now_us: int) -> None:
        """Keep trades of an impossible time as they came; their ids are missing now."""
        raws: dict[tuple[str, int], bytes] = {}
        for frame in frames:
            raws |= {
                (trade.symbol, trade.trade_id): frame for trade in self._read_all([frame], now_us).trades
            }
        for trade in trades:
            raw, fault = raws[trade.symbol, trade.trade_id], self._clock.fault(trade)
            self._reject(self.flows[trade.symbol], trade.trade_id, IMPOSSIBLE_TIME, fault, raw, now_us)
        self._recent.discard(trades)
        for symbol in dict.fromkeys(trade.symbol for trade in trades):
            flow = self.flows[symbol]
            if flow.missing:
                self.on_gap(symbol)
            self._publish_gaps(flow)
        self.on_rejected()

    def _without_impossible(self, flow: SymbolFlow, fetched: Fetched, now_us: int) -> Fetched:
        """`fetched` less the trades whose time is impossible: their ids stay missing."""
        latest_us = self._clock.latest_us()
        kept = [
            trade
            for trade in fetched.trades
            if is_possible(trade.trade_time_us, trade.event_time_us, latest_us)
        ]
        if len(kept) == len(fetched.trades):
            return fetched
        for trade in fetched.trades:
            fault = self._clock.fault(trade)
            if fault and flow.is_first_seen(f"{trade.trade_id} {trade.trade_time_us}"):
                self._reject(flow, trade.trade_id, IMPOSSIBLE_TIME, fault, encode(trade), now_us)
        self.on_rejected()
        return fetched._replace(trades=kept)

    def _keep_refused(self, flow: SymbolFlow, refused: tuple[str, ...], now_us: int) -> None:
        """Keep what REST returned and nobody could use; it is returned again at each attempt, and kept once."""
        for row in refused:
            if flow.is_first_seen(row):
                reason = IMPOSSIBLE_TIME if row.startswith(IMPOSSIBLE_TIME.replace("_", " ")) else "bad_row"
                self._reject(flow, None, reason, row, row.encode(errors="replace"), now_us)

    def _reject(
        self, flow: SymbolFlow, trade_id: int | None, reason: str, details: str, raw: bytes, now_us: int
    ) -> None:
        self._counters.rejections[reason] += 1
        self._counters.rejected.received += 1
        log.error("message rejected", symbol=flow.symbol, trade_id=trade_id, reason=reason, details=details)
        message = RejectedMessage(
            venue=self._venue,
            symbol=flow.symbol,
            stream="trade",
            trade_id=trade_id if trade_id is not None and 0 <= trade_id <= MAX_ID else None,
            reason=reason,
            details=details[:1024],
            raw=raw[:MAX_RAW_BYTES],
            received_time_us=now_us,
            id_series=flow.id_series,
        )
        record: Record = {"value": encode(message), "key": flow.key}
        self._publisher.publish(self._counters.rejected, [record], now_us, {})

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
        """A trade that is not simply the next: a jump, a repeat, or one that fills a hole."""
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
        self._publish_gaps(flow)

    def _is_new(self, flow: SymbolFlow, trades: list[Trade]) -> bool:
        """Whether nobody knows of the series yet, here or in Kafka; before id 0 there is nothing to remember."""
        if flow.first_id is not None:
            return bool(trades)
        return self._contiguous and flow.sequence.expected is None and bool(trades and trades[0].trade_id)

    def _begin(self, flow: SymbolFlow, trade: Trade, now_us: int) -> None:
        """Take a symbol's first ever trades: Kafka is told where it begins before it gets them.

        Otherwise a worker that is killed when the first trade is stored and no progress told leaves no trace: the
        next one would begin anew, from its own first trade, and what came between would be missing unnoticed.
        """
        flow.first_trades.append(trade)
        if len(flow.first_trades) == 1 and flow.first_id is None:
            checkpoint = Progress(
                self._venue, flow.symbol, trade.trade_id - 1, now_us, id_series=flow.id_series
            )
            key = progress_key(self._venue, flow.symbol, flow.id_series)
            record: Record = {"value": encode(checkpoint), "key": key}
            begun = partial(self._due.append, partial(self._publish_first_trades, flow))
            self._publisher.publish(self._counters.progress, [record], now_us, {}, begun)
        elif len(flow.first_trades) >= self.MAX_FIRST_TRADES:
            self._due.append(partial(self._publish_first_trades, flow))

    def _begin_at_rejected(self, flow: SymbolFlow, trade_id: int, now_us: int) -> None:
        """Begin a symbol whose first ever trade was rejected: its id is the first that is missing."""
        flow.first_id = trade_id
        self._publish_series_start(flow, trade_id, now_us, partial(self._begin_after_rejected, flow))

    def _publish_series_start(
        self, flow: SymbolFlow, first_id: int, now_us: int, run_deferred: Callable[[], None]
    ) -> None:
        """Tell Kafka where a series begins; `run_deferred` once it has acknowledged that."""
        checkpoint = Progress(
            self._venue,
            flow.symbol,
            max(0, first_id - 1),
            now_us,
            id_series=flow.id_series,
            next_id=first_id if first_id == 0 else None,
        )
        key = progress_key(self._venue, flow.symbol, flow.id_series)
        record: Record = {"value": encode(checkpoint), "key": key}
        self._publisher.publish(
            self._counters.progress, [record], now_us, {}, partial(self._due.append, run_deferred)
        )

    def _begin_after_rejected(self, flow: SymbolFlow) -> None:
        self._publish_first_trades(flow)
        flow.skip_rejected(self._now_us())
        if flow.missing:
            self.on_gap(flow.symbol)
        self._publish_gaps(flow)

    def _publish_first_trades(self, flow: SymbolFlow) -> None:
        """Publish the first trades of a symbol of which Kafka has word; nothing where it has begun already."""
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
        self._publish_gaps(flow)

    def _publish_ready(self, flow: SymbolFlow, ready: list[Trade], now_us: int) -> None:
        if ready:
            # Also of fetched trades: what comes later is compared with the newest, id and time alike.
            flow.update_last_trade_time(ready)
            batch = next(self._numbers)
            gap_flows = {flow.symbol: flow} if flow.track_gap_trades(batch, ready) else {}
            records: list[Record] = [{"value": flow.encode(trade), "key": flow.key} for trade in ready]
            newest = {flow.series_key: max(trade.trade_id for trade in ready)}
            self._publisher.publish(
                self._counters.trades, records, now_us, newest, self._on_acknowledged(gap_flows, batch)
            )

    def _on_acknowledged(self, gap_flows: dict[str, SymbolFlow], batch: int) -> Callable[[], None] | None:
        """What is called when Kafka has trades that fill gaps of these flows."""
        return (
            partial(self._on_gap_trades_acknowledged, list(gap_flows.values()), batch) if gap_flows else None
        )

    def _on_gap_trades_acknowledged(self, flows: list[SymbolFlow], batch: int) -> None:
        for flow in flows:
            flow.unacknowledged.pop(batch, None)
            self._schedule_gap_update(flow)

    def _schedule_gap_update(self, flow: SymbolFlow) -> None:
        """Look at the gaps of `flow` outside Kafka's callback, once however many acknowledgements come together."""
        if not flow.gap_update_scheduled:
            flow.gap_update_scheduled = True
            self._gap_updates.append(flow)

    def _publish_quotes(self, quotes: list[BookTicker], now_us: int) -> None:
        reads_quotes = "bookTicker" in self._kinds
        counters = self._counters.quotes
        counters.received += len(quotes)
        if self._publisher.is_near_capacity:
            # Under pressure only the newest quote of a symbol is worth the room; trades are never left out.
            newest_only = {quote.symbol: quote for quote in quotes}
            counters.conflated += len(quotes) - len(newest_only)
            quotes = list(newest_only.values())
        records: list[Record] = []
        flows = self.flows
        for quote in quotes:
            flow = flows.get(quote.symbol)
            if flow is None or not reads_quotes:
                self._note_unexpected("quote", quote.symbol)
                continue
            flow.quotes += 1
            if quote.update_id > flow.last_update_id:
                flow.last_update_id, flow.last_quote = quote.update_id, quote
                records.append({"value": flow.encode_quote(quote), "key": flow.key})
            else:
                counters.outdated += 1
                self._hold_low_quote(flow, quote)
        if records:
            self._publisher.publish(counters, records, now_us, {})

    def _note_unexpected(self, kind: str, symbol: str) -> None:
        self._counters.unexpected += 1
        log.warning("unexpected message skipped", kind=kind, symbol=symbol)

    def _publish_gaps(self, flow: SymbolFlow, *, with_partial: bool = False) -> None:
        """Count jumps and have them backfilled; count, log and publish every gap that changed its state.

        A record says only what Kafka holds: what was published for a gap counts as missing until it is acknowledged,
        because nobody looks for it afterwards. `with_partial`: publish other changes as well; of a symbol that has
        left they are published at once, since nobody comes back to it.
        """
        if flow.new_gaps:
            self._counters.gaps_opened += flow.new_gaps
            flow.new_gaps = 0
            self.on_gap(flow.symbol)
        if not flow.gaps:
            return
        for entry in flow.update_gaps():
            outcome = "reordered" if _is_reordered(entry) else entry.state
            self._counters.gap_outcomes[outcome] += 1
        with_partial = with_partial or self.flows.get(flow.symbol) is not flow
        for entry in flow.gaps:
            is_due = entry.is_outdated if with_partial else entry.is_due
            if is_due and not entry.in_flight and not _is_reordered(entry):
                self._publish_gap(flow, entry)
        flow.remove_gaps(is_done=_is_done)

    def _publish_gap(self, flow: SymbolFlow, entry: GapEntry) -> None:
        now_us = self._now_us()
        message = entry.message(self._venue, flow.symbol, now_us, self._publisher.max_ranges)
        if flow.id_series:
            message = replace(message, id_series=flow.id_series)
        if entry.is_due:
            write = log.error if entry.state == "unresolved" else log.warning
            write(
                f"gap {entry.state}",
                symbol=flow.symbol,
                first_id=entry.ids.first,
                last_id=entry.ids.last,
                count=entry.ids.size,
                proof=entry.proof,
            )
        unacknowledged, number = self._unacknowledged_gaps.setdefault(flow.symbol, {}), next(self._numbers)
        if entry.published is None:
            # Until Kafka has the first record of it nobody else knows of the gap, and the checkpoint must not pass it.
            unacknowledged[number] = entry.ids.first
        entry.has_record, entry.record_time_us = True, message.updated_time_us
        entry.published, entry.in_flight = entry.content, True

        def acknowledged() -> None:
            entry.in_flight = False
            unacknowledged.pop(number, None)
            if not _is_done(entry):
                self._schedule_gap_update(flow)

        record: Record = {"value": encode(message), "key": gap_key(message)}
        self._publisher.publish(self._counters.gaps, [record], now_us, {}, acknowledged)

    def _is_unproven(self, flow: SymbolFlow, trade: Trade) -> bool:
        """Whether a trade whose id is known has another content than before, or nothing is left to compare it with.

        It is then published, for the consumer to compare it with what is stored.
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
        """Hold the symbol's trades back, from this one on, until it is known whether its ids begin again."""
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
        """Go on where what is held decides by itself."""
        suspected_reset = flow.suspected_reset
        if suspected_reset is not None and suspected_reset.is_decided:
            if len(suspected_reset.trades) >= MAX_DECIDED:
                self._pause()
        elif suspected_reset is not None:
            decision = suspected_reset.decide()
            if decision is not SeriesDecision.UNDECIDED:
                self._due.append(partial(self.decide, flow, decision))

    def _holds_too_many(self) -> bool:
        """Whether so many trades wait for a series to begin that no more are to be read."""
        held = [flow.suspected_reset for flow in self.flows.values()]
        return any(one is not None and one.is_decided and len(one.trades) >= MAX_DECIDED for one in held)

    def decide(self, flow: SymbolFlow, decision: SeriesDecision) -> None:
        """Go on with what is held: in the series that it is known to belong to."""
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
        self._publish_gaps(flow)

    def begin_series(self, flow: SymbolFlow, first_id: int | None, newest_series: int = 0) -> None:
        """Go on in a new series, from `first_id` or what is held: the symbol's trade ids begin again.

        Kafka has word of the series before it gets a trade of it, as with a symbol that is new.
        `newest_series`: the newest series that Kafka has a record of.
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
        low = new.low_quotes
        if low is None or not low.quotes or low.below != new.last_update_id:
            return
        if new.quote_series < new.id_series:  # otherwise they have begun again already, and these only lag
            self._begin_quote_series(new, low)

    def join_series(self, flow: SymbolFlow, resume: Callable[[SymbolFlow], None]) -> None:
        """Go on in the series that another worker has begun, from its checkpoint, as a new process would.

        `resume`: what has a symbol go on from what Kafka holds. Whether what is held belongs to that series, or the
        ids have begun again since, shows by the same rule as ever.
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
        """Take trades that were held back as if they came now."""
        now_us, batch = self._now_us(), next(self._numbers)
        records: list[Record] = []
        newest: dict[str, int] = {}
        gap_flows: dict[str, SymbolFlow] = {}
        if held:
            self._recent.add(list(held))
        for trade in held:
            self._process_out_of_order(flow, trade, records, newest, gap_flows, batch, now_us)
        if records:
            settled = self._on_acknowledged(gap_flows, batch)
            self._publisher.publish(self._counters.trades, records, now_us, newest, settled)

    def _end_series(self, flow: SymbolFlow) -> None:
        """Publish what waits of a series that ends; nobody looks for what is missing of it any more."""
        flow.suspected_reset = None
        self._publish_first_trades(flow)
        self.flush(flow)
        for entry in flow.gaps:
            if entry.state == "unresolved":
                entry.proof = SERIES_ENDED
                self._publish_gap(flow, entry)
        self._unacknowledged_gaps[flow.symbol] = {}  # the new series' checkpoint does not wait for those

    def _successor(self, flow: SymbolFlow, **fields: Any) -> SymbolFlow:
        """Return what takes the place of `flow` in another series; `fields`: what it begins with."""
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

    def _hold_low_quote(self, flow: SymbolFlow, quote: BookTicker) -> None:
        low = flow.low_quotes
        if low is None or low.below != flow.last_update_id:
            low = flow.low_quotes = LowQuotes(flow.last_update_id, self._monotonic())
        if quote.update_id < low.below and low.hold(quote) and low.is_decided():
            self.on_suspected_reset()

    def low_quotes_due(self) -> list[tuple[SymbolFlow, LowQuotes]]:
        """The symbols whose quotes have stayed below the newest update id for long enough."""
        now, found = self._monotonic(), []
        for flow in self.flows.values():
            low = flow.low_quotes
            if low is None:
                continue
            low.observe(now)
            if low.below != flow.last_update_id:
                flow.low_quotes = None  # a higher one has come
                self._end_lagging(flow.symbol)
            elif low.is_decided():
                found.append((flow, low))
        return found

    def decide_quotes(
        self, flow: SymbolFlow, low: LowQuotes, decision: SeriesDecision, known: QuoteProgress | None = None
    ) -> None:
        """Begin a new series with the quotes that are held, or leave them out: they are of a connection that lags.

        `known`: the checkpoint of the newest series of quotes that Kafka has a record of.
        """
        is_ours = self.flows.get(flow.symbol) is flow and flow.low_quotes is low
        if not is_ours or low.below != flow.last_update_id:
            return
        if decision is SeriesDecision.RESTARTED:
            self._begin_quote_series(flow, low, known)
        else:
            lagging = self._lagging.setdefault(
                flow.symbol, logs.Episode(log, "quotes lagging", "quotes no longer lagging", self._monotonic)
            )
            lagging.begin(symbol=flow.symbol, update_id=low.quotes[-1].update_id, newest_id=low.below)
            flow.low_quotes = LowQuotes(low.below, self._monotonic())

    def _end_lagging(self, symbol: str) -> None:
        lagging = self._lagging.pop(symbol, None)
        if lagging is not None:
            lagging.end(symbol=symbol)

    def _begin_quote_series(
        self, flow: SymbolFlow, low: LowQuotes, known: QuoteProgress | None = None
    ) -> None:
        flow.low_quotes = None
        self._end_lagging(flow.symbol)
        if known is not None and known.id_series > flow.quote_series:
            # Another worker has begun a series. Ids that go on from its newest are of that, lower ones of the next.
            goes_on = low.quotes[-1].update_id >= known.update_id
            flow.quote_series = known.id_series if goes_on else known.id_series + 1
        else:
            flow.quote_series += 1
        flow.encode_quote = encoder(flow.quote_series)
        flow.last_update_id = low.quotes[-1].update_id
        self._counters.quotes.outdated -= len(low.quotes)
        self._counters.series_begun["book_ticker", flow.symbol] += 1
        log.error(
            "quote id reset detected",
            symbol=flow.symbol,
            id_series=flow.quote_series,
            first_id=low.quotes[0].update_id,
            after_id=low.below,
        )
        records: list[Record] = [{"value": flow.encode_quote(quote), "key": flow.key} for quote in low.quotes]
        self._publisher.publish(self._counters.quotes, records, self._now_us(), {})

    def _pause(self) -> None:
        if not self.paused:
            self._counters.paused_reads += 1
            self._reads_paused.begin(pending=self._publisher.pending)
            for socket in self._sockets:
                socket.pause_reading()


def _is_reordered(entry: GapEntry) -> bool:
    """Whether its trades only came in another order, before anybody was told."""
    return entry.is_settled and entry.proof == FROM_STREAM and not entry.has_record


def _is_done(entry: GapEntry) -> bool:
    return entry.is_settled and (_is_reordered(entry) or not entry.is_due)


def _ignore(_symbol: str) -> None:
    """Nobody repairs, or has noted anything of the ids."""


def _ignore_reset() -> None:
    """Nobody asks the venue."""


def _do_nothing() -> None:
    """Nobody looks at the venue's clock."""
