"""What a venue says of its symbols (GET /api/v3/exchangeInfo), read so that no response can cost more than a bound.

Memory follows from the number of values in a body, and the number of values from its commas. So they are counted
before anything is decoded: 64 MiB of ``[],`` would become more than a gigabyte of lists.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from marketfeed_chassis.bodies import BadBody
from marketfeed_operator.api.venue import ASSET_PATTERN, SYMBOL_PATTERN
from marketfeed_wire.codec import UNREADABLE

MAX_BYTES: Final = 32 * 2**20
MAX_VALUES: Final = 2_000_000
"""More than three times what the largest venue lists (3,500 symbols with some 170 values each)."""
MAX_ENTRIES: Final = 20_000
"""Six times what the largest venue lists: each entry is decoded by itself, which half a million odd ones make long."""
_SYMBOL: Final = re.compile(SYMBOL_PATTERN)
_ASSET: Final = re.compile(ASSET_PATTERN)
_STATUS: Final = re.compile(r"[A-Z_]{1,32}")


@dataclass(frozen=True)
class Listed:
    """A venue's symbols.

    Attributes:
        symbols: symbol -> (status, quote asset).
        skipped: entries that cannot be read, or whose names a MarketFeed could not hold.
    """

    symbols: dict[str, tuple[str, str]]
    skipped: int = 0


class _Response(msgspec.Struct):
    symbols: list[msgspec.Raw]


class _Entry(msgspec.Struct):
    symbol: str
    status: str
    quoteAsset: str  # noqa: N815 - the venue's name


def read_exchange_info(body: bytes) -> Listed:
    """Return the symbols in a response; an entry that is odd is counted and left out.

    Raises:
        BadBody: it holds too many values or entries, or not a single readable symbol.
        ValueError, RecursionError: it is no such JSON.
    """
    if body.count(b",") >= MAX_VALUES:
        raise BadBody(f"the response holds more than {MAX_VALUES:,} values")
    entries = msgspec.json.decode(body, type=_Response).symbols
    if len(entries) > MAX_ENTRIES:
        raise BadBody(f"the response lists more than {MAX_ENTRIES:,} symbols")
    found: dict[str, tuple[str, str]] = {}
    skipped = 0
    for raw in entries:
        try:
            entry = msgspec.json.decode(raw, type=_Entry)
        except UNREADABLE:
            skipped += 1
            continue
        readable = (
            _SYMBOL.fullmatch(entry.symbol)
            and _ASSET.fullmatch(entry.quoteAsset)
            and _STATUS.fullmatch(entry.status)
        )
        if readable:
            found[entry.symbol] = (entry.status, entry.quoteAsset)
        else:
            skipped += 1
    if entries and not found:
        raise BadBody(f"none of the {len(entries):,} listed symbols can be read")
    return Listed(found, skipped)
