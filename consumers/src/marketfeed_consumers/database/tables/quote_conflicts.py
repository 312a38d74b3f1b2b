"""quote_conflicts: messages that say something else of a stored quote, and what is stored; a row each content.

The key is (venue, symbol, id_series, update_id) and the content; `messages` counts how often it came.
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
"""A conflict is as old as its message, and as the moment when it was noticed."""

_KEY: Final = "venue, symbol, id_series, update_id, bid_price, bid_qty, ask_price, ask_qty"
EXPIRE: Final = f"""
DELETE FROM quote_conflicts WHERE ({_KEY}) IN (
    SELECT {_KEY} FROM quote_conflicts WHERE {OLDEST} >= %(earliest_us)s AND {NEWEST} < %(before_us)s LIMIT %(limit)s
)
"""  # noqa: S608 - names of columns, all ours


def parameters(received: BookTicker, stored: BookTicker, now_us: int) -> list[object]:
    """What `ADD` takes."""
    return [
        *(getattr(received, name) for name in book_tickers.COLUMNS),
        *(getattr(stored, name) for name in _STORED),
        now_us,
    ]
