"""The venue's listing (exchangeInfo): symbols with their status, and the request weight per minute.

The listing has thousands of symbols and many kinds of limits, and new ones are added: an entry that cannot be decoded
is skipped without the others.
"""

from typing import Final, NamedTuple, TypeVar

import msgspec

from marketfeed_wire.messages import Name
from marketfeed_workers.venues.binance_spot.rows import INVALID_MESSAGE_ERRORS
from marketfeed_workers.venues.venue import SymbolInfo

T = TypeVar("T")

_SECONDS: Final = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}
MIN_LIMIT: Final = 60
"""Smallest plausible weight per minute: one listing and one page of trades cost most of it."""
MAX_LIMIT: Final = 1_000_000


class _Symbol(msgspec.Struct):
    symbol: Name
    status: Name


class _RateLimit(msgspec.Struct, rename="camel"):
    rate_limit_type: str
    interval: str = "MINUTE"
    interval_num: int = 1
    limit: int = 0


class _ExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: list[_Symbol]
    rate_limits: list[_RateLimit]


class _AnyExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: list[msgspec.Raw]
    rate_limits: msgspec.Raw = msgspec.Raw(b"[]")


_typed: Final = msgspec.json.Decoder(_ExchangeInfo)
_any: Final = msgspec.json.Decoder(_AnyExchangeInfo)
_symbol: Final = msgspec.json.Decoder(_Symbol)
_limit: Final = msgspec.json.Decoder(_RateLimit)
_list: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Listing(NamedTuple):
    """Content of exchangeInfo."""

    symbols: dict[str, SymbolInfo]
    minute_weight: int | None
    """Request weight per minute; None if there is no plausible one."""
    refused: list[str]
    """Errors of entries that cannot be decoded."""


def read_listing(body: bytes) -> Listing:
    """Decode the listing in a response's body.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: the body has no list of symbols.
    """
    refused: list[str] = []
    try:
        info = _typed.decode(body)
    except INVALID_MESSAGE_ERRORS:
        raw = _any.decode(body)
        try:
            limits = _list.decode(raw.rate_limits)
        except INVALID_MESSAGE_ERRORS as error:
            limits = []
            refused.append(f"rateLimits: {error}: {bytes(raw.rate_limits)[:100]!r}")
        info = _ExchangeInfo(_each(_symbol, raw.symbols, refused), _each(_limit, limits, refused))
    symbols = {each.symbol: SymbolInfo(each.status, each.status == "TRADING") for each in info.symbols}
    return Listing(symbols, _minute_weight(info.rate_limits), refused)


def _each(decoder: "msgspec.json.Decoder[T]", raws: list[msgspec.Raw], refused: list[str]) -> list[T]:
    found: list[T] = []
    for raw in raws:
        try:
            found.append(decoder.decode(raw))
        except INVALID_MESSAGE_ERRORS as error:
            refused.append(f"{error}: {bytes(raw)[:100]!r}")
    return found


def _minute_weight(limits: list[_RateLimit]) -> int | None:
    """Return the smallest plausible limit on request weight, per minute."""
    weights = [
        each.limit * 60 // (_SECONDS[each.interval] * each.interval_num)
        for each in limits
        if each.rate_limit_type == "REQUEST_WEIGHT" and each.interval in _SECONDS and each.interval_num > 0
    ]
    return min((weight for weight in weights if MIN_LIMIT <= weight <= MAX_LIMIT), default=None)
