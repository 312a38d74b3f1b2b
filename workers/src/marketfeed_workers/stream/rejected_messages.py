"""Publishing of rejected messages: trades with an impossible time and invalid rows of REST."""

from collections.abc import Callable
from typing import Final

from marketfeed_service import logs
from marketfeed_wire import (
    MAX_ID,
    MAX_RAW_BYTES,
    RejectedMessage,
    encode,
)
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.clock import (
    VenueClock,
    is_possible,
)
from marketfeed_workers.venues.venue import Fetched

log = logs.get(__name__)

IMPOSSIBLE_TIME: Final = "impossible_time"
"""Reason of a rejection, in metrics."""


class RejectedMessages:
    """Publishes rejected messages unchanged.

    Args:
        venue: name of the venue.
        publisher: publisher of the messages.
        counters: counters of the worker.
        clock: the venue's clock.
        on_rejected: called when a fetched trade was rejected for its time.
    """

    def __init__(
        self,
        venue: str,
        publisher: Publisher,
        counters: Counters,
        clock: VenueClock,
        on_rejected: Callable[[], None],
    ) -> None:
        self.on_rejected = on_rejected
        self._venue = venue
        self._publisher = publisher
        self._counters = counters
        self._clock = clock

    def publish(
        self, flow: SymbolFlow, trade_id: int | None, reason: str, details: str, raw: bytes, now_us: int
    ) -> None:
        """Publish a rejected message.

        Args:
            flow: the symbol.
            trade_id: id of the trade; None if unknown.
            reason: reason for metrics.
            details: text for people.
            raw: the message as received.
            now_us: wall clock time.
        """
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

    def publish_rows(self, flow: SymbolFlow, refused: tuple[str, ...], now_us: int) -> None:
        """Publish invalid rows of REST as rejected messages, once although REST returns them at each retry."""
        for row in refused:
            if flow.is_first_seen(row):
                reason = IMPOSSIBLE_TIME if row.startswith(IMPOSSIBLE_TIME.replace("_", " ")) else "bad_row"
                self.publish(flow, None, reason, row, row.encode(errors="replace"), now_us)

    def without_impossible(self, flow: SymbolFlow, fetched: Fetched, now_us: int) -> Fetched:
        """Return `fetched` without the trades with an impossible time; their ids stay missing."""
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
                self.publish(flow, trade.trade_id, IMPOSSIBLE_TIME, fault, encode(trade), now_us)
        self.on_rejected()
        return fetched._replace(trades=kept)
