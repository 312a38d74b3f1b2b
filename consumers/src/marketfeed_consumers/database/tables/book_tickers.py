"""book_tickers: one row per quote; the key is (venue, symbol, id_series, update_id)."""

from collections.abc import Sequence
from typing import Any, Final

from marketfeed_consumers.database.tables import text
from marketfeed_consumers.planning.stored_ranges import Key
from marketfeed_wire import BookTicker

NAME: Final = "book_tickers"
ID: Final = "update_id"
KEY: Final = ("venue", "symbol", "id_series")
COLUMNS: Final = KEY + tuple(
    name for name in BookTicker.__struct_fields__ if name != "schema_version" and name not in KEY
)

COPY: Final = f"COPY book_tickers ({', '.join(COLUMNS)}) FROM STDIN"

STORED: Final = """
SELECT update_id, bid_price, bid_qty, ask_price, ask_qty FROM book_tickers
WHERE venue = %s AND symbol = %s AND id_series = %s AND update_id = ANY(%s)
"""
"""Select the content of the given ids that are in the table."""


def stored(key: Key, row: Sequence[Any]) -> BookTicker:
    """Return a row of `STORED` as a quote; only the fields of its content are set."""
    venue, symbol, id_series = key
    update_id, bid_price, bid_qty, ask_price, ask_qty = row
    return BookTicker(
        venue, symbol, update_id, str(bid_price), str(bid_qty), str(ask_price), str(ask_qty), None, 0,
        id_series=id_series,
    )  # fmt: skip


def copy_text(key: Key, quotes: Sequence[BookTicker]) -> str:
    """Return the rows of one symbol in COPY's text format."""
    names, null = text.prefix(*key), text.NULL
    return "".join(
        [
            f"{names}{q.update_id}\t{q.bid_price}\t{q.bid_qty}\t{q.ask_price}\t{q.ask_qty}\t"
            f"{null if q.event_time_us is None else q.event_time_us}\t{q.received_time_us}\n"
            for q in quotes
        ]
    )
