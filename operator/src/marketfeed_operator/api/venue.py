"""Parts of the spec about the venue: where it is, and which of its symbols are read."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import url_pattern
from marketfeed_operator.api.worded import Worded

_NAME: Final = "[A-Z0-9_.:\\-\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]"
"""Upper case ASCII, and what has no case and is always printable: kana, CJK ideographs (venues do list such), Hangul.

Ranges and not classes, so that Go's, Rust's and Python's expressions agree whatever version of Unicode they know.
"""
SYMBOL_PATTERN: Final = f"^{_NAME}{{1,64}}$"
ASSET_PATTERN: Final = f"^{_NAME}{{1,32}}$"

_LETTERS: Final = "capitals, digits, _ . : - or letters without case (kana, CJK, Hangul), and nothing else"
Symbol = Annotated[
    str, Field(min_length=1, max_length=64), Worded(SYMBOL_PATTERN, f"a symbol has 1 to 64 {_LETTERS}")
]
Asset = Annotated[
    str, Field(min_length=1, max_length=32), Worded(ASSET_PATTERN, f"an asset has 1 to 32 {_LETTERS}")
]


def _address(schemes: str, shown: str) -> Worded:
    return Worded(
        url_pattern(schemes),
        f"an address is {shown}, an IPv6 address in brackets, a port from 1 to 65535, without user, query and fragment",
    )


WebSocketBase = Annotated[
    str, Field(max_length=512), _address("wss?", "ws://HOST[:PORT][/PATH] or wss://HOST[:PORT][/PATH]")
]
RestBase = Annotated[
    str, Field(max_length=512), _address("https?", "http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]")
]


def _has_part(*parts: str) -> str:
    """The expression for an address whose path holds one of the parts."""
    return f"^[a-z]+://[^/]+(/[^/]*)*/({'|'.join(parts)})(/|$)"


def _base_rule(field: Literal["websocket", "rest"], *parts: str) -> Rule:
    """The rule that a base address was not copied with what workers add to it."""
    return Rule(
        f"!has(self.{field}) || !self.{field}.matches('{_has_part(*parts)}')",
        f"the path of endpoints.{field} holds /{' or /'.join(parts)}, which is added: give the base alone",
        lambda self: not re.search(_has_part(*parts), getattr(self, field) or ""),
    )


class Endpoints(Declared):
    """Where the venue is, instead of its own addresses: a proxy, or the simulator."""

    websocket: WebSocketBase | None = Field(
        default=None,
        description="WebSocket base, ws:// or wss://.",
    )
    rest: RestBase | None = Field(
        default=None,
        description="REST base, http:// or https://.",
    )

    rules = (_base_rule("websocket", "ws", "stream"), _base_rule("rest", "api"))


class SymbolSelector(Declared):
    """Symbols by what the venue says of them, asked again every few minutes."""

    quote_assets: tuple[Asset, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Quote assets, for example USDT; none means every one.",
    )
    status: Literal["TRADING", "BREAK", "HALT"] = Field(
        default="TRADING", description="Status that the venue gives the symbol."
    )
    maximum: int = Field(
        default=500,
        ge=1,
        le=5000,
        description="Most symbols taken: the first in alphabetical order. A symbol taken before stays taken.",
    )
