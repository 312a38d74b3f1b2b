"""Parts of the spec about the venue: where it is, and which of its symbols are read."""

from typing import Annotated, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared

Symbol = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\sa-z,]+$")]
Asset = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[^\sa-z,]+$")]


class Endpoints(Declared):
    """Where the venue is, instead of its own addresses: a proxy, or the simulator."""

    websocket: str | None = Field(
        default=None, max_length=512, pattern=r"^wss?://\S+$", description="WebSocket base, ws:// or wss://."
    )
    rest: str | None = Field(
        default=None, max_length=512, pattern=r"^https?://\S+$", description="REST base, http:// or https://."
    )


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
