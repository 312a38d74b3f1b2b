"""The hot path: what one socket read delivered → messages → continuity → Kafka.

A plain call from the socket's callback, without a queue, a task or a wait a message. Back-pressure is a decision of
this module: when Kafka's queue is full every socket stops being read until half of it is acknowledged.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from marketfeed_chassis import logs
from marketfeed_wire import BookTicker, Progress, Trade, encode, gap_key, key_for, progress_key
from marketfeed_workers.continuity import IncreasingIds, TradeSequence
from marketfeed_workers.counters import Counters
from marketfeed_workers.flow import SymbolFlow
from marketfeed_workers.gaps import FROM_STREAM, GapEntry
from marketfeed_workers.publisher import Publisher, Record
from marketfeed_workers.transports.socket import Socket
from marketfeed_workers.venues.venue import Fetched, Reply, ShutdownNotice, Venue

log = logs.get(__name__)


class Pipeline:
    """Turns frames into published messages, for all connections of a worker.

    Attributes:
        flows: the symbols that are read.
        paused: sockets are not read, and nothing should be fetched, until Kafka acknowledges.
        on_hole: called with a symbol whose trade ids jumped.
        untold_gaps: symbol -> words on its gaps that Kafka has not acknowledged: its progress must not pass them.
    """

    MOST_BEGINNING: Final = 1000
    """First trades of a symbol that wait for Kafka's word; more go on without it, so that memory stays bounded."""

    def __init__(
        self, venue: Venue, publisher: Publisher, counters: Counters, now_us: Callable[[], int]
    ) -> None:
        self.flows: dict[str, SymbolFlow] = {}
        self.paused = False
        self.on_hole: Callable[[str], None] = _ignore
        self.untold_gaps: Counter[str] = Counter()
        self._venue = venue.facts.name
        self._read_all = venue.read_all
        self._contiguous = venue.facts.trade_ids == "contiguous"
        self._publisher = publisher
        self._counters = counters
        self._now_us = now_us
        self._sockets: dict[Socket, None] = {}  # in the order of their opening
        self._due: list[Callable[[], None]] = []

    def add_symbol(self, symbol: str) -> SymbolFlow:
        """Take the symbol's messages from now on."""
        sequence = TradeSequence() if self._contiguous else IncreasingIds()
        return self.flows.setdefault(symbol, SymbolFlow(symbol, key_for(symbol), sequence))

    def remove_symbol(self, symbol: str) -> None:
        """Its messages are no longer ours; what waits behind a hole goes out first."""
        flow = self.flows.get(symbol)
        if flow is not None:
            self._go_on_from_beginning(flow)
            self.give_up(flow)
            del self.flows[symbol]

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
            log.warning("frame passed over", reason=str(error))
        if batch.trades:
            self._publish_trades(batch.trades, now_us)
        if batch.quotes:
            self._publish_quotes(batch.quotes, now_us)
        self._publisher.poll()
        if self._due:
            self.go_on()
        if self._publisher.full:
            self._pause()
        return batch.notices

    def poll(self) -> None:
        """Take in acknowledgements while no frames come; read again when there is room."""
        self._publisher.poll()
        self.go_on()
        if self.paused and self._publisher.has_room:
            self.paused = False
            log.info("reading again", pending=self._publisher.pending)
            for socket in list(self._sockets):
                socket.resume_reading()
                if self.paused:  # what this one had held back filled the queue again
                    break

    def go_on(self) -> None:
        """Do what waited for acknowledgements that have come. Not in their callback: that may not produce."""
        due, self._due[:] = list(self._due), []
        for each in due:
            each()

    def backfill(self, flow: SymbolFlow, fetched: Fetched) -> int:
        """Publish trades that were fetched; the number of ids that are no longer missing."""
        now_us = self._now_us()
        if self._is_new(flow, fetched.trades):
            for trade in fetched.trades:
                self._begin(flow, trade, now_us)
            return 0
        missing_before = flow.missing
        self._publish_ready(flow, flow.take_fetched(fetched, now_us), now_us)
        self._tell_gaps(flow)
        if self._publisher.full:
            self._pause()
        return missing_before - flow.missing

    def give_up(self, flow: SymbolFlow) -> None:
        """Go on without the ids that are missing; they stay wanted."""
        now_us = self._now_us()
        self._publish_ready(flow, flow.sequence.give_up(), now_us)
        self._tell_gaps(flow)

    def _publish_trades(self, trades: list[Trade], now_us: int) -> None:
        records: list[Record] = []
        newest: dict[str, int] = {}
        filling: list[SymbolFlow] = []
        flows = self.flows
        counters = self._counters.trades
        counters.received += len(trades)
        for trade in trades:
            flow = flows.get(trade.symbol)
            if flow is None:
                self._counters.unexpected += 1
                continue
            flow.trades += 1
            sequence = flow.sequence
            if trade.trade_id == sequence.expected and not sequence.waiting:
                # The straight way, inlined because nearly every trade takes it: the next id, and nothing waits.
                sequence.expected += 1
                records.append({"value": encode(trade), "key": flow.key})
                newest[flow.symbol] = trade.trade_id
                flow.last_trade_time_us = trade.trade_time_us
            else:
                self._take_in_order(flow, trade, records, newest, filling, now_us)
        last = trades[-1]
        if last.event_time_us is not None and last.origin == "stream":
            counters.venue_to_socket.observe(
                max(0, now_us - last.event_time_us + self._counters.clock_offset_us), 1
            )
        if records:
            self._publisher.publish(counters, records, now_us, newest, self._once_acknowledged(filling))

    def _take_in_order(
        self,
        flow: SymbolFlow,
        trade: Trade,
        records: list[Record],
        newest: dict[str, int],
        filling: list[SymbolFlow],
        now_us: int,
    ) -> None:
        """A trade that is not simply the next: a jump, a repeat, or one that fills a hole."""
        if self._is_new(flow, [trade]):
            self._begin(flow, trade, now_us)
            return
        ready = flow.take(trade, now_us)
        for each in ready:
            records.append({"value": encode(each), "key": flow.key})
            newest[flow.symbol] = max(each.trade_id, newest.get(flow.symbol, -1))
            flow.last_trade_time_us = each.trade_time_us
        if ready:
            flow.filling += 1
            filling.append(flow)
        self._tell_gaps(flow)

    def _is_new(self, flow: SymbolFlow, trades: list[Trade]) -> bool:
        """Whether nobody knows of the symbol yet, here or in Kafka; before id 0 there is nothing to remember."""
        return self._contiguous and flow.sequence.expected is None and bool(trades and trades[0].trade_id)

    def _begin(self, flow: SymbolFlow, trade: Trade, now_us: int) -> None:
        """Take a symbol's first ever trades: Kafka is told where it begins before it gets them.

        Otherwise a worker that is killed when the first trade is stored and no progress told leaves no trace: the
        next one would begin anew, from its own first trade, and what came between would be missing unnoticed.
        """
        flow.beginning.append(trade)
        if len(flow.beginning) == 1:
            word = Progress(self._venue, flow.symbol, trade.trade_id - 1, now_us)
            record: Record = {"value": encode(word), "key": progress_key(self._venue, flow.symbol)}
            begun = partial(self._due.append, partial(self._go_on_from_beginning, flow))
            self._publisher.publish(self._counters.progress, [record], now_us, {}, begun)
        elif len(flow.beginning) >= self.MOST_BEGINNING:
            self._due.append(partial(self._go_on_from_beginning, flow))

    def _go_on_from_beginning(self, flow: SymbolFlow) -> None:
        """Publish the first trades of a symbol of which Kafka has word; nothing where it has begun already."""
        trades, flow.beginning = flow.beginning, []
        now_us = self._now_us()
        ready = [each for trade in trades for each in flow.take(trade, now_us)]
        self._publish_ready(flow, ready, now_us)
        if ready:
            flow.last_trade_time_us = ready[-1].trade_time_us
        self._tell_gaps(flow)

    def _publish_ready(self, flow: SymbolFlow, ready: list[Trade], now_us: int) -> None:
        if ready:
            flow.filling += 1
            records: list[Record] = [{"value": encode(trade), "key": flow.key} for trade in ready]
            newest = {flow.symbol: max(trade.trade_id for trade in ready)}
            self._publisher.publish(
                self._counters.trades, records, now_us, newest, self._once_acknowledged([flow])
            )

    def _once_acknowledged(self, filling: list[SymbolFlow]) -> Callable[[], None] | None:
        """What is called when Kafka has trades that fill gaps of these flows."""
        return partial(self._filled, filling) if filling else None

    def _filled(self, flows: list[SymbolFlow]) -> None:
        for flow in flows:
            flow.filling -= 1
            if flow.settled and not flow.filling:
                self._due.append(partial(self._tell_settled, flow))

    def _publish_quotes(self, quotes: list[BookTicker], now_us: int) -> None:
        counters = self._counters.quotes
        counters.received += len(quotes)
        if self._publisher.is_pressed:
            # Under pressure only the newest quote of a symbol is worth the room; trades are never left out.
            newest_only = {quote.symbol: quote for quote in quotes}
            counters.conflated += len(quotes) - len(newest_only)
            quotes = list(newest_only.values())
        records: list[Record] = []
        flows = self.flows
        for quote in quotes:
            flow = flows.get(quote.symbol)
            if flow is None:
                self._counters.unexpected += 1
                continue
            flow.quotes += 1
            if quote.update_id > flow.last_update_id:
                flow.last_update_id, flow.last_quote = quote.update_id, quote
                records.append({"value": encode(quote), "key": flow.key})
            else:
                counters.outdated += 1
        if records:
            self._publisher.publish(counters, records, now_us, {})

    def _tell_gaps(self, flow: SymbolFlow) -> None:
        """Count jumps and have them repaired; count, log and publish every gap that changed its state.

        That a gap is settled is told only once Kafka has the trades that settled it: nobody looks for them afterwards.
        """
        if flow.jumps:
            self._counters.gaps_opened += flow.jumps
            flow.jumps = 0
            self.on_hole(flow.symbol)
        for entry in flow.judge_gaps():
            is_reordered = entry.is_settled and entry.proof == FROM_STREAM and not entry.is_told
            self._counters.gap_outcomes["reordered" if is_reordered else entry.state] += 1
            if is_reordered:
                continue
            self.untold_gaps[flow.symbol] += 1
            if entry.is_settled and flow.filling:
                flow.settled.append(entry)
            else:
                self._tell_gap(flow, entry)

    def _tell_settled(self, flow: SymbolFlow) -> None:
        entries, flow.settled = flow.settled, []
        for entry in entries:
            self._tell_gap(flow, entry)

    def _tell_gap(self, flow: SymbolFlow, entry: GapEntry) -> None:
        message = entry.message(
            self._venue, flow.symbol, flow.sequence, self._now_us(), self._publisher.most_ranges
        )
        write = log.error if entry.state == "unresolved" else log.warning
        write(
            f"gap in the trade ids {entry.state}",
            symbol=flow.symbol,
            first_id=entry.ids.first,
            last_id=entry.ids.last,
            count=entry.ids.size,
            proof=entry.proof,
        )
        entry.is_told, entry.told_time_us = True, message.updated_time_us

        def told() -> None:
            self.untold_gaps[flow.symbol] -= 1

        record: Record = {"value": encode(message), "key": gap_key(message)}
        self._publisher.publish(self._counters.gaps, [record], self._now_us(), {}, told)

    def _pause(self) -> None:
        if not self.paused:
            self.paused = True
            self._counters.paused_reads += 1
            for socket in self._sockets:
                socket.pause_reading()
            log.warning("reading paused until Kafka acknowledges", pending=self._publisher.pending)


def _ignore(_symbol: str) -> None:
    """Nobody repairs."""
