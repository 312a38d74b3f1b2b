"""Names of symbols with their id series, and encoders of a series."""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from marketfeed_wire import BookTicker, Trade, encode

_SEPARATOR: Final = "\0"
"""No part of a symbol."""


def series_key(symbol: str, id_series: int) -> str:
    """The name that acknowledgements of a symbol's trades are noted by."""
    return f"{symbol}{_SEPARATOR}{id_series}" if id_series else symbol


def split_series_key(name: str) -> tuple[str, int]:
    """What `series_key` made the name of."""
    symbol, _, id_series = name.partition(_SEPARATOR)
    return symbol, int(id_series or 0)


def encoder(id_series: int) -> Callable[[Trade | BookTicker], bytes]:
    """What encodes messages of a series; those that the venue's mapper makes are of the first."""
    if not id_series:
        return encode
    return lambda message: encode(replace(message, id_series=id_series))
