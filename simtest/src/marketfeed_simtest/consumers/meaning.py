"""What a record that was published means for the tables, as whoever published it knows."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

from marketfeed_wire import BookTicker, Gap, Trade

Symbol: TypeAlias = tuple[str, str, int]
"""(venue, symbol, id series)."""
Content: TypeAlias = tuple[Any, ...]


class Meaning(NamedTuple):
    """What has to become of a record.

    Attributes:
        kind: a trade, a quote, a word on a gap, or a record that ends in the dead letters.
        id: of the trade or quote; of a gap its first; of a rejected trade, None where it does not say.
        content: what counts when two of one id are compared; of a gap when it was updated.
        others: what its row says besides.
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
    """A gap record's."""
    return Meaning(
        "gap",
        (gap.venue, gap.symbol, gap.id_series),
        gap.first_id,
        (gap.updated_time_us,),
        others=(gap.last_id, gap.state, ranges(gap.missing), ranges(gap.absent), gap.proof),
    )


def ranges(pairs: Iterable[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    """Ranges of ids, in whatever form they come."""
    return tuple(tuple(pair) for pair in pairs)
