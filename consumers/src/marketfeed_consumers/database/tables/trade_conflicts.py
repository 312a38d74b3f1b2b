"""trade_conflicts: messages with the id of a stored trade and another content, and the stored content.

The key is (venue, symbol, id_series, trade_id) and the content; `messages` counts its messages.
"""

from typing import Final

from marketfeed_consumers.database.tables import trades
from marketfeed_wire import Trade

NAME: Final = "trade_conflicts"
_STORED: Final = ("price", "qty", "buyer_is_maker", "trade_time_us")
_COLUMNS: Final = (*trades.COLUMNS, *(f"stored_{name}" for name in _STORED), "noticed_time_us")

ADD: Final = f"""
INSERT INTO trade_conflicts AS held ({", ".join(_COLUMNS)}, messages)
VALUES ({", ".join(["%s"] * len(_COLUMNS))}, 1)
ON CONFLICT (venue, symbol, id_series, trade_id, trade_time_us, price, qty, buyer_is_maker)
DO UPDATE SET messages = held.messages + 1
"""  # noqa: S608 - names of columns, all ours

OLDEST: Final = "least(trade_time_us, stored_trade_time_us)"
NEWEST: Final = "greatest(trade_time_us, stored_trade_time_us, noticed_time_us)"
"""The age of a conflict is that of the younger of both trades, at most that of its detection."""

_KEY: Final = "venue, symbol, id_series, trade_id, trade_time_us, price, qty, buyer_is_maker"
EXPIRE: Final = f"""
DELETE FROM trade_conflicts WHERE ({_KEY}) IN (
    SELECT {_KEY} FROM trade_conflicts WHERE {OLDEST} >= %(earliest_us)s AND {NEWEST} < %(before_us)s LIMIT %(limit)s
)
"""  # noqa: S608 - names of columns, all ours


def parameters(received: Trade, stored: Trade, now_us: int) -> list[object]:
    """Return the parameters of `ADD`.

    Args:
        received: the conflicting message.
        stored: the stored trade.
        now_us: time of the detection.
    """
    return [
        *(getattr(received, name) for name in trades.COLUMNS),
        *(getattr(stored, name) for name in _STORED),
        now_us,
    ]
