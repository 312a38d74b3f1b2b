"""Comparison of two messages with the same id.

The content of a trade is its time, price, quantity and side; that of a quote its two prices and two quantities. Event
time, receive time and origin may differ between two copies of one trade.
"""

from decimal import Decimal
from typing import Final

from marketfeed_wire.messages import BookTicker, Trade

MS_US: Final = 1000


def same_trade(one: Trade, other: Trade) -> bool:
    """Return whether two trades with the same id have the same content."""
    return (
        one.buyer_is_maker == other.buyer_is_maker
        and same_number(one.price, other.price)
        and same_number(one.qty, other.qty)
        and same_time(one.trade_time_us, other.trade_time_us)
    )


def same_quote(one: BookTicker, other: BookTicker) -> bool:
    """Return whether two quotes with the same update id have the same content."""
    return (
        same_number(one.bid_price, other.bid_price)
        and same_number(one.bid_qty, other.bid_qty)
        and same_number(one.ask_price, other.ask_price)
        and same_number(one.ask_qty, other.ask_qty)
    )


def same_number(one: str, other: str) -> bool:
    """Return whether two decimal strings are the same number: 1.0 equals 1.00."""
    return one == other or Decimal(one) == Decimal(other)


def same_time(one_us: int, other_us: int) -> bool:
    """Return whether two times are equal at the precision of the coarser one.

    A venue may send microseconds over WebSocket and milliseconds over REST (Binance does).
    """
    return one_us == other_us or (
        one_us // MS_US == other_us // MS_US and (one_us % MS_US == 0 or other_us % MS_US == 0)
    )
