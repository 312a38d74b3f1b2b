"""The expected effect of a published record on the tables, known from its creation."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

from marketfeed_wire import BookTicker, Gap, Trade

Symbol: TypeAlias = tuple[str, str, int]
"""(venue, symbol, id series)."""
Content: TypeAlias = tuple[Any, ...]


class Meaning(NamedTuple):
    """The expected effect of a record.

    Attributes:
        kind: a trade, a quote, a gap record, or a record that ends in the dead letters.
        id: id of the trade or quote, first id of a gap, id of a rejected trade or None.
        content: fields that are compared between two of one id; of a gap its update time.
        others: other columns of its row.
    """

    kind: Literal["trade", "quote", "gap", "letter"]
    symbol: Symbol
    id: int | None
    content: Content
    time_us: int = 0
    others: Content = ()


def of_trade(trade: Trade) -> Meaning:
    """A trade's."""
    content = (Decimal(trade.price), Decimal(trade.qty), trade.buyer_is_maker, trade.trade_time_us)
    return Meaning(
        "trade",
        (trade.venue, trade.symbol, trade.id_series),
        trade.trade_id,
        content,
        trade.trade_time_us,
        (trade.event_time_us, trade.received_time_us, trade.origin),
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
        (quote.event_time_us, quote.received_time_us),
    )


def of_gap(gap: Gap) -> Meaning:
    """Return the meaning of a gap record."""
    return Meaning(
        "gap",
        (gap.venue, gap.symbol, gap.id_series),
        gap.first_id,
        (gap.updated_time_us,),
        others=(gap.last_id, gap.state, ranges(gap.missing), ranges(gap.absent), gap.proof),
    )


def ranges(pairs: Iterable[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    """Return ranges of ids, from any form."""
    return tuple(tuple(pair) for pair in pairs)
