"""The hot path: frames of one socket read → messages → reorder buffer → Kafka.

It runs inside the socket's callback, without a queue, a task or a wait per message. When the queue to Kafka is full
reading is paused on all sockets until half of it is acknowledged.
"""

import time
from collections.abc import Callable

from marketfeed_service import logs
from marketfeed_wire import Trade, key_for
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.back_pressure import BackPressure
from marketfeed_workers.stream.fetched_trades import FetchedTrades
from marketfeed_workers.stream.first_trades import FirstTrades
from marketfeed_workers.stream.gap_publisher import GapPublisher
from marketfeed_workers.stream.id_resets import IdResets
from marketfeed_workers.stream.parts import StreamParts
from marketfeed_workers.stream.quote_publisher import QuotePublisher
from marketfeed_workers.stream.rejected_messages import IMPOSSIBLE_TIME, RejectedMessages
from marketfeed_workers.stream.reorder_buffer import IncreasingIds, ReorderBuffer
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.stream.trade_publisher import TradePublisher
from marketfeed_workers.venues.clock import EARLIEST_US, MAX_EVENT_DELAY_US, TOLERANCE_US, VenueClock
from marketfeed_workers.venues.venue import Reply, ShutdownNotice, Venue

log = logs.get(__name__)


class Pipeline:
    """Publishes the messages of all connections of a worker.

    Attributes:
        flows: the assigned symbols.
        gaps: publisher of gap records.
        quotes: publisher of quotes.
        reads: pauses reading.
        resets: id resets of the symbols.
        fetched: publisher of fetched trades.
        on_gap: called with a symbol with a new gap.
        on_rejected: called when a message was rejected for its time.
    """

    def __init__(
        self,
        venue: Venue,
        publisher: Publisher,
        counters: Counters,
        now_us: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
        clock: VenueClock | None = None,
    ) -> None:
        name = venue.facts.name
        self.flows: dict[str, SymbolFlow] = {}
        self.on_gap: Callable[[str], None] = _ignore
        self.on_rejected: Callable[[], None] = _do_nothing
        self._left: dict[str, int] = {}
        self._read_all = venue.read_all
        self._contiguous = venue.facts.trade_ids == "contiguous"
        self._publisher = publisher
        self._counters = counters
        self._now_us = now_us
        self._clock = clock or VenueClock(now_us, monotonic)
        self._kinds = venue.kinds
        self._due: list[Callable[[], None]] = []
        self.reads = BackPressure(publisher, counters, monotonic)
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
        parts = StreamParts(
            name,
            self._contiguous,
            self.flows,
            publisher,
            counters,
            self._clock,
            now_us,
            monotonic,
            self.gaps,
            self.reads,
            self._due,
        )
        self._rejected = RejectedMessages(name, publisher, counters, self._clock, lambda: self.on_rejected())
        self._trades = TradePublisher(parts)
        self._recent = self._trades.recent
        self._numbers = self._trades.numbers
        self._first_trades = FirstTrades(parts, self._trades)
        self.resets = IdResets(parts, self._trades, self._first_trades, self._process_out_of_order)
        self.fetched = FetchedTrades(parts, self._trades, self._first_trades, self.resets, self._rejected)

    @property
    def paused(self) -> bool:
        """Whether reading and backfill are paused until Kafka acknowledges."""
        return self.reads.paused

    def add_symbol(self, symbol: str) -> SymbolFlow:
        """Accept messages of a symbol from now on."""
        sequence = ReorderBuffer() if self._contiguous else IncreasingIds()
        return self.flows.setdefault(symbol, SymbolFlow(symbol, key_for(symbol), sequence))

    def remove_symbol(self, symbol: str) -> None:
        """Stop accepting messages of a symbol, after flushing its reorder buffer."""
        flow = self.flows.get(symbol)
        if flow is not None:
            self._first_trades.publish(flow)
            self._trades.flush(flow)
            self.quotes.end_lagging(symbol)
            self._left[symbol] = flow.resumed_id
            del self.flows[symbol]
            self.gaps.publish(flow)  # with every change: nobody comes back to it

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
            self.reads.pause()
        return batch.notices

    def poll(self) -> None:
        """Process acknowledgements while no frames arrive; resume reading when there is room."""
        self._publisher.poll()
        self.run_deferred()
        if self.paused and self._publisher.has_room and not self.resets.holds_too_many():
            self.reads.resume()

    def flush(self, flow: SymbolFlow) -> None:
        """Flush the reorder buffer; the missing ids become unresolved."""
        self._trades.flush(flow)

    def run_deferred(self) -> None:
        """Run the work deferred to acknowledgements. Delivery callbacks must not produce."""
        due, self._due[:] = list(self._due), []
        for each in due:
            each()
        self.gaps.run_updates()

    def resumed_id(self, symbol: str) -> int:
        """Return the trade id after which a symbol resumed, also once it is removed; -1 without a checkpoint."""
        flow = self.flows.get(symbol)
        return flow.resumed_id if flow is not None else self._left.get(symbol, -1)

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
                    self._first_trades.begin_at_rejected(flow, trade.trade_id, now_us)
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
            self.resets.decide_by_held(flow)
            return
        if self._first_trades.is_new(flow, [trade]):
            self._first_trades.begin(flow, trade, now_us)
            return
        if flow.sequence.is_known(trade.trade_id):
            if not self._trades.is_unproven(flow, trade):
                return
            if self.resets.looks_like_reset(flow, trade):
                self.resets.hold(flow, trade)
                return
            ready = [trade]
        elif self.resets.is_unverified_gap(flow, trade):
            self.resets.hold(flow, trade, is_gap=True)
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

    def _note_unexpected(self, kind: str, symbol: str) -> None:
        self._counters.unexpected += 1
        log.warning("unexpected message skipped", kind=kind, symbol=symbol)


def _ignore(_symbol: str) -> None:
    """Default of the callbacks with a symbol."""


def _do_nothing() -> None:
    """Default of `on_rejected`."""
