"""quote_conflicts: messages with the id of a stored quote and another content, and the stored content.

The key is (venue, symbol, id_series, update_id) and the content; `messages` counts its messages.
"""

from typing import Final

from marketfeed_consumers.database.tables import book_tickers
from marketfeed_wire import BookTicker

NAME: Final = "quote_conflicts"
_STORED: Final = ("bid_price", "bid_qty", "ask_price", "ask_qty")
_COLUMNS: Final = (*book_tickers.COLUMNS, *(f"stored_{name}" for name in _STORED), "noticed_time_us")

ADD: Final = f"""
INSERT INTO quote_conflicts AS held ({", ".join(_COLUMNS)}, messages)
VALUES ({", ".join(["%s"] * len(_COLUMNS))}, 1)
ON CONFLICT (venue, symbol, id_series, update_id, bid_price, bid_qty, ask_price, ask_qty)
DO UPDATE SET messages = held.messages + 1
"""  # noqa: S608 - names of columns, all ours

OLDEST: Final = "received_time_us"
NEWEST: Final = "greatest(received_time_us, noticed_time_us)"
"""The age of a conflict is that of its message, at most that of its detection."""

_KEY: Final = "venue, symbol, id_series, update_id, bid_price, bid_qty, ask_price, ask_qty"
EXPIRE: Final = f"""
DELETE FROM quote_conflicts WHERE ({_KEY}) IN (
    SELECT {_KEY} FROM quote_conflicts WHERE {OLDEST} >= %(earliest_us)s AND {NEWEST} < %(before_us)s LIMIT %(limit)s
)
"""  # noqa: S608 - names of columns, all ours


def parameters(received: BookTicker, stored: BookTicker, now_us: int) -> list[object]:
    """Return the parameters of `ADD`.

    Args:
        received: the conflicting message.
        stored: the stored quote.
        now_us: time of the detection.
    """
    return [
        *(getattr(received, name) for name in book_tickers.COLUMNS),
        *(getattr(stored, name) for name in _STORED),
        now_us,
    ]
