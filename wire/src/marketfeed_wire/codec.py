"""Messages to and from the bytes of a Kafka record's value.

A value is one JSON object in UTF-8. Decoding is strict about types, bounds and decimals, because what
passes here is written to the database without another look; fields it does not know are passed over, so
that an older consumer reads a newer worker's messages.
"""

import re
from typing import Final

import msgspec

from marketfeed_wire.messages import BookTicker, Trade

_encoder: Final = msgspec.json.Encoder()
_trades: Final = msgspec.json.Decoder(Trade)
_book_tickers: Final = msgspec.json.Decoder(BookTicker)
_PATH: Final = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")
_MISSING: Final = re.compile(r"missing required field `(?P<field>[^`]*)`")


class DecodeError(ValueError):
    """Bytes that are not the message they should be.

    Attributes:
        field: the field at fault, or "" when the whole value is (not JSON, not an object).
        reason: what is wrong with it, in words.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


encode = _encoder.encode
"""``encode(message) -> bytes``: the record value of a Trade or BookTicker."""


def is_decimal(text: str) -> bool:
    """Whether `text` is a plain non-negative decimal number: ASCII digits with at most one point."""
    return text.isascii() and text.replace(".", "", 1).isdigit()


def is_name(text: str) -> bool:
    """Whether `text` can name a venue or a symbol: printable and without spaces, so also no NUL or tab."""
    return text.isprintable() and " " not in text


def decode_trade(value: bytes) -> Trade:
    """The trade in a record's value.

    Raises:
        DecodeError: the value is not a trade of this schema version; names the field.
    """
    try:
        trade = _trades.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _explained(error) from None
    if is_decimal(trade.price) and is_decimal(trade.qty):
        return trade
    raise _not_a_decimal(trade, "price", "qty")


def decode_book_ticker(value: bytes) -> BookTicker:
    """The quote in a record's value.

    Raises:
        DecodeError: the value is not a quote of this schema version; names the field.
    """
    try:
        quote = _book_tickers.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _explained(error) from None
    if (
        is_decimal(quote.bid_price)
        and is_decimal(quote.bid_qty)
        and is_decimal(quote.ask_price)
        and is_decimal(quote.ask_qty)
    ):
        return quote
    raise _not_a_decimal(quote, "bid_price", "bid_qty", "ask_price", "ask_qty")


def _not_a_decimal(message: Trade | BookTicker, *fields: str) -> DecodeError:
    field = next(name for name in fields if not is_decimal(getattr(message, name)))
    return DecodeError(field, f"{getattr(message, field)!r} is not a decimal number")


def _explained(error: Exception) -> DecodeError:
    # msgspec tells the place of a fault only in the last words of its message; only this function reads them.
    text = str(error)
    found = _PATH.search(text) or _MISSING.search(text)
    return DecodeError(found["field"] if found else "", _PATH.sub("", text))
