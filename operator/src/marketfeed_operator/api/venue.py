"""Venue part of the spec: its addresses and the selection of symbols."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.patterns import PatternRule
from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import url_pattern

_NAME: Final = "[A-Z0-9_.:\\-\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]"
"""Upper-case ASCII, and letters without case that are always printable: kana, CJK ideographs (used by venues), Hangul.

Ranges instead of classes, so that the regular expressions of Go, Rust and Python agree for every Unicode version.
"""
SYMBOL_PATTERN: Final = f"^{_NAME}{{1,64}}$"
ASSET_PATTERN: Final = f"^{_NAME}{{1,32}}$"

_LETTERS: Final = (
    "upper-case letters, digits, _ . : - or letters without case (kana, CJK, Hangul), and nothing else"
)
Symbol = Annotated[
    str, Field(min_length=1, max_length=64), PatternRule(SYMBOL_PATTERN, f"a symbol has 1 to 64 {_LETTERS}")
]
Asset = Annotated[
    str, Field(min_length=1, max_length=32), PatternRule(ASSET_PATTERN, f"an asset has 1 to 32 {_LETTERS}")
]


def _address(schemes: str, shown: str) -> PatternRule:
    return PatternRule(
        url_pattern(schemes),
        f"an address is {shown}, an IPv6 address in brackets, a port from 1 to 65535, without user, query "
        "and fragment",
    )


WebSocketBase = Annotated[
    str, Field(max_length=512), _address("wss?", "ws://HOST[:PORT][/PATH] or wss://HOST[:PORT][/PATH]")
]
RestBase = Annotated[
    str, Field(max_length=512), _address("https?", "http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]")
]


def _has_part(*parts: str) -> str:
    """Return the regular expression of a URL whose path contains one of the parts."""
    return f"^[a-z]+://[^/]+(/[^/]*)*/({'|'.join(parts)})(/|$)"


def _base_rule(field: Literal["websocket", "rest"], *parts: str) -> Rule:
    """Return the rule that a base address does not contain the path that workers append."""
    return Rule(
        f"!has(self.{field}) || !self.{field}.matches('{_has_part(*parts)}')",
        f"the path of endpoints.{field} contains /{' or /'.join(parts)}, which workers append: set the base "
        "only",
        lambda self: not re.search(_has_part(*parts), getattr(self, field) or ""),
    )


class Endpoints(Declared):
    """Base addresses of the venue, for a proxy or the simulator."""

    websocket: WebSocketBase | None = Field(
        default=None,
        description="WebSocket base address, ws:// or wss://.",
    )
    rest: RestBase | None = Field(
        default=None,
        description="REST base address, http:// or https://.",
    )

    rules = (_base_rule("websocket", "ws", "stream"), _base_rule("rest", "api"))


class SymbolSelector(Declared):
    """Selection of symbols from the venue's list, refreshed periodically."""

    quote_assets: tuple[Asset, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Quote assets, for example USDT; empty means any.",
    )
    status: Literal["TRADING", "BREAK", "HALT"] = Field(
        default="TRADING", description="Trading status of the symbols at the venue."
    )
    maximum: int = Field(
        default=500,
        ge=1,
        le=5000,
        description="Maximum number of symbols, in alphabetical order. Selected symbols stay selected.",
    )
