"""trades: one row per trade; the key is (venue, symbol, id_series, trade_id)."""

from collections.abc import Sequence
from typing import Any, Final

from marketfeed_consumers.database.tables import text
from marketfeed_consumers.planning.stored_ranges import Key
from marketfeed_wire import Trade

NAME: Final = "trades"
ID: Final = "trade_id"
KEY: Final = ("venue", "symbol", "id_series")
COLUMNS: Final = KEY + tuple(
    name for name in Trade.__struct_fields__ if name != "schema_version" and name not in KEY
)

COPY: Final = f"COPY trades ({', '.join(COLUMNS)}) FROM STDIN"

STORED: Final = """
SELECT trade_id, price, qty, buyer_is_maker, trade_time_us FROM trades
WHERE venue = %s AND symbol = %s AND id_series = %s AND trade_id = ANY(%s)
"""
"""Select the content of the given ids that are in the table."""


def stored(key: Key, row: Sequence[Any]) -> Trade:
    """Return a row of `STORED` as a trade; only the fields of its content are set."""
    venue, symbol, id_series = key
    trade_id, price, qty, buyer_is_maker, trade_time_us = row
    return Trade(
        venue, symbol, trade_id, str(price), str(qty), buyer_is_maker, trade_time_us, None, 0, id_series=id_series
    )  # fmt: skip


def copy_text(key: Key, trades: Sequence[Trade]) -> str:
    """Return the rows of one symbol in COPY's text format."""
    names, null = text.prefix(*key), text.NULL
    return "".join(
        [
            f"{names}{t.trade_id}\t{t.price}\t{t.qty}\t{'t' if t.buyer_is_maker else 'f'}\t{t.trade_time_us}\t"
            f"{null if t.event_time_us is None else t.event_time_us}\t{t.received_time_us}\t{t.origin}\n"
            for t in trades
        ]
    )
