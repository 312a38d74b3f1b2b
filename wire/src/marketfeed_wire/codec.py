"""Messages to and from the bytes of a Kafka record's value.

A value is one JSON object in UTF-8. Decoding is strict about types, bounds, names and decimals, because
what passes here is written to the database without another look; fields it does not know are passed over,
so that an older consumer reads a newer worker's messages.
"""

import re
from typing import Final, Protocol, TypeVar

import msgspec

from marketfeed_wire.messages import SCHEMA_VERSION, BookTicker, Id, IdSeries, Name, Trade


class _Version(msgspec.Struct):
    """The one field that is read even of a message that cannot be."""

    schema_version: int = SCHEMA_VERSION


class _Identity(msgspec.Struct):
    """What says which trade it is, even of a message that cannot be read otherwise."""

    venue: Name
    symbol: Name
    trade_id: Id
    id_series: IdSeries = 0


_encoder: Final = msgspec.json.Encoder()
_trades: Final = msgspec.json.Decoder(Trade)
_book_tickers: Final = msgspec.json.Decoder(BookTicker)
_versions: Final = msgspec.json.Decoder(_Version)
_identities: Final = msgspec.json.Decoder(_Identity)
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no message; the last for deep nesting, also where it would pass over it."""
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
    except UNREADABLE as error:
        raise explained(error, value) from None
    if is_name(trade.venue + trade.symbol) and is_decimal(trade.price) and is_decimal(trade.qty):
        return trade
    raise _not_storable(trade, "price", "qty")


def trade_identity(value: bytes) -> tuple[str, str, int, int] | None:
    """(venue, symbol, id series, trade id) of a value that need not be a whole trade; None where it does not say."""
    try:
        found = _identities.decode(value)
    except UNREADABLE:
        return None
    if not is_name(found.venue + found.symbol):
        return None
    return found.venue, found.symbol, found.id_series, found.trade_id


def decode_book_ticker(value: bytes) -> BookTicker:
    """The quote in a record's value.

    Raises:
        DecodeError: the value is not a quote of this schema version; names the field.
    """
    try:
        quote = _book_tickers.decode(value)
    except UNREADABLE as error:
        raise explained(error, value) from None
    if (
        is_name(quote.venue + quote.symbol)
        and is_decimal(quote.bid_price)
        and is_decimal(quote.bid_qty)
        and is_decimal(quote.ask_price)
        and is_decimal(quote.ask_qty)
    ):
        return quote
    raise _not_storable(quote, "bid_price", "bid_qty", "ask_price", "ask_qty")


def not_a_name(venue: str, symbol: str) -> DecodeError | None:
    """The error for the first of these that cannot be a name, if any."""
    for field, text in (("venue", venue), ("symbol", symbol)):
        if not is_name(text):
            return DecodeError(field, f"{text!r} is not a name: it holds a space or an unprintable character")
    return None


class _Named(Protocol):
    @property
    def venue(self) -> str: ...
    @property
    def symbol(self) -> str: ...


N = TypeVar("N", bound=_Named)


def decode_named(decoder: msgspec.json.Decoder[N], value: bytes) -> N:
    """What `decoder` reads in a record's value, if venue and symbol are names.

    Raises:
        DecodeError: it is no such message; names the field.
    """
    try:
        message = decoder.decode(value)
    except UNREADABLE as error:
        raise explained(error, value) from None
    if wrong := not_a_name(message.venue, message.symbol):
        raise wrong
    return message


def _not_storable(message: Trade | BookTicker, *decimals: str) -> DecodeError:
    if error := not_a_name(message.venue, message.symbol):
        return error
    field = next(name for name in decimals if not is_decimal(getattr(message, name)))
    return DecodeError(field, f"{getattr(message, field)!r} is not a decimal number")


def explained(error: Exception, value: bytes) -> DecodeError:
    """The one documented error for what msgspec raised about `value`."""
    # A message of another version may differ in any field, and the first that does would be blamed.
    version = _version_of(value)
    if version != SCHEMA_VERSION:
        return DecodeError("schema_version", f"this is version {version}, only {SCHEMA_VERSION} can be read")
    # msgspec tells the place of a fault only in the last words of its message; only this function reads them.
    text = str(error)
    found = _PATH.search(text) or _MISSING.search(text)
    return DecodeError(found["field"] if found else "", _PATH.sub("", text))


def _version_of(value: bytes) -> int:
    try:
        return _versions.decode(value).schema_version
    except UNREADABLE:
        return SCHEMA_VERSION
