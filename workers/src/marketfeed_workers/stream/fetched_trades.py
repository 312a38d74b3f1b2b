"""Publishing of trades that were fetched over REST."""

from marketfeed_workers.stream.first_trades import FirstTrades
from marketfeed_workers.stream.id_resets import IdResets
from marketfeed_workers.stream.id_series import FRESH_US, MS_US
from marketfeed_workers.stream.parts import StreamParts
from marketfeed_workers.stream.rejected_messages import RejectedMessages
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.stream.trade_publisher import TradePublisher
from marketfeed_workers.venues.venue import Fetched


class FetchedTrades:
    """Publishes fetched trades; see `publish`."""

    def __init__(
        self,
        parts: StreamParts,
        trades: TradePublisher,
        first_trades: FirstTrades,
        resets: IdResets,
        rejected: RejectedMessages,
    ) -> None:
        """Set the parts of the pipeline.

        Args:
            parts: what all parts share.
            trades: publishes trades.
            first_trades: begins series.
            resets: decides to which series the trades belong.
            rejected: publishes invalid rows and impossible times.
        """
        self._parts = parts
        self._trades = trades
        self._first_trades = first_trades
        self._resets = resets
        self._rejected = rejected

    def publish(self, flow: SymbolFlow, fetched: Fetched) -> int:
        """Publish fetched trades; return the number of ids that are no longer missing."""
        if self._parts.flows.get(flow.symbol) is not flow:
            return 0  # the symbol was removed, or its ids were reset, during the request
        now_us = self._parts.now_us()
        self._rejected.publish_rows(flow, fetched.refused, now_us)
        fetched = self._rejected.without_impossible(flow, fetched, now_us)
        if self._first_trades.is_new(flow, fetched.trades):
            for trade in fetched.trades:
                self._first_trades.begin(flow, trade, now_us)
            return 0
        if _is_of_new_series(flow, fetched, self._parts.clock.time_us()):
            # Published, they would fill gaps of the old series. If they do belong to it they are fetched again.
            self._resets.suspect(flow)
            return 0
        missing_before = flow.missing
        known = [trade for trade in fetched.trades if flow.sequence.is_known(trade.trade_id)]
        if known:
            fetched = fetched._replace(trades=[trade for trade in fetched.trades if trade not in known])
        ready = flow.accept_fetched(fetched, now_us)
        if fetched.trades:
            self._trades.recent.add(list(fetched.trades))  # the stream may deliver them later, as duplicates
        self._trades.publish(
            flow, ready + [trade for trade in known if self._trades.is_unproven(flow, trade)], now_us
        )
        self._parts.gaps.publish(flow)
        if self._parts.publisher.full:
            self._parts.reads.pause()
        return missing_before - flow.missing


def _is_of_new_series(flow: SymbolFlow, fetched: Fetched, now_us: int) -> bool:
    """Return whether a fetched trade has a lower id and a later time than the newest: a possible id reset."""
    newest_us, newest_id = flow.newest_time_us, flow.sequence.newest_received
    if newest_us is None:
        return False
    latest_us = max(newest_us, flow.verified_us) + MS_US
    return any(
        trade.trade_id < newest_id and latest_us < trade.trade_time_us <= now_us - FRESH_US
        for trade in fetched.trades
    )
