"""One WebSocket connection and the only reconnect loop.

    waiting ──▶ connecting ──▶ streaming ──▶ (cut, silence, close) ──▶ waiting …
                    └─▶ refused: the venue will not serve us; asking again would only make it worse

The delay grows from attempt to attempt and starts anew only when data has come: a venue that accepts a connection
and closes it at once is not hammered.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from marketfeed_chassis import backoff, logs
from marketfeed_wire.status import ConnectionState, ConnectionStatus
from marketfeed_workers.counters import Counters
from marketfeed_workers.errors import Limited, Refused, Unreachable
from marketfeed_workers.pipeline import Pipeline
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.transports.socket import Closed, OpenSocket, Socket
from marketfeed_workers.venues.venue import Reply, Venue

log = logs.get(__name__)

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 30.0


@dataclass(frozen=True)
class _Plan:
    """What a connection reads, and from where."""

    url: str
    streams: tuple[str, ...]


class Connection:
    """Keeps one connection's streams flowing into the pipeline until cancelled."""

    def __init__(
        self,
        number: int,
        symbols: list[str],
        *,
        venue: Venue,
        settings: WorkerSettings,
        open_socket: OpenSocket,
        pipeline: Pipeline,
        counters: Counters,
        now_us: Callable[[], int],
        chance: random.Random,
    ) -> None:
        streams = [stream for symbol in symbols for stream in venue.streams(symbol)]
        base = settings.binance_ws_base or venue.facts.ws_base
        self._plan = _Plan(venue.stream_url(base, streams), tuple(streams))
        self._number = number
        self._settings = settings
        self._open_socket = open_socket
        self._pipeline = pipeline
        self._counters = counters
        self._now_us = now_us
        self._chance = chance
        self._state: ConnectionState = "connecting"
        self._reason = "not connected yet"
        self._connected_time_us: int | None = None
        self._last_frame_time_us: int | None = None
        self._got_data = False
        self._reconnects = -1
        self._log = log.bind(connection=number)

    def status(self) -> ConnectionStatus:
        """What this connection does now; safe to call from another thread."""
        return ConnectionStatus(
            id=self._number,
            state=self._state,
            streams=len(self._plan.streams),
            connected_time_us=self._connected_time_us,
            last_frame_time_us=self._last_frame_time_us,
            reconnects=max(0, self._reconnects),
            reason=self._reason,
        )

    def on_frames(self, frames: list[bytes]) -> None:
        """Frames that one read delivered (see `FrameSink`)."""
        self._last_frame_time_us = self._now_us()
        self._got_data = True
        for notice in self._pipeline.process(frames):
            if isinstance(notice, Reply):
                if notice.error:
                    self._counters.failures["command_refused"] += 1
                    self._log.error("the venue refused a command", reason=notice.error)
            else:
                self._log.info("the venue announces the end of this connection")

    def on_control_frame(self) -> None:
        """The peer is alive (see `FrameSink`)."""
        self._last_frame_time_us = self._now_us()

    async def run(self) -> None:
        """Connect, and connect again whenever it ends; returns only when the venue refuses us."""
        delays = self._new_delays()
        while True:
            self._got_data = False
            try:
                ending = await self._one_life()
                self._ended(
                    "connection_closed", f"closed by the venue with {ending.code} {ending.reason}".rstrip()
                )
                delay = next(self._new_delays() if self._got_data else delays)
            except Refused as error:
                self._ended(error.reason, str(error))
                self._state = "refused"
                self._log.error("the venue refuses this worker; not trying again", reason=str(error))
                return
            except Limited as error:
                self._ended(error.reason, str(error))
                delay = error.retry_after_seconds
            except Unreachable as error:
                self._ended(error.reason, str(error))
                delay = next(delays)
            if self._got_data:
                delays = self._new_delays()
            self._log.warning("connection ended", reason=self._reason, retry_in_seconds=round(delay, 2))
            await asyncio.sleep(delay)

    async def _one_life(self) -> Closed:
        self._state = "connecting"
        self._reconnects += 1
        socket = await self._open_socket(self._plan.url, self, self._settings.ws_open_timeout_seconds)
        self._connected_time_us = self._last_frame_time_us = self._now_us()
        self._state, self._reason = "streaming", ""
        self._log.info("connected", streams=len(self._plan.streams))
        self._pipeline.attach(socket)
        watch = asyncio.create_task(self._watch(socket), name=f"watch-{self._number}")
        try:
            return await socket.closed
        finally:
            watch.cancel()
            self._pipeline.detach(socket)
            socket.close()

    async def _watch(self, socket: Socket) -> None:
        """Ping a silent peer; drop the connection when it does not answer either."""
        idle_us = int(self._settings.ws_idle_timeout_seconds * 1_000_000)
        pinged = False
        while True:
            silent_us = self._now_us() - (self._last_frame_time_us or 0)
            if self._pipeline.paused or silent_us < idle_us // 2:
                pinged = False
            elif silent_us >= idle_us:
                self._log.warning("no frame and no pong came", silent_seconds=round(silent_us / 1e6, 1))
                socket.abort()
                return
            elif not pinged:
                socket.ping()
                pinged = True
            await asyncio.sleep(self._settings.ws_idle_timeout_seconds / 8)

    def _ended(self, reason: str, message: str) -> None:
        self._counters.failures[reason] += 1
        self._state, self._reason = "waiting", message
        self._connected_time_us = None

    def _new_delays(self) -> Iterator[float]:
        return backoff.delays(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, self._chance)
