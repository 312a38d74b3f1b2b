"""Detection of stalled streams: observes every stream, probes silent ones over REST, rotates stalled connections.

`liveness` has the rule. This module provides its input: the session of a stream, the number of received messages, and
the venue's newest trade or best bid and ask over REST.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from marketfeed_service import logs
from marketfeed_wire import Trade
from marketfeed_wire.status import StreamStatus
from marketfeed_workers.connection.pool import ConnectionPool
from marketfeed_workers.connection.session import Session
from marketfeed_workers.counters import Counters
from marketfeed_workers.stream.liveness import DESCRIPTIONS, StreamLiveness
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream_probe import MAX_PROBES, StreamId, StreamProbe
from marketfeed_workers.venues.errors import Limited, Refused, VenueError
from marketfeed_workers.venues.monitor import VenueMonitor
from marketfeed_workers.venues.venue import BestQuote, StreamKind, Venue, VenueRest, kinds_of

log = logs.get(__name__)

CHECK_SECONDS: Final = 0.25
ROTATE_REJECTING_SECONDS: Final = 60.0
"""Interval of rotating a connection whose messages are all rejected: a new one may be correct, for example if the venue
ignored the time unit requested at the handshake."""


class StallDetector:
    """Detects stalled streams of a pipeline; run `run` as a task."""

    def __init__(
        self,
        venue: Venue,
        rest: VenueRest,
        pipeline: Pipeline,
        counters: Counters,
        monotonic: Callable[[], float],
        quiet_seconds: float,
        symbols: VenueMonitor,
    ) -> None:
        self._venue = venue
        self._probe = StreamProbe(rest, pipeline, monotonic)
        self._pipeline = pipeline
        self._counters = counters
        self._monotonic = monotonic
        self._quiet_seconds = quiet_seconds
        self._symbols = symbols
        self._pool: ConnectionPool | None = None
        self._streams: dict[StreamId, StreamLiveness] = {}
        self._carriers: dict[StreamId, Session] = {}
        self._ids: dict[str, StreamId] = {}
        self._probes: dict[StreamId, asyncio.Task[None]] = {}
        self._episodes: dict[StreamId, logs.Episode] = {}
        self._unverified: dict[StreamId, logs.Episode] = {}
        self._rejecting_since: dict[Session, float] = {}
        self._observed_at = monotonic()
        self._now = 0.0

    def watch(self, pool: ConnectionPool) -> None:
        """Observe the streams of `pool`, whose connections query this object."""
        self._pool = pool

    async def run(self) -> None:
        """Observe and probe until cancelled."""
        self._observed_at = self._monotonic()
        async with asyncio.TaskGroup() as probes:
            while True:
                for stream in self.observe():
                    probe = self._run_probe(stream, self._streams[stream])
                    self._probes[stream] = probes.create_task(probe, name=f"probe-{stream.symbol}")
                await asyncio.sleep(CHECK_SECONDS)

    def observe(self) -> list[StreamId]:
        """Update the state of every stream; return those to probe now."""
        monotonic = self._monotonic()
        if not self._pipeline.paused:
            # Only observed time counts as silence: after a freeze of the process messages are still in the buffers.
            self._now += min(monotonic - self._observed_at, 4 * CHECK_SECONDS)
        self._observed_at = monotonic
        self._follow_assignment()
        self._follow_sessions()
        for stream in self._carriers:
            liveness = self._streams[stream]
            was_broken = self._is_broken(stream)
            liveness.observe(self._seen(stream), self._now)
            self._update_episode(stream, liveness)
            if liveness.state == "live":
                self._end(self._unverified, stream)
            if self._is_broken(stream) and not was_broken:
                self._replace(stream, f"{liveness.state}_stream")
        self._rotate_rejecting()
        self._symbols.check_deliveries()
        self._probes = {stream: probe for stream, probe in self._probes.items() if not probe.done()}
        if self._pipeline.paused or self._probe.is_refused:
            return []
        delisted = self._symbols.delisted  # REST has no data of them
        due = [
            stream
            for stream in self._carriers
            if stream not in self._probes
            and stream.symbol not in delisted
            and self._streams[stream].probe_due(self._now)
        ]
        due.sort(key=lambda stream: self._streams[stream].bound)
        return due[: MAX_PROBES - len(self._probes)]

    def not_ready(self) -> str:
        """Return why a stream of a listed symbol is not ready, "" if all are. For any thread."""
        delisted = self._symbols.delisted
        descriptions = [
            f"{self._name(stream)} {DESCRIPTIONS[liveness.state]}"
            for stream, liveness in list(self._streams.items())
            if not liveness.ready and stream.symbol not in delisted
        ]
        if not descriptions:
            return ""
        more = f"; and {len(descriptions) - 5} more" if len(descriptions) > 5 else ""
        return f"stream {'; '.join(descriptions[:5])}{more}"

    def status(self, symbol: str) -> dict[str, StreamStatus]:
        """Return the state of each stream of a symbol. For any thread."""
        states = {}
        for kind in kinds_of(self._venue):
            liveness = self._streams.get(StreamId(symbol, kind))
            if liveness is not None:
                flow = self._pipeline.flows.get(symbol)
                rejecting = kind == "trade" and flow is not None and flow.is_rejecting
                states[_STATUS_NAMES[kind]] = StreamStatus(
                    # Rejected messages are not delivered, even if they are backfilled.
                    state="stalled" if rejecting else liveness.state,
                    silent_seconds=round(liveness.silent_seconds(self._now), 1),
                    bound_seconds=round(liveness.bound, 1),
                )
        return states

    def broken(self, names: list[str]) -> set[str]:
        """Return those of the streams that are stalled, or unverified although they are usually active."""
        return {
            name for name in names if (stream := self._ids.get(name)) is not None and self._is_broken(stream)
        }

    def first_message_timeout(self, name: str) -> float:
        """Return the seconds for the first message of a stream in a new session before it is probed."""
        stream = self._ids.get(name)
        if stream is None or self._streams[stream].state == "idle":
            return 0.0
        return self._streams[stream].bound

    def seen(self, name: str) -> int:
        """Return the number of received messages of a stream, over all sessions."""
        stream = self._ids.get(name)
        return 0 if stream is None else self._seen(stream)

    async def undelivered(self, names: list[str]) -> set[str]:
        """Return those of the streams with newer data in REST than any session has delivered."""
        behind = await asyncio.gather(*(self._is_undelivered(name) for name in names))
        return {name for name, is_behind in zip(names, behind, strict=True) if is_behind}

    async def _is_undelivered(self, name: str) -> bool:
        stream = self._ids.get(name)
        if stream is None or stream.symbol in self._symbols.delisted:
            return False
        seen, liveness = self._seen(stream), self._streams[stream]
        try:
            newest = await self._probe.newest(stream)
        except (VenueError, TimeoutError):
            return False  # undetermined: the stream is not ready, and is probed again
        if self._streams.get(stream) is not liveness or self._seen(stream) != seen:
            return False  # the symbol was removed, or the stream has delivered, in the meantime
        return self._probe.is_newer(stream, newest, liveness)

    def _is_broken(self, stream: StreamId) -> bool:
        liveness = self._streams[stream]
        if stream.symbol in self._symbols.delisted:
            return False  # no connection can deliver it
        return liveness.state == "stalled" or (liveness.state == "unverified" and liveness.is_active)

    def _follow_assignment(self) -> None:
        kinds = kinds_of(self._venue)
        desired = {StreamId(symbol, kind): None for symbol in self._pipeline.flows for kind in kinds}
        for stream in [stream for stream in self._streams if stream not in desired]:
            self._end(self._episodes, stream)
            self._unverified.pop(stream, None)  # not probed any more
            del self._streams[stream]
            self._carriers.pop(stream, None)
        for stream in [stream for stream in desired if stream not in self._streams]:
            self._streams[stream] = StreamLiveness(self._seen(stream), self._now, self._quiet_seconds)
            self._ids[self._name(stream)] = stream
        if len(self._ids) > len(self._streams):
            self._ids = {self._name(stream): stream for stream in self._streams}

    def _follow_sessions(self) -> None:
        carriers: dict[StreamId, Session] = {}
        for connection in self._pool.connections if self._pool is not None else ():
            session = connection.session
            if session is not None:
                carriers |= {
                    stream: session
                    for name in session.streams
                    if (stream := self._ids.get(name)) in self._streams
                }
        for stream, session in carriers.items():
            if self._carriers.get(stream) is not session:
                self._streams[stream].subscribe(self._now, verified=self._name(stream) in session.verified)
        self._carriers = carriers

    def _rotate_rejecting(self) -> None:
        """Rotate connections with a symbol whose messages are all rejected."""
        before, self._rejecting_since = self._rejecting_since, {}
        for stream, session in self._carriers.items():
            flow = self._pipeline.flows.get(stream.symbol)
            if flow is None or not flow.is_rejecting or session in self._rejecting_since:
                continue
            since = self._rejecting_since[session] = before.get(session, self._now)
            if self._now - since >= ROTATE_REJECTING_SECONDS:
                self._rejecting_since[session] = self._now
                self._replace(stream, "rejected_messages")

    async def _run_probe(self, stream: StreamId, liveness: StreamLiveness) -> None:
        """Probe a stream: compare it with the venue's newest data over REST."""
        seen, session = self._seen(stream), self._carriers.get(stream)
        liveness.probing(self._now)
        try:
            newest = await self._probe.newest(stream)
        except (VenueError, TimeoutError) as error:
            reason = error.reason if isinstance(error, VenueError) else "rest_timeout"
            self._counters.failures[reason] += 1
            if not isinstance(error, Limited | Refused):
                self._begin_unverified(stream, str(error) or reason)
                self._symbols.request_listing()  # the symbol may have been delisted
            liveness.probe_failed(self._now)
            return
        self._end(self._unverified, stream)
        if self._streams.get(stream) is not liveness:
            return  # the symbol was removed in the meantime, and perhaps added again
        if self._seen(stream) != seen or self._carriers.get(stream) is not session:
            return  # the stream has delivered in the meantime, or has another session
        flow = self._pipeline.flows.get(stream.symbol)
        if flow is None or flow.first_trades or flow.is_gap_unverified:
            return  # removed, or its first trades are held, or its ids may have been reset
        if not self._probe.is_newer(stream, newest, liveness):
            if isinstance(newest, BestQuote):
                liveness.reference = newest  # also if the stream's newest quote cannot be compared
            liveness.on_nothing_newer(self._now)
            return
        reference, is_first = liveness.reference, liveness.is_new
        if liveness.newer(newest, self._now):
            self._counters.failures["stalled_stream"] += 1
            self._update_episode(stream, liveness)
            self._replace(stream, "stalled_stream")
        if isinstance(newest, Trade) and (liveness.state == "stalled" or is_first):
            self._probe.publish(flow, newest, reference if isinstance(reference, Trade) else None)

    def _update_episode(self, stream: StreamId, liveness: StreamLiveness) -> None:
        """Log once when a stream stops delivering and once when it delivers again."""
        episode = self._episodes.get(stream)
        if liveness.state in ("stalled", "unverified") and episode is None:
            episode = self._episodes[stream] = logs.Episode(log, "stream not delivering", "stream delivering")
            episode.begin(
                stream=self._name(stream),
                state=liveness.state,
                reason=DESCRIPTIONS[liveness.state],
                silent_seconds=round(liveness.silent_seconds(self._now), 1),
            )
        elif liveness.ready and episode is not None:
            self._end(self._episodes, stream)

    def _begin_unverified(self, stream: StreamId, reason: str) -> None:
        """Log the begin of failing probes of a stream."""
        if stream in self._streams:  # otherwise it was removed in the meantime
            episode = self._unverified.setdefault(
                stream, logs.Episode(log, "stream not verified", "stream verified", self._monotonic)
            )
            episode.begin(stream=self._name(stream), reason=reason)

    def _end(self, episodes: dict[StreamId, logs.Episode], stream: StreamId) -> None:
        episode = episodes.pop(stream, None)
        if episode is not None:
            episode.end(stream=self._name(stream))

    def _replace(self, stream: StreamId, reason: str) -> None:
        connection = self._pool.connection_of(stream.symbol) if self._pool is not None else None
        if connection is not None:
            connection.rotate(reason)

    def _name(self, stream: StreamId) -> str:
        return self._venue.streams(stream.symbol)[kinds_of(self._venue).index(stream.kind)]

    def _seen(self, stream: StreamId) -> int:
        flow = self._pipeline.flows.get(stream.symbol)
        if flow is None:
            return 0
        return flow.trades if stream.kind == "trade" else flow.quotes


_STATUS_NAMES: Final[dict[StreamKind, str]] = {"trade": "trades", "bookTicker": "quotes"}
