"""Parser of a venue's symbol list (GET /api/v3/exchangeInfo) with bounded memory for any response.

Memory follows from the number of values in a body, and that from its commas. They are counted before decoding: 64 MiB
of ``[],`` would become more than a gigabyte of lists.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from marketfeed_operator.api.venue import ASSET_PATTERN, SYMBOL_PATTERN
from marketfeed_service.http_body import BadBody
from marketfeed_wire.codec import INVALID_MESSAGE_ERRORS

MAX_BYTES: Final = 32 * 2**20
MAX_VALUES: Final = 2_000_000
"""More than three times the largest venue (3,500 symbols with about 170 values each)."""
MAX_ENTRIES: Final = 20_000
"""Six times the largest venue: each entry is decoded separately, which is slow for half a million invalid ones."""
_SYMBOL: Final = re.compile(SYMBOL_PATTERN)
_ASSET: Final = re.compile(ASSET_PATTERN)
_STATUS: Final = re.compile(r"[A-Z_]{1,32}")


@dataclass(frozen=True)
class Listed:
    """Symbols listed by a venue.

    Attributes:
        symbols: symbol -> (status, quote asset).
        skipped: number of entries that are invalid, or whose names a MarketFeed cannot contain.
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
    """Return the symbols in a response; invalid entries are counted and skipped.

    Raises:
        BadBody: it has too many values or entries, or no valid symbol.
        ValueError, RecursionError: it is not valid JSON of that form.
    """
    if body.count(b",") >= MAX_VALUES:
        raise BadBody(f"the response has more than {MAX_VALUES:,} values")
    entries = msgspec.json.decode(body, type=_Response).symbols
    if len(entries) > MAX_ENTRIES:
        raise BadBody(f"the response lists more than {MAX_ENTRIES:,} symbols")
    found: dict[str, tuple[str, str]] = {}
    skipped = 0
    for raw in entries:
        try:
            entry = msgspec.json.decode(raw, type=_Entry)
        except INVALID_MESSAGE_ERRORS:
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
        raise BadBody(f"none of the {len(entries):,} listed symbols is valid")
    return Listed(found, skipped)
