"""Interface between a venue and the rest of the worker: facts, frames to messages, commands, REST.

A venue translates its own symbols: calls and messages use ours. Trade ids are numbers. Prices and quantities are
decimal text without an exponent, digit for digit as received. A trade's side is given by whether its buyer was the
maker.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from aiohttp import ClientSession
from pydantic import SecretStr

from marketfeed_service.id_ranges import IdRange
from marketfeed_wire import BookTicker, Trade
from marketfeed_workers.rate_limit import WeightBudget
from marketfeed_workers.venues.errors import BadFrame


class Reply(NamedTuple):
    """The venue's reply to a command."""

    request_id: int | None
    error: str
    """Why the command failed; "" on success."""
    result: object


class ShutdownNotice(NamedTuple):
    """The venue's announcement that it will close this connection soon."""


Event = Trade | BookTicker | Reply | ShutdownNotice | None
"""Meaning of a frame; None: irrelevant."""


class DecodedFrames(NamedTuple):
    """The decoded frames of one read, in order by type."""

    trades: list[Trade]
    quotes: list[BookTicker]
    notices: list[Reply | ShutdownNotice]
    """Replies and notices about the connection itself."""
    refused: list[BadFrame]
    """Errors of the frames that were skipped."""
    unexpected: Sequence[bytes] = ()
    """Frames that are neither a message of a supported stream nor about the connection."""


StreamKind = Literal["trade", "bookTicker"]
"""Trades, or the best bid and ask."""


class BestQuote(NamedTuple):
    """Best bid and ask over REST, for comparison with the stream."""

    bid_price: Decimal
    bid_qty: Decimal
    ask_price: Decimal
    ask_qty: Decimal


class AppPing(NamedTuple):
    """Application-level keepalive: a command with a `Reply`; without one the connection is dead."""

    interval_seconds: float
    command: Callable[[int], str]
    """Returns the command for a request id."""


@dataclass(frozen=True, kw_only=True)
class VenueFacts:
    """Properties of a venue; their sources are in the venue's module."""

    name: str
    ws_base: str
    rest_base: str
    trade_ids: Literal["contiguous", "increasing"]
    """contiguous: +1 per symbol, so that gaps can be detected; increasing: only duplicates can be detected."""
    max_streams_per_connection: int
    max_streams_in_url: int
    """Above this number the connection is opened without streams and subscribed by commands."""
    max_names_per_command: int
    command_interval_seconds: float
    connection_life_seconds: float
    """Age at which the venue closes a connection."""
    connection_attempts: int
    connection_attempts_window_seconds: float
    app_ping: AppPing | None = None
    """Application-level keepalive; None: WebSocket pings only."""


class SymbolInfo(NamedTuple):
    """A symbol as the venue lists it."""

    status: str
    trading: bool


class VenueTime(NamedTuple):
    """A reading of the venue's clock."""

    time_us: int
    at: float
    """Our monotonic time of the reading: the middle of the request (Cristian's algorithm), without rate limiting."""


class Fetched(NamedTuple):
    """Result of a request for trade ids; ids that are neither in `trades` nor in `absent` are undetermined."""

    trades: list[Trade]
    absent: list[IdRange]
    """Ids that the venue has confirmed not to exist."""
    proof: str
    """The endpoint of the response."""
    covered: IdRange | None = None
    """The ids that the response covers: those still missing are not available now. None: from the first to the last id
    in `trades` and `absent`."""
    requested: IdRange | None = None
    """The ids of the request, where nothing is covered; None: all."""
    refused: tuple[str, ...] = ()
    """Errors of the rows that cannot be used; their ids stay missing."""

    @property
    def reach(self) -> IdRange | None:
        """`covered`, or its default."""
        if self.covered is not None:
            return self.covered
        answered = [*(IdRange(each.trade_id, each.trade_id) for each in self.trades), *self.absent]
        if not answered:
            return None
        return IdRange(min(each.first for each in answered), max(each.last for each in answered))


class VenueRest(Protocol):
    """The venue's REST API. Every call may raise Unreachable, Limited or Refused."""

    @property
    def newest_only(self) -> int | None:
        """Number of a symbol's newest trades that are available row by row; None: all that the venue keeps."""

    def ids_restarted(self, symbol: str) -> None:
        """Reset cached state of the symbol's ids: the venue has restarted them."""

    async def symbols(self) -> dict[str, SymbolInfo]:
        """Return every listed symbol, except for entries that cannot be decoded."""

    async def is_listed(self, symbol: str) -> bool:
        """Return whether the venue lists a symbol, by a request for this symbol alone; no response raises."""

    async def server_time(self) -> "VenueTime":
        """Return the venue's time."""

    async def newest_trade(self, symbol: str) -> Trade | None:
        """Return the newest trade of a symbol; None if there is none."""

    async def best_quote(self, symbol: str) -> BestQuote | None:
        """Return the current best bid and ask of a symbol; None if there is none."""

    async def newest_update_id(self, symbol: str) -> int | None:
        """Return the newest update id of a symbol's quotes; None if the venue does not provide it."""

    async def first_id_since(self, symbol: str, time_us: int) -> int | None:
        """Return the id of the first trade at or after a time; None if there is none soon after it."""

    async def trades(
        self,
        symbol: str,
        ids: IdRange,
        near_time_us: int,
        also: Sequence[IdRange] = (),
        *,
        is_backfill: bool = False,
    ) -> Fetched:
        """Fetch the trades of `ids`, or of a part of them, with as few requests as possible.

        Args:
            symbol: the symbol.
            ids: the trade ids to fetch.
            near_time_us: approximate time of the trade before them, for venues that find trades by time; it may be late
                by the time of an acknowledgement.
            also: further missing ids; those that a response covers are part of the result.
            is_backfill: whether to leave a part of the request weight to other requests.
        """


def _ignore(_reason: str, _count: int) -> None:
    """Count nothing."""


class RestAccess(NamedTuple):
    """Access to a venue's REST API."""

    base: str
    session: ClientSession
    budget: WeightBudget
    api_key: SecretStr
    now_us: Callable[[], int]
    count_failure: Callable[[str, int], None] = _ignore
    """Counts failures: reason for metrics, and number."""
    latest_us: Callable[[], int] | None = None
    """Latest possible time of a trade, as `VenueClock`; None: the host's clock plus a day."""
    monotonic: Callable[[], float] = time.monotonic


class Venue(Protocol):
    """An exchange."""

    facts: VenueFacts
    kinds: frozenset[StreamKind]
    """The streams to subscribe of each symbol."""

    def reading(self, kinds: frozenset[StreamKind]) -> "Venue":
        """Return this venue with only the streams of `kinds`."""

    def streams(self, symbol: str) -> tuple[str, ...]:
        """Return the stream names of a symbol, one for each of `kinds_of` this venue, in that order."""

    def stream_url(self, base: str, streams: Sequence[str]) -> str:
        """Return the URL of a connection with these streams, or of one without streams."""

    def stream_of(self, frame: bytes) -> str:
        """Return the stream name of a frame; "" if it is not live market data.

        A snapshot at the beginning of a subscription is not live: it is also sent while the stream itself is stalled.
        """

    def subscribe(self, request_id: int, streams: Sequence[str]) -> str:
        """Return the command that adds streams to a connection."""

    def unsubscribe(self, request_id: int, streams: Sequence[str]) -> str:
        """Return the command that removes streams from a connection."""

    def list_subscriptions(self, request_id: int) -> str:
        """Return the command whose result is the list of a connection's streams."""

    def read_all(self, frames: list[bytes], received_time_us: int) -> DecodedFrames:
        """Decode the frames of one read. Pure; a symbol's trades are in the order of their ids.

        Trades of a snapshot have the origin backfill: they may have been received before.
        """

    def rest(self, access: RestAccess) -> VenueRest:
        """Return the client of the venue's REST API."""


def one_by_one(
    read: Callable[[bytes, int], Event], frames: list[bytes], received_time_us: int
) -> DecodedFrames:
    """Implement `Venue.read_all` for a venue with one event per frame; `read` raises BadFrame."""
    unexpected: list[bytes] = []
    batch = DecodedFrames([], [], [], [], unexpected)
    for frame in frames:
        try:
            event = read(frame, received_time_us)
        except BadFrame as error:
            batch.refused.append(error)
            continue
        if isinstance(event, BookTicker):
            batch.quotes.append(event)
        elif isinstance(event, Trade):
            batch.trades.append(event)
        elif event is not None:
            batch.notices.append(event)
        else:
            unexpected.append(frame)
    return batch


def kinds_of(venue: Venue) -> list[StreamKind]:
    """Return the streams to subscribe of each symbol, trades first."""
    return sorted(venue.kinds, reverse=True)
