"""Probes of streams over REST: whether the venue has newer data than a stream has delivered."""

import asyncio
import math
from collections.abc import Callable
from typing import Final, NamedTuple

from marketfeed_wire import Trade
from marketfeed_workers.stream.id_series import SeriesDecision, decide_by_newest
from marketfeed_workers.stream.liveness import StreamLiveness
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.errors import REFUSED_SECONDS, Refused, Unreachable
from marketfeed_workers.venues.venue import BestQuote, Fetched, StreamKind, VenueRest

MAX_PROBES: Final = 2
"""Concurrent requests: a stalled connection is detected by its first streams."""
PROBE_SECONDS: Final = 10.0
"""Timeout of REST including rate limiting."""


class StreamId(NamedTuple):
    """A stream of a symbol."""

    symbol: str
    kind: StreamKind


class StreamProbe:
    """Queries REST for the newest data of streams."""

    def __init__(self, rest: VenueRest, pipeline: Pipeline, monotonic: Callable[[], float]) -> None:
        self._rest = rest
        self._pipeline = pipeline
        self._monotonic = monotonic
        self._places = asyncio.Semaphore(MAX_PROBES)
        self._refused_until = -math.inf

    @property
    def is_refused(self) -> bool:
        """Whether REST has refused this address within REFUSED_SECONDS."""
        return self._monotonic() < self._refused_until

    async def newest(self, stream: StreamId) -> Trade | BestQuote | None:
        """Return the newest trade, or the best bid and ask, over REST.

        Raises:
            VenueError, TimeoutError: REST did not respond, or refuses this address.
        """
        async with asyncio.timeout(PROBE_SECONDS), self._places:
            if self.is_refused:
                raise Unreachable("rest_refused", "REST has refused this address; retried in some minutes")
            try:
                if stream.kind == "trade":
                    return await self._rest.newest_trade(stream.symbol)
                return await self._rest.best_quote(stream.symbol)
            except Refused:
                self._refused_until = self._monotonic() + REFUSED_SECONDS
                raise

    def is_newer(self, stream: StreamId, newest: Trade | BestQuote | None, liveness: StreamLiveness) -> bool:
        """Return whether REST has newer data than the stream has delivered and REST has returned before."""
        flow = self._pipeline.flows.get(stream.symbol)
        if newest is None or flow is None:
            return False
        reference = liveness.reference
        if isinstance(newest, Trade):
            known = [reference.trade_id] if isinstance(reference, Trade) else []
            # Trades in the reorder buffer, or in flight to Kafka, have been delivered, too.
            known += [flow.sequence.newest] if flow.sequence.newest is not None else []
            if not known or newest.trade_id > max(known):
                return True
            # A lower id with a later time: the venue has restarted the ids while the stream is silent.
            known_us = flow.newest_time_us
            if known_us is None and isinstance(reference, Trade):
                known_us = reference.trade_time_us
            if known_us is None:
                return False
            decision = decide_by_newest(newest, known_us, max(known), is_missing=False)
            return decision is SeriesDecision.RESTARTED
        # Quotes have no id in REST: any other best bid or ask is newer.
        known_quote = reference if reference is not None else flow.best_quote()
        if known_quote is None and flow.last_quote is not None:
            return False  # the stream's newest quote is invalid and cannot be compared
        return newest != known_quote

    def publish(self, flow: SymbolFlow, newest: Trade, reference: Trade | None) -> None:
        """Publish the newest trade; the trades before it become a gap, which is backfilled."""
        if flow.sequence.newest is None:
            if reference is None:
                return  # from before the subscription, and nothing was published before
            self._pipeline.fetched.publish(flow, Fetched([reference, newest], [], "trades"))
        elif newest.trade_id < flow.sequence.newest:
            self._pipeline.resets.suspect(flow)
            return
        else:
            self._pipeline.fetched.publish(flow, Fetched([newest], [], "trades"))
        self._pipeline.on_gap(flow.symbol)
