"""A Binance spot venue: the dialect put together with one venue's facts. Implements `Venue`."""

import json
from collections.abc import Sequence
from copy import copy

from marketfeed_workers.venues.binance_spot.mapper import batch_reader, reader, stream_of
from marketfeed_workers.venues.binance_spot.rest import BinanceRest, Weights
from marketfeed_workers.venues.venue import RestAccess, StreamKind, VenueFacts, VenueRest


class BinanceSpot:
    """See `Venue`.

    Args:
        facts: what the rest of the worker must know.
        time_unit_us: the unit of the times in its frames, in microseconds.
        weights: what its REST endpoints cost.
        history_needs_key: whether old trades by id are given only to holders of an API key.
    """

    def __init__(
        self, facts: VenueFacts, *, time_unit_us: int, weights: Weights, history_needs_key: bool
    ) -> None:
        self.facts = facts
        self.kinds: frozenset[StreamKind] = frozenset({"trade", "bookTicker"})
        self.read = reader(facts.name, time_unit_us)
        self.read_all = batch_reader(facts.name, time_unit_us)
        self._parameters = {1000: "", 1: "timeUnit=MICROSECOND"}[time_unit_us]
        self._weights = weights
        self._history_needs_key = history_needs_key

    def reading(self, kinds: frozenset[StreamKind]) -> "BinanceSpot":
        """This venue, of which only `kinds` is read."""
        chosen = copy(self)
        chosen.kinds = kinds
        return chosen

    def streams(self, symbol: str) -> tuple[str, ...]:
        """What is read of a symbol, trades first; stream names take the symbol in small letters."""
        return tuple(f"{symbol.lower()}@{kind}" for kind in sorted(self.kinds, reverse=True))

    def stream_url(self, base: str, streams: Sequence[str]) -> str:
        """The combined stream's address, so that each frame names the stream that it belongs to."""
        parameters = [f"streams={'/'.join(streams)}" if streams else "", self._parameters]
        query = "&".join(filter(None, parameters))
        return f"{base.rstrip('/')}/stream" + (f"?{query}" if query else "")

    def stream_of(self, frame: bytes) -> str:
        """The name of the stream that a frame belongs to; "" when it is not market data."""
        return stream_of(frame)

    def subscribe(self, request_id: int, streams: Sequence[str]) -> str:
        """The command that adds streams to a connection."""
        return json.dumps({"method": "SUBSCRIBE", "params": list(streams), "id": request_id})

    def unsubscribe(self, request_id: int, streams: Sequence[str]) -> str:
        """The command that takes streams away from a connection."""
        return json.dumps({"method": "UNSUBSCRIBE", "params": list(streams), "id": request_id})

    def list_subscriptions(self, request_id: int) -> str:
        """The command whose reply's result is the list of a connection's streams."""
        return json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": request_id})

    def rest(self, access: RestAccess) -> VenueRest:
        """The REST side."""
        return BinanceRest(
            self.facts.name, access, weights=self._weights, history_needs_key=self._history_needs_key
        )
