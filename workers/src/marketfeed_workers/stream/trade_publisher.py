"""Publishing of trades that are not on the fast path of the pipeline, and comparison with recent ones."""

from itertools import count

from marketfeed_wire import Trade, same_trade
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.stream.parts import StreamParts
from marketfeed_workers.stream.recent_trades import RecentTrades
from marketfeed_workers.stream.symbol_flow import SymbolFlow


class TradePublisher:
    """Publishes trades of one symbol at a time.

    Attributes:
        recent: recent trades, to compare duplicates with.
        numbers: numbers of the batches.
    """

    def __init__(self, parts: StreamParts) -> None:
        self.recent = RecentTrades()
        self.numbers = count()
        self._parts = parts

    def publish(self, flow: SymbolFlow, ready: list[Trade], now_us: int) -> None:
        """Publish trades of one symbol that need no further check."""
        if ready:
            # Also for fetched trades: later trades are compared with the newest id and time.
            flow.update_last_trade_time(ready)
            batch = next(self.numbers)
            gap_flows = {flow.symbol: flow} if flow.track_gap_trades(batch, ready) else {}
            records: list[Record] = [{"value": flow.encode(trade), "key": flow.key} for trade in ready]
            newest = {flow.series_key: max(trade.trade_id for trade in ready)}
            self._parts.publisher.publish(
                self._parts.counters.trades,
                records,
                now_us,
                newest,
                self._parts.gaps.on_acknowledged(gap_flows, batch),
            )

    def is_unproven(self, flow: SymbolFlow, trade: Trade) -> bool:
        """Return whether a trade with a known id has other content, or no copy is left to compare it with.

        It is then published, so that consumers compare it with the stored one.
        """
        first = self.recent.find(trade.symbol, trade.trade_id)
        if first is not None and first is not trade:
            if same_trade(first, trade):
                flow.sequence.duplicates += 1
                return False
            flow.conflicts += 1
        else:
            flow.unproven += 1
        return True

    def flush(self, flow: SymbolFlow) -> None:
        """Flush the reorder buffer; the missing ids become unresolved."""
        now_us = self._parts.now_us()
        self.publish(flow, flow.sequence.flush(), now_us)
        self._parts.gaps.publish(flow)
