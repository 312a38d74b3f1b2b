"""A venue of another protocol, and a worker for it: run as a script, this file is `marketfeed-worker`.

What it does otherwise than the venues that are built in, each as some real venue does it: names (BTC/USD on the
WebSocket, XBTUSD over REST, BTCUSD here), trade ids as text, prices as JSON numbers, the taker's side, no event time,
several trades a frame, a snapshot at the start of a subscription, a ping that is a command, everything subscribed by
command, trades over REST by time in nanoseconds.
"""

import json
import runpy
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final, Literal

import msgspec

from marketfeed_service.id_ranges import IdRange, of_ids
from marketfeed_wire import Trade
from marketfeed_workers.venues.errors import BadFrame, Unreachable
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import (
    AppPing,
    BestQuote,
    DecodedFrames,
    Fetched,
    Reply,
    RestAccess,
    StreamKind,
    SymbolInfo,
    VenueFacts,
    VenueTime,
)

PAGE: Final = 5
"""Maximum number of trades in a REST response."""

MARGIN_NS: Final = 500_000_000
"""How much earlier than the given time trades are requested."""

IN_STREAMS: Final = {"BTCUSD": "BTC/USD", "ETHUSD": "ETH/USD"}
OVER_REST: Final = {"BTCUSD": "XBTUSD", "ETHUSD": "ETHUSD"}
OURS: Final = {theirs: ours for names in (IN_STREAMS, OVER_REST) for ours, theirs in names.items()}


class Match(msgspec.Struct):
    symbol: str
    trade_id: str
    price: msgspec.Raw
    qty: msgspec.Raw
    taker: Literal["buy", "sell"]
    time_ns: int


class Frame(msgspec.Struct):
    channel: Literal["trade", "reply"]
    type: Literal["snapshot", "update", ""] = ""
    data: list[Match] = []
    req_id: int | None = None
    error: str = ""
    result: list[str] | None = None


_frames: Final = msgspec.json.Decoder(Frame)
_matches: Final = msgspec.json.Decoder(list[Match])


def decimal_text(number: msgspec.Raw) -> str:
    """Return a JSON number as received, without an exponent."""
    text = bytes(number).decode()
    return text if "e" not in text.lower() else f"{Decimal(text):f}"


def trade_of(venue: str, match: Match, received_time_us: int, *, live: bool) -> Trade:
    return Trade(
        venue,
        OURS[match.symbol],
        int(match.trade_id),
        decimal_text(match.price),
        decimal_text(match.qty),
        match.taker == "sell",
        match.time_ns // 1000,
        None,
        received_time_us,
        "stream" if live else "backfill",
    )


class OtherVenue:
    """Implements `Venue`."""

    def __init__(self, facts: VenueFacts) -> None:
        self.facts = facts
        self.kinds: frozenset[StreamKind] = frozenset({"trade"})

    def reading(self, _: frozenset[StreamKind]) -> "OtherVenue":
        return self

    def streams(self, symbol: str) -> tuple[str, ...]:
        return (f"trade:{IN_STREAMS[symbol]}",)

    def stream_url(self, base: str, _: Sequence[str]) -> str:
        return f"{base}/v2"

    def stream_of(self, frame: bytes) -> str:
        found = _frames.decode(frame)
        return f"trade:{found.data[0].symbol}" if found.type == "update" else ""

    def subscribe(self, request_id: int, streams: Sequence[str]) -> str:
        return json.dumps({"method": "subscribe", "streams": list(streams), "req_id": request_id})

    def unsubscribe(self, request_id: int, streams: Sequence[str]) -> str:
        return json.dumps({"method": "unsubscribe", "streams": list(streams), "req_id": request_id})

    def list_subscriptions(self, request_id: int) -> str:
        return json.dumps({"method": "list", "req_id": request_id})

    def read_all(self, frames: list[bytes], received_time_us: int) -> DecodedFrames:
        batch = DecodedFrames([], [], [], [])
        for frame in frames:
            try:
                found = _frames.decode(frame)
            except msgspec.DecodeError as error:
                batch.refused.append(BadFrame(str(error)))
                continue
            if found.channel == "reply":
                batch.notices.append(Reply(found.req_id, found.error, found.result))
            batch.trades.extend(
                trade_of(self.facts.name, match, received_time_us, live=found.type == "update")
                for match in found.data
            )
        return batch

    def rest(self, access: RestAccess) -> "OtherRest":
        return OtherRest(self.facts.name, access)


class OtherRest:
    """Implements `VenueRest`: a request is a page of trades since a time, oldest first."""

    def __init__(self, venue: str, access: RestAccess) -> None:
        self._venue = venue
        self._access = access

    def ids_restarted(self, symbol: str) -> None:
        """Nothing is cached."""

    async def symbols(self) -> dict[str, SymbolInfo]:
        listed: dict[str, str] = await self._get("pairs")
        return {OURS[name]: SymbolInfo(status, status == "online") for name, status in listed.items()}

    async def is_listed(self, symbol: str) -> bool:
        return symbol in await self.symbols()

    async def server_time(self) -> VenueTime:
        before = self._access.monotonic()
        time_us = int(await self._get("time")) // 1000
        return VenueTime(time_us, (before + self._access.monotonic()) / 2)

    async def newest_trade(self, symbol: str) -> Trade | None:
        page = await self._page(symbol, -1)
        return page[-1] if page else None

    async def best_quote(self, _: str) -> BestQuote | None:
        return None

    async def newest_update_id(self, _: str) -> None:
        return None

    async def first_id_since(self, symbol: str, time_us: int) -> int | None:
        page = await self._page(symbol, time_us * 1000)
        return page[0].trade_id if page else None

    @property
    def newest_only(self) -> None:
        return None

    async def trades(
        self,
        symbol: str,
        ids: IdRange,
        near_time_us: int,
        _conflicts: Sequence[IdRange] = (),
        *,
        is_backfill: bool = False,
    ) -> Fetched:
        since_ns, found, seen_to = near_time_us * 1000 - MARGIN_NS, list[Trade](), ids.first - 1
        while page := await self._page(symbol, since_ns):
            if page[0].trade_id > seen_to + 1 and not found and page[0].trade_id > ids.first:
                break  # the page begins after the ids: nothing is proven
            found += [trade for trade in page if ids.first <= trade.trade_id <= ids.last]
            seen_to = page[-1].trade_id
            if seen_to >= ids.last or len(page) < PAGE:
                break
            since_ns = page[-1].trade_time_us * 1000
        proven = IdRange(ids.first, min(ids.last, seen_to))
        missing = set(range(proven.first, proven.last + 1)) - {trade.trade_id for trade in found}
        return Fetched(found, list(of_ids(sorted(missing))), "trades since a time")

    async def _page(self, symbol: str, since_ns: int) -> list[Trade]:
        rows = await self._get(f"trades/{OVER_REST[symbol]}?since={since_ns}")
        matches = _matches.decode(msgspec.json.encode(rows))
        return [trade_of(self._venue, match, self._access.now_us(), live=False) for match in matches]

    async def _get(self, path: str) -> object:
        await self._access.budget.acquire(1)
        async with self._access.session.get(f"{self._access.base}/0/{path}") as answer:
            if answer.status != 200:
                raise Unreachable("rest_failed", f"{path}: {answer.status}")
            return msgspec.json.decode(await answer.read())


CONTIGUOUS: Final = OtherVenue(
    VenueFacts(
        name="other",
        ws_base="wss://other.invalid",
        rest_base="https://other.invalid",
        trade_ids="contiguous",
        max_streams_per_connection=50,
        max_streams_in_url=0,
        max_names_per_command=1,
        command_interval_seconds=0.05,
        connection_life_seconds=24 * 3600,
        connection_attempts=150,
        connection_attempts_window_seconds=600,
        app_ping=AppPing(0.2, lambda request_id: json.dumps({"method": "ping", "req_id": request_id})),
    )
)
INCREASING: Final = OtherVenue(replace(CONTIGUOUS.facts, name="other_increasing", trade_ids="increasing"))


def register() -> None:
    """Register these venues for settings and worker."""
    VENUES.update({venue.facts.name: venue for venue in (CONTIGUOUS, INCREASING)})


if __name__ == "__main__":
    register()
    runpy.run_module(
        "marketfeed_workers", run_name="__main__"
    )  # only now: settings are built from the registered venues
