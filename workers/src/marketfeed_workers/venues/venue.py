"""The seam between a venue and the rest of the worker: facts, frames to messages, commands, REST.

What differs from venue to venue ends here. On this side symbols are ours everywhere, in calls and in messages: a venue
that writes them otherwise, perhaps in two ways, translates them. Trade ids are numbers, prices and quantities decimal
text without an exponent, digit for digit as the venue wrote them, and the side of a trade is told by whether its buyer
was the maker.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from aiohttp import ClientSession
from pydantic import SecretStr

from marketfeed_wire import BookTicker, Trade
from marketfeed_workers.budget import WeightBudget
from marketfeed_workers.errors import BadFrame
from marketfeed_workers.id_ranges import IdRange


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


class Batch(NamedTuple):
    """What the frames of one read mean, each kind in order."""

    trades: list[Trade]
    quotes: list[BookTicker]
    notices: list[Reply | ShutdownNotice]
    """What concerns the connection itself."""
    refused: list[BadFrame]
    """Why frames were passed over."""
    unexpected: Sequence[bytes] = ()
    """Frames that are neither a message of a stream that can be asked for, nor about the connection."""


StreamKind = Literal["trade", "bookTicker"]
"""Trades, or the best bid and ask."""


class BestQuote(NamedTuple):
    """The best bid and ask over REST, to be compared with what a stream delivered."""

    bid_price: Decimal
    bid_qty: Decimal
    ask_price: Decimal
    ask_qty: Decimal


class AppPing(NamedTuple):
    """A ping that is a command of the venue's own; its answer is a `Reply`, and without one the connection is dead."""

    interval_seconds: float
    command: Callable[[int], str]
    """From a request id."""


@dataclass(frozen=True, kw_only=True)
class VenueFacts:
    """What the rest of the worker must know of a venue; sources in the venue's own module."""

    name: str
    ws_base: str
    rest_base: str
    trade_ids: Literal["contiguous", "increasing"]
    """contiguous: +1 per symbol, so that a jump is a suspected gap; increasing: only repeats can be told from ids."""
    max_streams_per_connection: int
    max_streams_in_url: int
    """Above this many the connection is opened bare and subscribed by commands."""
    max_names_per_command: int
    command_interval_seconds: float
    connection_life_seconds: float
    """The venue closes a connection at this age."""
    connection_attempts: int
    connection_attempts_window_seconds: float
    app_ping: AppPing | None = None
    """How the venue wants to be asked for a sign of life; None: by the WebSocket's own pings only."""


class SymbolInfo(NamedTuple):
    """A symbol as the venue lists it."""

    status: str
    trading: bool


class VenueTime(NamedTuple):
    """What the venue's clock showed."""

    time_us: int
    at: float
    """When, by our monotonic clock: the middle of the request (Cristian's algorithm), without what it waited for."""


class Fetched(NamedTuple):
    """What the venue has of the trade ids that were asked for; ids in neither part are not known about."""

    trades: list[Trade]
    absent: list[IdRange]
    """Ids that do not exist at the venue."""
    proof: str
    """The endpoint that said so."""
    covered: IdRange | None = None
    """The ids that the response answers for: what is still missing of them is not to be had now. None: the ids from
    the first to the last in `trades` and `absent`."""
    asked: IdRange | None = None
    """The ids that the request was about, where nothing is covered; None: all."""
    refused: tuple[str, ...] = ()
    """Why rows could not be used; their ids stay missing."""

    @property
    def reach(self) -> IdRange | None:
        """`covered`, or what stands for it."""
        if self.covered is not None:
            return self.covered
        answered = [*(IdRange(each.trade_id, each.trade_id) for each in self.trades), *self.absent]
        if not answered:
            return None
        return IdRange(min(each.first for each in answered), max(each.last for each in answered))


class VenueRest(Protocol):
    """The venue's REST side. Every call may raise Unreachable, Limited or Refused."""

    @property
    def newest_only(self) -> int | None:
        """How many of a symbol's newest trades can be had exactly; None: as many as the venue keeps."""

    def ids_began_again(self, symbol: str) -> None:
        """Forget what was noted of the symbol's ids: the venue has begun them again."""

    async def symbols(self) -> dict[str, SymbolInfo]:
        """Every symbol that the venue lists. One that is not among them may have an entry that cannot be read."""

    async def is_listed(self, symbol: str) -> bool:
        """Whether the venue knows a symbol: it is asked about that alone, and silence is no False."""

    async def server_time(self) -> "VenueTime":
        """The venue's clock, and when it showed that."""

    async def newest_trade(self, symbol: str) -> Trade | None:
        """The newest trade that the venue has of a symbol; None when it has none."""

    async def best_quote(self, symbol: str) -> BestQuote | None:
        """The best bid and ask that the venue has of a symbol now; None when it has none."""

    async def newest_update_id(self, symbol: str) -> int | None:
        """The newest update id of a symbol's quotes; None where the venue does not say."""

    async def first_id_since(self, symbol: str, time_us: int) -> int | None:
        """The id of the first trade at or after a time; None when there is none soon after it."""

    async def trades(
        self,
        symbol: str,
        ids: IdRange,
        near_time_us: int,
        also: Sequence[IdRange] = (),
        *,
        is_backfill: bool = False,
    ) -> Fetched:
        """What the venue has of `ids`, or of a part of them, in as few requests as prove something.

        `also`: further ids that are missing; what a response happens to cover of them is part of the answer.
        `near_time_us` is about when the trade before them was matched, for venues that find trades by time: it may be
        late by what an acknowledgement takes. `is_backfill`: a part of the request weight is left to other requests.
        """


def _ignore(_reason: str, _count: int) -> None:
    """Nobody counts."""


class RestAccess(NamedTuple):
    """What a venue's REST side needs to be reached."""

    base: str
    session: ClientSession
    budget: WeightBudget
    api_key: SecretStr
    now_us: Callable[[], int]
    note: Callable[[str, int], None] = _ignore
    """Counts what could not be used: a constant for metrics, and how many."""
    latest_us: Callable[[], int] | None = None
    """The latest time that a trade can bear now, as `VenueClock`; None: what the host's clock says, and a day."""
    monotonic: Callable[[], float] = time.monotonic


class Venue(Protocol):
    """One exchange."""

    facts: VenueFacts
    kinds: frozenset[StreamKind]
    """What is read of each symbol."""

    def reading(self, kinds: frozenset[StreamKind]) -> "Venue":
        """This venue, of which only `kinds` is read."""

    def streams(self, symbol: str) -> tuple[str, ...]:
        """The names of the streams of a symbol, one for each of `kinds_of` this venue, in that order."""

    def stream_url(self, base: str, streams: Sequence[str]) -> str:
        """The address that opens a connection with these streams; with none it opens bare, to be subscribed."""

    def stream_of(self, frame: bytes) -> str:
        """The name of the stream that a frame belongs to; "" when it is not live market data.

        A snapshot at the beginning of a subscription is none: it comes also where the stream itself is mute.
        """

    def subscribe(self, request_id: int, streams: Sequence[str]) -> str:
        """The command that adds streams to a connection."""

    def unsubscribe(self, request_id: int, streams: Sequence[str]) -> str:
        """The command that takes streams away from a connection."""

    def list_subscriptions(self, request_id: int) -> str:
        """The command whose reply's result is the list of a connection's streams."""

    def read_all(self, frames: list[bytes], received_time_us: int) -> Batch:
        """What the frames of one read mean. Pure; a symbol's trades in the order of their ids.

        Trades of a snapshot have the origin backfill: they tell of the past, and may have come before.
        """

    def rest(self, access: RestAccess) -> VenueRest:
        """The venue's REST side."""


def one_by_one(read: Callable[[bytes, int], Event], frames: list[bytes], received_time_us: int) -> Batch:
    """`Venue.read_all` for a venue whose frames mean one thing each; `read` raises BadFrame."""
    unexpected: list[bytes] = []
    batch = Batch([], [], [], [], unexpected)
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
    """The kinds of streams that are read of each symbol, trades first."""
    return sorted(venue.kinds, reverse=True)
