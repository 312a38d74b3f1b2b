"""Many record values at once: what `codec` does one by one, for the consumer's hot path.

The outcome is the same; only the checks of names and decimals are made over all messages together, which costs a
third. Where one value is bad, the caller goes through them one by one to learn which.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

import msgspec

from marketfeed_wire.codec import UNREADABLE, decode_book_ticker, decode_trade, is_decimal, is_name
from marketfeed_wire.messages import BookTicker, Trade

_EIGHT_DECIMALS_POINT: Final = itemgetter(-9)
_trades: Final = msgspec.json.Decoder(Trade)
_book_tickers: Final = msgspec.json.Decoder(BookTicker)


def decode_trades(values: Sequence[bytes]) -> list[Trade]:
    """The trades in `values`.

    Raises:
        DecodeError: one of them is not a trade of this schema version; that of the first such.
    """
    decode = _trades.decode
    try:
        trades = [decode(value) for value in values]
    except UNREADABLE:
        return [decode_trade(value) for value in values]
    names = {trade.venue for trade in trades} | {trade.symbol for trade in trades}
    if (
        all(map(is_name, names))
        and are_decimals([trade.price for trade in trades])
        and are_decimals([trade.qty for trade in trades])
    ):
        return trades
    return [decode_trade(value) for value in values]


def decode_book_tickers(values: Sequence[bytes]) -> list[BookTicker]:
    """The quotes in `values`.

    Raises:
        DecodeError: one of them is not a quote of this schema version; that of the first such.
    """
    decode = _book_tickers.decode
    try:
        quotes = [decode(value) for value in values]
    except UNREADABLE:
        return [decode_book_ticker(value) for value in values]
    names = {quote.venue for quote in quotes} | {quote.symbol for quote in quotes}
    if (
        all(map(is_name, names))
        and are_decimals([quote.bid_price for quote in quotes])
        and are_decimals([quote.bid_qty for quote in quotes])
        and are_decimals([quote.ask_price for quote in quotes])
        and are_decimals([quote.ask_qty for quote in quotes])
    ):
        return quotes
    return [decode_book_ticker(value) for value in values]


def are_decimals(texts: Sequence[str]) -> bool:
    """Whether every one of `texts` is a decimal, as `is_decimal` has it."""
    # Numbers with eight decimals, as Binance writes all of them, are told by one look at all their characters: each
    # has a point before its last eight, there are as many points as numbers, and the rest is digits.
    try:
        if set(map(_EIGHT_DECIMALS_POINT, texts)) == {"."}:
            joined = "".join(texts)
            digits = joined.replace(".", "")
            if len(joined) - len(digits) == len(texts):
                return digits.isascii() and digits.isdigit()
    except IndexError:  # one is shorter
        pass
    return all(map(is_decimal, texts))
