"""What a record that was published means for the tables, as whoever published it knows."""

from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

from marketfeed_wire import BookTicker, Trade

Symbol: TypeAlias = tuple[str, str, int]
"""(venue, symbol, id series)."""
Content: TypeAlias = tuple[Any, ...]


class Meaning(NamedTuple):
    """What has to become of a record.

    Attributes:
        kind: a trade, a quote, a word on a gap, or a record that ends in the dead letters.
        id: of the trade or quote; of a gap its first; of a rejected trade, None where it does not say.
        content: what counts when two of one id are compared; of a gap when it was updated.
    """

    kind: Literal["trade", "quote", "gap", "letter"]
    symbol: Symbol
    id: int | None
    content: Content
    time_us: int = 0


def of_trade(trade: Trade) -> Meaning:
    """A trade's."""
    content = (Decimal(trade.price), Decimal(trade.qty), trade.buyer_is_maker, trade.trade_time_us)
    return Meaning(
        "trade", (trade.venue, trade.symbol, trade.id_series), trade.trade_id, content, trade.trade_time_us
    )


def of_quote(quote: BookTicker) -> Meaning:
    """A quote's."""
    content = tuple(map(Decimal, (quote.bid_price, quote.bid_qty, quote.ask_price, quote.ask_qty)))
    return Meaning(
        "quote",
        (quote.venue, quote.symbol, quote.id_series),
        quote.update_id,
        content,
        quote.received_time_us,
    )
