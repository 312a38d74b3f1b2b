"""Helpers shared by the store's statements."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from marketfeed_simtest.consumers.store import Row, Transaction

Found = Sequence[Any] | int
Statement = Callable[[Transaction, Any], Found]
"""Rows of a statement's result, or the number of changed rows."""
SYMBOL: Final = ("venue", "symbol", "id_series")
MARK: Final = ("table_name", "venue", "symbol", "id_series")
MINUTE_US: Final = 60_000_000


def merged_candles(held: Row, new: Row) -> Row:
    """Merge two candles of a minute."""
    sums = ("volume", "quote_volume", "buy_volume", "trade_count")
    return {
        **held,
        **{name: held[name] + new[name] for name in sums},
        "open": new["open"] if new["first_trade_id"] < held["first_trade_id"] else held["open"],
        "close": new["close"] if new["last_trade_id"] > held["last_trade_id"] else held["close"],
        "high": max(held["high"], new["high"]),
        "low": min(held["low"], new["low"]),
        "first_trade_id": min(held["first_trade_id"], new["first_trade_id"]),
        "last_trade_id": max(held["last_trade_id"], new["last_trade_id"]),
    }


def candle_of(rows: Sequence[Row]) -> Row:
    """Return the candle of a minute's trades."""
    by_id = sorted(rows, key=lambda row: row["trade_id"])
    first, last = by_id[0], by_id[-1]
    return {
        **{name: first[name] for name in SYMBOL},
        "open_time_us": first["trade_time_us"] - first["trade_time_us"] % MINUTE_US,
        "open": first["price"], "high": max(row["price"] for row in rows),
        "low": min(row["price"] for row in rows), "close": last["price"],
        "volume": sum(row["qty"] for row in rows),
        "quote_volume": sum(row["price"] * row["qty"] for row in rows),
        "buy_volume": sum((row["qty"] for row in rows if not row["buyer_is_maker"]), Decimal(0)),
        "trade_count": len(rows), "first_trade_id": first["trade_id"], "last_trade_id": last["trade_id"],
    }  # fmt: skip


def age(quote: Row) -> tuple[int, int]:
    """Return the sort key of quotes, by which the newest one of a symbol is found."""
    return quote["id_series"], quote["update_id"]
