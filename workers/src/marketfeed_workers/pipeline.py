"""The hot path: what one socket read delivered → messages → continuity → Kafka.

A plain call from the socket's callback, without a queue, a task or a wait a message. Back-pressure is a decision of
this module: when Kafka's queue is full every socket stops being read until half of it is acknowledged.
"""

from collections.abc import Callable
from functools import partial
from itertools import count
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
    """

    MOST_BEGINNING: Final = 1000
    """First trades of a symbol that wait for Kafka's word; more go on without it, so that memory stays bounded."""

    def __init__(
        self, venue: Venue, publisher: Publisher, counters: Counters, now_us: Callable[[], int]
    ) -> None:
        self.flows: dict[str, SymbolFlow] = {}
        self.paused = False
        self.on_hole: Callable[[str], None] = _ignore
        self._untold_gaps: dict[str, dict[int, int]] = {}
        """Symbol -> first records of its gaps that Kafka has not acknowledged, by number -> the first id of each."""
        self._left: dict[str, int] = {}
        self._numbers = count()
        self._to_judge: list[SymbolFlow] = []
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
            self._left[symbol] = flow.resumed_id
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
        if self._due or self._to_judge:
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
        flows, self._to_judge[:] = list(self._to_judge), []
        for flow in flows:
            flow.is_to_judge = False
            self._tell_gaps(flow)

    def checkpoint(self, symbol: str, acknowledged_id: int) -> int:
        """How far a symbol may be told to be stored: up to the first gap of which Kafka has no record yet."""
        untold = self._untold_gaps.get(symbol, {}).values()
        return min([acknowledged_id, *(first_id - 1 for first_id in untold)])

    def resumed_id(self, symbol: str) -> int:
        """The trade id that a symbol went on after, also once it has left; -1 where it began anew."""
        flow = self.flows.get(symbol)
        return flow.resumed_id if flow is not None else self._left.get(symbol, -1)

    def publish_gap_changes(self) -> None:
        """Publish what has changed in gaps without changing their states, such as a part that was filled."""
        for flow in self.flows.values():
            if flow.gaps:
                self._tell_gaps(flow, with_parts=True)

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
        filling: dict[str, SymbolFlow] = {}
        batch = next(self._numbers)
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
            if (
                trade.trade_id == sequence.expected
                and not sequence.waiting
                and trade.trade_id > flow.known_to
            ):
                # The straight way, inlined because nearly every trade takes it: the next id, and nothing waits.
                sequence.expected += 1
                records.append({"value": encode(trade), "key": flow.key})
                newest[flow.symbol] = trade.trade_id
                flow.last_trade_time_us = trade.trade_time_us
            else:
                self._take_in_order(flow, trade, records, newest, filling, batch, now_us)
        last = trades[-1]
        if last.event_time_us is not None and last.origin == "stream":
            counters.venue_to_socket.observe(
                max(0, now_us - last.event_time_us + self._counters.clock_offset_us), 1
            )
        if records:
            self._publisher.publish(
                counters, records, now_us, newest, self._once_acknowledged(filling, batch)
            )

    def _take_in_order(
        self,
        flow: SymbolFlow,
        trade: Trade,
        records: list[Record],
        newest: dict[str, int],
        filling: dict[str, SymbolFlow],
        batch: int,
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
        if ready and flow.note_published(batch, ready):
            filling[flow.symbol] = flow
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
            batch = next(self._numbers)
            filling = {flow.symbol: flow} if flow.note_published(batch, ready) else {}
            records: list[Record] = [{"value": encode(trade), "key": flow.key} for trade in ready]
            newest = {flow.symbol: max(trade.trade_id for trade in ready)}
            self._publisher.publish(
                self._counters.trades, records, now_us, newest, self._once_acknowledged(filling, batch)
            )

    def _once_acknowledged(self, filling: dict[str, SymbolFlow], batch: int) -> Callable[[], None] | None:
        """What is called when Kafka has trades that fill gaps of these flows."""
        return partial(self._filled, list(filling.values()), batch) if filling else None

    def _filled(self, flows: list[SymbolFlow], batch: int) -> None:
        for flow in flows:
            flow.unacknowledged.pop(batch, None)
            self._judge_soon(flow)

    def _judge_soon(self, flow: SymbolFlow) -> None:
        """Look at the gaps of `flow` outside Kafka's callback, once however many acknowledgements come together."""
        if not flow.is_to_judge:
            flow.is_to_judge = True
            self._to_judge.append(flow)

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

    def _tell_gaps(self, flow: SymbolFlow, *, with_parts: bool = False) -> None:
        """Count jumps and have them backfilled; count, log and publish every gap that changed its state.

        A record says only what Kafka holds: what was published for a gap counts as missing until it is acknowledged,
        because nobody looks for it afterwards. `with_parts`: publish other changes as well; of a symbol that has
        left they are published at once, since nobody comes back to it.
        """
        if flow.jumps:
            self._counters.gaps_opened += flow.jumps
            flow.jumps = 0
            self.on_hole(flow.symbol)
        if not flow.gaps:
            return
        for entry in flow.judge_gaps():
            outcome = "reordered" if _is_reordered(entry) else entry.state
            self._counters.gap_outcomes[outcome] += 1
        with_parts = with_parts or self.flows.get(flow.symbol) is not flow
        for entry in flow.gaps:
            is_due = entry.is_outdated if with_parts else entry.is_due
            if is_due and not entry.in_flight and not _is_reordered(entry):
                self._tell_gap(flow, entry)
        flow.forget_gaps(is_done=_is_done)

    def _tell_gap(self, flow: SymbolFlow, entry: GapEntry) -> None:
        now_us = self._now_us()
        message = entry.message(self._venue, flow.symbol, now_us, self._publisher.most_ranges)
        if entry.is_due:
            write = log.error if entry.state == "unresolved" else log.warning
            write(
                f"gap in the trade ids {entry.state}",
                symbol=flow.symbol,
                first_id=entry.ids.first,
                last_id=entry.ids.last,
                count=entry.ids.size,
                proof=entry.proof,
            )
        untold, number = self._untold_gaps.setdefault(flow.symbol, {}), next(self._numbers)
        if entry.published is None:
            # Until Kafka has the first record of it nobody else knows of the gap, and the checkpoint must not pass it.
            untold[number] = entry.ids.first
        entry.is_told, entry.told_time_us = True, message.updated_time_us
        entry.published, entry.in_flight = entry.content, True

        def told() -> None:
            entry.in_flight = False
            untold.pop(number, None)
            if not _is_done(entry):
                self._judge_soon(flow)

        record: Record = {"value": encode(message), "key": gap_key(message)}
        self._publisher.publish(self._counters.gaps, [record], now_us, {}, told)

    def _pause(self) -> None:
        if not self.paused:
            self.paused = True
            self._counters.paused_reads += 1
            for socket in self._sockets:
                socket.pause_reading()
            log.warning("reading paused until Kafka acknowledges", pending=self._publisher.pending)


def _is_reordered(entry: GapEntry) -> bool:
    """Whether its trades only came in another order, before anybody was told."""
    return entry.is_settled and entry.proof == FROM_STREAM and not entry.is_told


def _is_done(entry: GapEntry) -> bool:
    return entry.is_settled and (_is_reordered(entry) or not entry.is_due)


def _ignore(_symbol: str) -> None:
    """Nobody repairs."""
