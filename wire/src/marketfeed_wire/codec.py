"""Encoding and decoding of Kafka record values.

A value is one JSON object in UTF-8. Decoding validates types, bounds, names and decimals, because decoded messages are
written to the database without further checks. Unknown fields are ignored, so that an older consumer can read a newer
worker's messages.
"""

import re
from typing import Final, Protocol, TypeVar

import msgspec

from marketfeed_wire.messages import SCHEMA_VERSION, BookTicker, Id, IdSeries, Name, Trade


class _Version(msgspec.Struct):
    """The field that is decoded even if the rest of the message is invalid."""

    schema_version: int = SCHEMA_VERSION


class _Identity(msgspec.Struct):
    """The fields that identify a trade, decoded even if the rest of the message is invalid."""

    venue: Name
    symbol: Name
    trade_id: Id
    id_series: IdSeries = 0


_encoder: Final = msgspec.json.Encoder()
_trades: Final = msgspec.json.Decoder(Trade)
_book_tickers: Final = msgspec.json.Decoder(BookTicker)
_versions: Final = msgspec.json.Decoder(_Version)
_identities: Final = msgspec.json.Decoder(_Identity)
INVALID_MESSAGE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec for an invalid message; RecursionError for deep nesting, also within ignored fields."""
_PATH: Final = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")
_MISSING: Final = re.compile(r"missing required field `(?P<field>[^`]*)`")


class DecodeError(ValueError):
    """A record value is not a valid message.

    Attributes:
        field: the invalid field; "" if the whole value is invalid (not JSON, not an object).
        reason: description of the problem.
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
    """Return whether `text` is a plain non-negative decimal number: ASCII digits with at most one point."""
    return text.isascii() and text.replace(".", "", 1).isdigit()


def is_name(text: str) -> bool:
    """Return whether `text` is a valid venue or symbol: printable, without spaces, NUL and tabs."""
    return text.isprintable() and " " not in text


def decode_trade(value: bytes) -> Trade:
    """Decode the trade in a record's value.

    Raises:
        DecodeError: the value is not a trade of this schema version; has the invalid field.
    """
    try:
        trade = _trades.decode(value)
    except INVALID_MESSAGE_ERRORS as error:
        raise decode_error(error, value) from None
    if is_name(trade.venue + trade.symbol) and is_decimal(trade.price) and is_decimal(trade.qty):
        return trade
    raise _not_storable(trade, "price", "qty")


def trade_identity(value: bytes) -> tuple[str, str, int, int] | None:
    """Return (venue, symbol, id series, trade id) of a value that may be an invalid trade; None if they are invalid."""
    try:
        found = _identities.decode(value)
    except INVALID_MESSAGE_ERRORS:
        return None
    if not is_name(found.venue + found.symbol):
        return None
    return found.venue, found.symbol, found.id_series, found.trade_id


def decode_book_ticker(value: bytes) -> BookTicker:
    """Decode the quote in a record's value.

    Raises:
        DecodeError: the value is not a quote of this schema version; has the invalid field.
    """
    try:
        quote = _book_tickers.decode(value)
    except INVALID_MESSAGE_ERRORS as error:
        raise decode_error(error, value) from None
    if (
        is_name(quote.venue + quote.symbol)
        and is_decimal(quote.bid_price)
        and is_decimal(quote.bid_qty)
        and is_decimal(quote.ask_price)
        and is_decimal(quote.ask_qty)
    ):
        return quote
    raise _not_storable(quote, "bid_price", "bid_qty", "ask_price", "ask_qty")


def name_error(venue: str, symbol: str) -> DecodeError | None:
    """Return the error for the first of these that is not a valid name, or None."""
    for field, text in (("venue", venue), ("symbol", symbol)):
        if not is_name(text):
            return DecodeError(
                field, f"{text!r} is not a name: it contains a space or an unprintable character"
            )
    return None


class _Named(Protocol):
    @property
    def venue(self) -> str: ...
    @property
    def symbol(self) -> str: ...


N = TypeVar("N", bound=_Named)


def decode_named(decoder: msgspec.json.Decoder[N], value: bytes) -> N:
    """Decode a record's value by `decoder` and check its venue and symbol.

    Raises:
        DecodeError: the value is not such a message; has the invalid field.
    """
    try:
        message = decoder.decode(value)
    except INVALID_MESSAGE_ERRORS as error:
        raise decode_error(error, value) from None
    if wrong := name_error(message.venue, message.symbol):
        raise wrong
    return message


def _not_storable(message: Trade | BookTicker, *decimals: str) -> DecodeError:
    if error := name_error(message.venue, message.symbol):
        return error
    field = next(name for name in decimals if not is_decimal(getattr(message, name)))
    return DecodeError(field, f"{getattr(message, field)!r} is not a decimal number")


def decode_error(error: Exception, value: bytes) -> DecodeError:
    """Return the `DecodeError` for the error that msgspec raised for `value`."""
    # A message of another schema version may differ in any field: the error is the version, not that field.
    version = _version_of(value)
    if version != SCHEMA_VERSION:
        return DecodeError("schema_version", f"this is version {version}, only {SCHEMA_VERSION} can be read")
    # msgspec gives the path of the invalid field only at the end of its message text.
    text = str(error)
    found = _PATH.search(text) or _MISSING.search(text)
    return DecodeError(found["field"] if found else "", _PATH.sub("", text))


def _version_of(value: bytes) -> int:
    try:
        return _versions.decode(value).schema_version
    except INVALID_MESSAGE_ERRORS:
        return SCHEMA_VERSION
