"""The hot path: what one socket read delivered → messages → continuity → Kafka.

A plain call from the socket's callback, without a queue, a task or a wait a message. Back-pressure is a decision of
this module: when Kafka's queue is full every socket stops being read until half of it is acknowledged.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from marketfeed_chassis import logs
from marketfeed_wire import BookTicker, Trade, encode, key_for
from marketfeed_workers.continuity import TradeSequence
from marketfeed_workers.counters import Counters
from marketfeed_workers.errors import BadFrame
from marketfeed_workers.publisher import Publisher, Record
from marketfeed_workers.transports.socket import Socket
from marketfeed_workers.venues.venue import Reply, ShutdownNotice, Venue

log = logs.get(__name__)


@dataclass(slots=True)
class SymbolFlow:
    """What the worker knows of one symbol, whichever connection brings it."""

    symbol: str
    key: bytes
    sequence: TradeSequence = field(default_factory=TradeSequence)
    trades: int = 0
    quotes: int = 0
    last_trade_time_us: int | None = None
    last_update_id: int = -1


class Pipeline:
    """Turns frames into published messages, for all connections of a worker."""

    def __init__(
        self,
        venue: Venue,
        publisher: Publisher,
        counters: Counters,
        symbols: list[str],
        now_us: Callable[[], int],
    ) -> None:
        self.flows = {symbol: SymbolFlow(symbol, key_for(symbol)) for symbol in symbols}
        self.paused = False
        self._read = venue.read
        self._contiguous = venue.facts.trade_ids == "contiguous"
        self._publisher = publisher
        self._counters = counters
        self._now_us = now_us
        self._sockets: set[Socket] = set()

    def attach(self, socket: Socket) -> None:
        """A socket whose frames come here, so that it can be held back."""
        self._sockets.add(socket)
        if self.paused:
            socket.pause_reading()

    def detach(self, socket: Socket) -> None:
        """That socket has ended."""
        self._sockets.discard(socket)

    def process(self, frames: list[bytes]) -> list[Reply | ShutdownNotice]:
        """Publish what `frames`, delivered by one read, hold; returns what concerns the connection itself."""
        now_us = self._now_us()
        trades: list[Trade] = []
        quotes: list[BookTicker] = []
        notices: list[Reply | ShutdownNotice] = []
        read = self._read
        for frame in frames:
            try:
                event = read(frame, now_us)
            except BadFrame as error:
                self._counters.failures[error.reason] += 1
                log.warning("frame passed over", reason=str(error))
                continue
            if isinstance(event, Trade):
                trades.append(event)
            elif isinstance(event, BookTicker):
                quotes.append(event)
            elif event is not None:
                notices.append(event)
        if trades:
            self._counters.trades.received += len(trades)
            self._publish_trades(trades, now_us)
        if quotes:
            self._counters.quotes.received += len(quotes)
            self._publish_quotes(quotes, now_us)
        self._publisher.poll()
        if self._publisher.full:
            self._pause()
        return notices

    def poll(self) -> None:
        """Take in acknowledgements while no frames come; read again when there is room."""
        self._publisher.poll()
        if self.paused and self._publisher.has_room:
            self.paused = False
            for socket in self._sockets:
                socket.resume_reading()
            log.info("reading again", pending=self._publisher.pending)

    def _publish_trades(self, trades: list[Trade], now_us: int) -> None:
        records: list[Record] = []
        newest: dict[str, int] = {}
        flows = self.flows
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
                for ready in self._in_order(flow, trade):
                    records.append({"value": encode(ready), "key": flow.key})
                    newest[flow.symbol] = max(ready.trade_id, newest.get(flow.symbol, -1))
                    flow.last_trade_time_us = ready.trade_time_us
        if records:
            self._publisher.publish(self._counters.trades, records, now_us, newest)

    def _publish_quotes(self, quotes: list[BookTicker], now_us: int) -> None:
        records: list[Record] = []
        flows = self.flows
        for quote in quotes:
            flow = flows.get(quote.symbol)
            if flow is None:
                self._counters.unexpected += 1
                continue
            flow.quotes += 1
            if quote.update_id > flow.last_update_id:
                flow.last_update_id = quote.update_id
                records.append({"value": encode(quote), "key": flow.key})
            else:
                self._counters.quotes.outdated += 1
        if records:
            self._publisher.publish(self._counters.quotes, records, now_us, {})

    def _in_order(self, flow: SymbolFlow, trade: Trade) -> list[Trade]:
        """What may be published now that a trade came which is not simply the next."""
        if not self._contiguous:
            return [trade]
        ready = flow.sequence.arrive(trade)
        for hole in flow.sequence.holes():
            self._counters.gaps += 1
            log.warning(
                "trade ids are missing",
                symbol=flow.symbol,
                first_id=hole.first,
                last_id=hole.last,
                count=len(hole),
            )
        return ready + flow.sequence.give_up()

    def _pause(self) -> None:
        if not self.paused:
            self.paused = True
            self._counters.paused_reads += 1
            for socket in self._sockets:
                socket.pause_reading()
            log.warning("reading paused until Kafka acknowledges", pending=self._publisher.pending)
