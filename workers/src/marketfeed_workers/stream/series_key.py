"""Keys of a symbol's id series in memory, and encoders of its messages.

A module of its own, as flows, publisher and checkpoints share it.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from marketfeed_wire import BookTicker, Trade, encode

_SEPARATOR: Final = "\0"
"""Does not occur in a symbol."""


def series_key(symbol: str, id_series: int) -> str:
    """Return the key of a symbol's series in `Publisher.acknowledged_trade_ids`."""
    return f"{symbol}{_SEPARATOR}{id_series}" if id_series else symbol


def split_series_key(name: str) -> tuple[str, int]:
    """Return symbol and id series of a `series_key`."""
    symbol, _, id_series = name.partition(_SEPARATOR)
    return symbol, int(id_series or 0)


def encoder(id_series: int) -> Callable[[Trade | BookTicker], bytes]:
    """Return the encoder of a series; messages of the mapper have series 0."""
    if not id_series:
        return encode
    return lambda message: encode(replace(message, id_series=id_series))
