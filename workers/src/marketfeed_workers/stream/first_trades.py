"""First trades of a series: held until Kafka has acknowledged a checkpoint of the series' start."""

from collections.abc import Callable
from functools import partial
from typing import Final

from marketfeed_wire import Checkpoint, Trade, checkpoint_key, encode
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.stream.parts import StreamParts
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.stream.trade_publisher import TradePublisher

MAX_FIRST_TRADES: Final = 1000
"""Maximum number of first trades held for the acknowledgement of the series' start, to bound memory."""


class FirstTrades:
    """Publishes the start of each series before its trades."""

    def __init__(self, parts: StreamParts, trades: TradePublisher) -> None:
        self._parts = parts
        self._trades = trades

    def is_new(self, flow: SymbolFlow, trades: list[Trade]) -> bool:
        """Return whether the series has no checkpoint yet; a series that begins with id 0 needs none."""
        if flow.first_id is not None:
            return bool(trades)
        return (
            self._parts.contiguous and flow.sequence.expected is None and bool(trades and trades[0].trade_id)
        )

    def begin(self, flow: SymbolFlow, trade: Trade, now_us: int) -> None:
        """Hold a symbol's first trades until Kafka has acknowledged a checkpoint of the series' start.

        Otherwise a worker that is killed after the first trade and before the first checkpoint leaves no trace: the
        next process would begin with its own first trade, and the trades in between would be missing unnoticed.
        """
        flow.first_trades.append(trade)
        if len(flow.first_trades) == 1 and flow.first_id is None:
            self.publish_start(flow, trade.trade_id, now_us, partial(self.publish, flow))
        elif len(flow.first_trades) >= MAX_FIRST_TRADES:
            self._parts.due.append(partial(self.publish, flow))

    def begin_at_rejected(self, flow: SymbolFlow, trade_id: int, now_us: int) -> None:
        """Begin a symbol whose first trade was rejected: its id is the first missing one."""
        flow.first_id = trade_id
        self.publish_start(flow, trade_id, now_us, partial(self._begin_after_rejected, flow))

    def publish_start(
        self, flow: SymbolFlow, first_id: int, now_us: int, on_acknowledged: Callable[[], None]
    ) -> None:
        """Publish a checkpoint of the start of a series; call `on_acknowledged` after its acknowledgement."""
        checkpoint = Checkpoint(
            self._parts.venue,
            flow.symbol,
            max(0, first_id - 1),
            now_us,
            id_series=flow.id_series,
            next_id=first_id if first_id == 0 else None,
        )
        key = checkpoint_key(self._parts.venue, flow.symbol, flow.id_series)
        record: Record = {"value": encode(checkpoint), "key": key}
        self._parts.publisher.publish(
            self._parts.counters.progress,
            [record],
            now_us,
            {},
            partial(self._parts.due.append, on_acknowledged),
        )

    def _begin_after_rejected(self, flow: SymbolFlow) -> None:
        self.publish(flow)
        flow.skip_rejected(self._parts.now_us())
        if flow.missing:
            self._parts.gaps.on_gap(flow.symbol)
        self._parts.gaps.publish(flow)

    def publish(self, flow: SymbolFlow) -> None:
        """Publish the held first trades of a symbol."""
        trades, flow.first_trades = flow.first_trades, []
        now_us = self._parts.now_us()
        if flow.first_id is not None:
            flow.sequence.resume_after(flow.first_id - 1, [])
            flow.first_id = None
        ready: list[Trade] = []
        for trade in trades:
            if not flow.sequence.is_known(trade.trade_id):
                ready += flow.accept(trade, now_us)
            elif self._trades.is_unproven(flow, trade):
                ready.append(trade)
        self._trades.publish(flow, ready, now_us)
        self._parts.gaps.publish(flow)
