"""One WebSocket connection from its opening to its end: streams, commands, keepalive.

During a rotation the new session tracks which of its streams have delivered; `Connection` decides when the old one is
closed.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final

from marketfeed_service import logs
from marketfeed_workers.connection.transports.socket import Closed, OpenSocket, Socket
from marketfeed_workers.counters import Counters
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.errors import Unreachable
from marketfeed_workers.venues.venue import AppPing, Reply, ShutdownNotice, Venue

log = logs.get(__name__)

_CHECKS: Final = 8
"""Number of checks for received frames within the idle timeout."""

REPLY_SECONDS: Final = 10.0
"""Timeout of the reply to a command."""


class Session:
    """An open connection. Implements `FrameSink`.

    Attributes:
        streams: streams that the venue has confirmed.
        connected_at: monotonic time of the opening.
        last_frame_time_us: time of the last frame, including pings and pongs.
        warm: set when every stream has delivered; only while deliveries are tracked.
        undelivered: streams that have not delivered yet; empty while deliveries are not tracked.
        verified: streams that have delivered, or of which nothing newer exists.
        ending_soon: set when the venue announces the close.
    """

    def __init__(
        self,
        venue: Venue,
        settings: WorkerSettings,
        pipeline: Pipeline,
        counters: Counters,
        now_us: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self.streams: dict[str, None] = {}  # a dict keeps the order of subscription
        self.connected_time_us = self.last_frame_time_us = now_us()
        self.connected_at = monotonic()
        self.got_data = False
        self.warm = asyncio.Event()
        self.undelivered: set[str] = set()
        self.verified: set[str] = set()
        self.ending_soon = asyncio.Event()
        self._venue = venue
        self._settings = settings
        self._pipeline = pipeline
        self._counters = counters
        self._now_us = now_us
        self._monotonic = monotonic
        self._tracks_deliveries = False
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._last_request_id = 0
        self._command_lock = asyncio.Lock()
        self._socket: Socket | None = None
        self._watches: list[asyncio.Task[None]] = []

    async def open(
        self, open_socket: OpenSocket, base: str, streams: Sequence[str], *, track_deliveries: bool
    ) -> None:
        """Connect and subscribe.

        Args:
            open_socket: opens the socket.
            base: base URL.
            streams: streams to subscribe.
            track_deliveries: whether to track which of them have delivered.

        Raises:
            Unreachable, Limited, Refused: see `errors`; the connection is closed.
        """
        facts = self._venue.facts
        self._tracks_deliveries = track_deliveries
        in_url = streams if len(streams) <= facts.max_streams_in_url else ()
        if track_deliveries:
            self.undelivered.update(
                in_url
            )  # before opening: messages may arrive with the response to the handshake
        url = self._venue.stream_url(base, in_url)
        self._socket = await open_socket(url, self, self._settings.ws_open_timeout_seconds)
        self._pipeline.reads.attach(self._socket)
        self.connected_time_us = self.last_frame_time_us = self._now_us()
        self.connected_at = self._monotonic()
        self.streams.update(dict.fromkeys(in_url))
        self._watches.append(asyncio.create_task(self._watch_silence(self._socket), name="session-watch"))
        if facts.app_ping is not None:
            pinging = self._send_keepalives(self._socket, facts.app_ping)
            self._watches.append(asyncio.create_task(pinging, name="session-ping"))
        if len(in_url) < len(streams):
            try:
                await self.subscribe(streams)
            except (Unreachable, asyncio.CancelledError):
                self.close()
                raise

    async def ended(self) -> Closed:
        """Wait for the end of the connection and return it; raise the pipeline's exception."""
        socket = self._open_socket()
        try:
            return await asyncio.shield(socket.closed)
        finally:
            if socket.closed.done():
                self._release()

    def close(self) -> None:
        """Close the connection and release it."""
        if self._socket is not None:
            self._socket.close()
            self._release()

    def on_frames(self, frames: list[bytes]) -> None:
        """Process the frames of one read."""
        self.last_frame_time_us = self._now_us()
        self.got_data = True
        if self.undelivered:
            self._track_deliveries(frames)
        for notice in self._pipeline.process(frames):
            if isinstance(notice, ShutdownNotice):
                self.ending_soon.set()
            else:
                self._on_reply(notice)

    def on_control_frame(self, *, answered: bool) -> None:
        """Note that the peer is alive."""
        self.last_frame_time_us = self._now_us()
        if answered:
            self._counters.control_frames["pong"] += 1

    async def subscribe(self, streams: Sequence[str]) -> None:
        """Subscribe to streams in chunks, and verify the subscriptions.

        Raises:
            Unreachable: a command failed or timed out, or the venue does not list the streams.
        """
        if self._tracks_deliveries:
            self.undelivered.update(
                set(streams) - self.streams.keys()
            )  # before the command: messages may arrive before the reply
        for chunk in chunks(streams, self._venue.facts.max_names_per_command):
            await self._command(partial(_with_names, self._venue.subscribe, chunk))
        await self._verify(present=streams)
        self.streams.update(dict.fromkeys(streams))

    async def unsubscribe(self, streams: Sequence[str]) -> None:
        """Unsubscribe from streams; raise as `subscribe`."""
        for chunk in chunks(streams, self._venue.facts.max_names_per_command):
            await self._command(partial(_with_names, self._venue.unsubscribe, chunk))
        for stream in streams:
            self.streams.pop(stream, None)
        self.undelivered.difference_update(streams)

    def use(self, idle: Collection[str]) -> None:
        """Put the session into use and stop tracking deliveries; of `idle` streams nothing newer exists."""
        self.verified = (self.streams.keys() - self.undelivered) | set(idle)
        self._tracks_deliveries = False
        self.undelivered = set()

    async def _verify(self, present: Sequence[str]) -> None:
        reply = await self._command(self._venue.list_subscriptions)
        listed = set(reply.result) if isinstance(reply.result, list) else set()
        undelivered = [stream for stream in present if stream not in listed]
        if undelivered:
            raise Unreachable("subscription_lost", f"the venue does not list {', '.join(undelivered[:5])}")

    async def _command(self, make: Callable[[int], str]) -> Reply:
        """Send a command, rate limited, and wait for its reply."""
        socket = self._open_socket()
        self._last_request_id += 1
        request_id = self._last_request_id
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[request_id] = reply
        try:
            async with self._command_lock:
                socket.send(make(request_id))
                self._counters.control_frames["command"] += 1
                await asyncio.sleep(self._venue.facts.command_interval_seconds)
            either: set[asyncio.Future[Any]] = {reply, socket.closed}
            await asyncio.wait(either, timeout=REPLY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._replies.pop(request_id, None)
        if not reply.done():
            raise Unreachable(
                "command_unanswered",
                "the connection ended before the reply to a command"
                if socket.closed.done()
                else f"no reply to a command within {REPLY_SECONDS:g} s",
            )
        answer = reply.result()
        if answer.error:
            raise Unreachable("command_refused", f"command failed: {answer.error}")
        return answer

    def _on_reply(self, reply: Reply) -> None:
        waiting = self._replies.get(reply.request_id or 0)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)
        elif reply.error:
            log.error("venue error received", reason=reply.error)

    def _track_deliveries(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.undelivered.discard(self._venue.stream_of(frame))
        if not self.undelivered:
            self.warm.set()

    async def _watch_silence(self, socket: Socket) -> None:
        """Ping an idle peer; abort the connection without a pong.

        Idle time is counted in checks and not by the clock: after a freeze of the process received frames are still in
        the socket's buffers.
        """
        idle_seconds = self._settings.ws_idle_timeout_seconds
        seen_us, silent_looks = self.last_frame_time_us, 0
        while True:
            await asyncio.sleep(idle_seconds / _CHECKS)
            if self._pipeline.paused or self.last_frame_time_us != seen_us:
                seen_us, silent_looks = self.last_frame_time_us, 0
                continue
            silent_looks += 1
            if silent_looks == _CHECKS // 2:
                socket.ping()
                self._counters.control_frames["ping"] += 1
            elif silent_looks == _CHECKS:
                log.warning("connection timed out", silent_seconds=idle_seconds)
                socket.abort()
                return

    async def _send_keepalives(self, socket: Socket, ping: AppPing) -> None:
        """Send the venue's keepalives; abort the connection without a reply while it is read."""
        while True:
            await asyncio.sleep(ping.interval_seconds)
            try:
                await self._command(ping.command)
            except Unreachable as error:
                if self._pipeline.paused:
                    continue  # the reply may be in the buffers of a paused socket
                log.warning("keepalive timed out", reason=str(error))
                socket.abort()
                return

    def _open_socket(self) -> Socket:
        if self._socket is None:
            raise RuntimeError("used before the session was open")
        return self._socket

    def _release(self) -> None:
        for watch in self._watches:
            watch.cancel()
        self._watches.clear()
        if self._socket is not None:
            self._pipeline.reads.detach(self._socket)


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Return `items` in chunks of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _with_names(make: Callable[[int, Sequence[str]], str], names: Sequence[str], request_id: int) -> str:
    return make(request_id, names)
