"""The seam between a venue and the rest of the worker: facts, frames to messages, commands, REST."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from aiohttp import ClientSession

from marketfeed_wire import BookTicker, Trade


class Reply(NamedTuple):
    """The venue's answer to a command that we sent."""

    request_id: int | None
    error: str
    """Why the command was refused; "" when it was done."""
    result: object


class ShutdownNotice(NamedTuple):
    """The venue says that it will close this connection soon."""


Event = Trade | BookTicker | Reply | ShutdownNotice | None
"""What a frame means; None: nothing that concerns us."""


@dataclass(frozen=True, kw_only=True)
class VenueFacts:
    """What the rest of the worker must know of a venue; sources in the venue's own module."""

    name: str
    ws_base: str
    rest_base: str
    trade_ids: Literal["contiguous", "increasing", "per_connection"]
    """contiguous: +1 per symbol, so that a jump is a suspected gap; otherwise gaps cannot be told from ids."""
    max_streams_per_connection: int
    max_streams_in_url: int
    """Above this many the connection is opened bare and subscribed by commands."""
    max_names_per_command: int
    command_interval_seconds: float
    connection_life_seconds: float
    """The venue closes a connection at this age."""
    connection_attempts: int
    connection_attempts_window_seconds: float


class SymbolInfo(NamedTuple):
    """A symbol as the venue lists it."""

    status: str
    trading: bool


class VenueRest(Protocol):
    """The venue's REST side. Every call may raise Unreachable, Limited or Refused."""

    async def symbols(self) -> dict[str, SymbolInfo]:
        """Every symbol that the venue lists."""


class Venue(Protocol):
    """One exchange."""

    facts: VenueFacts

    def streams(self, symbol: str) -> tuple[str, ...]:
        """The stream names that carry a symbol's trades and quotes."""

    def stream_url(self, base: str, streams: list[str]) -> str:
        """The address that opens a connection with these streams."""

    def read(self, frame: bytes, received_time_us: int) -> Event:
        """What a frame means.

        Raises:
            BadFrame: the frame is not what the venue's protocol says.
        """

    def rest(self, base: str, session: ClientSession) -> VenueRest:
        """The venue's REST side over an open HTTP session."""
