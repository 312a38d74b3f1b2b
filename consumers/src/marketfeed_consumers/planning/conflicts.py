"""Conflicts: messages with the id of a stored row and another content; logged as episodes by symbol.

Content is a trade's time, price, quantity and side, and a quote's prices and quantities: see `wire.identity`.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from marketfeed_service import logs
from marketfeed_wire import BookTicker, Trade

log = logs.get(__name__)

M = TypeVar("M", Trade, BookTicker)

QUIET_SECONDS: Final = 60.0
"""An episode of a symbol's conflicts ends after this time without one."""


class Conflict(NamedTuple, Generic[M]):
    """A message whose id is stored with another content."""

    received: M
    stored: M


class ConflictLog:
    """Log of conflicts: one line when those of a symbol begin, and one when they have ended."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._episodes: dict[tuple[str, str], tuple[logs.Episode, float]] = {}

    def note(self, conflicts: Iterable[Conflict[Trade] | Conflict[BookTicker]]) -> None:
        """Record conflicts that were stored just now."""
        for received, stored in conflicts:
            table = "trades" if isinstance(received, Trade) else "book_tickers"
            key = (table, received.symbol)
            episode, _ = self._episodes.get(key, (None, 0.0))
            if episode is None:
                episode = logs.Episode(
                    log, "conflicting messages received", "conflicting messages ended", self._monotonic
                )
            self._episodes[key] = (episode, self._monotonic())
            episode.begin(
                table=table,
                symbol=received.symbol,
                id_series=received.id_series,
                id=_id(received),
                received=_content(received),
                stored=_content(stored),
            )

    def look(self) -> None:
        """End the episodes of symbols without recent conflicts."""
        if self._episodes:
            now = self._monotonic()
            for (table, symbol), (episode, last) in list(self._episodes.items()):
                if now - last >= QUIET_SECONDS:
                    episode.end(table=table, symbol=symbol)
                    del self._episodes[table, symbol]


def _id(message: Trade | BookTicker) -> int:
    return message.trade_id if isinstance(message, Trade) else message.update_id


def _content(message: Trade | BookTicker) -> str:
    if isinstance(message, Trade):
        side = "buyer is maker" if message.buyer_is_maker else "seller is maker"
        return f"{message.qty} at {message.price}, {side}, {message.trade_time_us} us"
    return f"{message.bid_qty} at {message.bid_price} / {message.ask_qty} at {message.ask_price}"
