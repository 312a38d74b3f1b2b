"""A Binance spot venue: the shared API with one venue's facts. Implements `Venue`."""

import json
from collections.abc import Sequence
from copy import copy

from marketfeed_workers.venues.binance_spot.mapper import batch_reader, reader, stream_of
from marketfeed_workers.venues.binance_spot.rest import BinanceRest
from marketfeed_workers.venues.binance_spot.rest_client import Weights
from marketfeed_workers.venues.venue import RestAccess, StreamKind, VenueFacts, VenueRest


class BinanceSpot:
    """See `Venue`.

    Args:
        facts: properties of the venue.
        time_unit_us: unit of the times in frames, in microseconds.
        weights: request weights of the REST endpoints.
        history_needs_key: whether historicalTrades needs an API key.
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
        """Return this venue with only the streams of `kinds`."""
        chosen = copy(self)
        chosen.kinds = kinds
        return chosen

    def streams(self, symbol: str) -> tuple[str, ...]:
        """Return the stream names of a symbol, trades first; the symbol is in lower case."""
        return tuple(f"{symbol.lower()}@{kind}" for kind in sorted(self.kinds, reverse=True))

    def stream_url(self, base: str, streams: Sequence[str]) -> str:
        """Return the URL of the combined stream, whose frames carry the stream name."""
        parameters = [f"streams={'/'.join(streams)}" if streams else "", self._parameters]
        query = "&".join(filter(None, parameters))
        return f"{base.rstrip('/')}/stream" + (f"?{query}" if query else "")

    def stream_of(self, frame: bytes) -> str:
        """Return the stream name of a frame; "" if it is not market data."""
        return stream_of(frame)

    def subscribe(self, request_id: int, streams: Sequence[str]) -> str:
        """Return the command that adds streams to a connection."""
        return json.dumps({"method": "SUBSCRIBE", "params": list(streams), "id": request_id})

    def unsubscribe(self, request_id: int, streams: Sequence[str]) -> str:
        """Return the command that removes streams from a connection."""
        return json.dumps({"method": "UNSUBSCRIBE", "params": list(streams), "id": request_id})

    def list_subscriptions(self, request_id: int) -> str:
        """Return the command whose result is the list of a connection's streams."""
        return json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": request_id})

    def rest(self, access: RestAccess) -> VenueRest:
        """Return the REST client."""
        return BinanceRest(
            self.facts.name, access, weights=self._weights, history_needs_key=self._history_needs_key
        )
