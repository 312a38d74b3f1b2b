"""One WebSocket connection in memory: the venue's end, the client's end, and the network between them.

    hub ──▶ VenueEnd.outlet ──write──▶ [latency] ──▶ kernel buffer ──▶ ClientEnd ──▶ the worker's session
                  ▲                                   not read while paused            │
                  └───────────── protocol.Session ◀── [latency] ◀──────── send, ping, close

Frames, commands, pings and limits of the venue are the simulator's own code; only the sockets are models.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from marketfeed_simtest.clock import Clock, Pipe
from marketfeed_simulator.frames import COMBINED, MICROSECONDS, combine, ping_frame, pong_frame, text_frame
from marketfeed_simulator.hub import Hub, Outlet
from marketfeed_simulator.keepalive import Due, Keepalive
from marketfeed_simulator.limits import SlidingLimit
from marketfeed_simulator.protocol import Session
from marketfeed_simulator.venue import Venue
from marketfeed_workers.connection.transports.socket import Closed, FrameSink

_TEXT: Final = 0x81
_PING: Final = 0x89
_REPLIES: Final = (b'{"result"', b'{"code"', b'{"error"', b'{"id"')
_KERNEL_BYTES: Final = 256 * 1024
"""Capacity of the kernel buffers between the two, before the venue detects a paused reader."""


class Times(Protocol):
    """Latencies of a connection, drawn when it opens."""

    @property
    def latency_seconds(self) -> float:
        """Latency from one end to the other."""

    @property
    def first_data_seconds(self) -> float:
        """Delay from a subscription to the stream's first data."""


class VenueEnd:
    """The venue's side of a connection; see `marketfeed_simulator.fault_effects.FaultTarget`.

    Attributes:
        number: number of the connection in the session.
        life: number of the process at the other end.
        complaints: limits that the client exceeded.
    """

    def __init__(
        self,
        number: int,
        life: int,
        hub: Hub,
        rules: Venue,
        clock: Clock,
        session: Session,
        variant: int,
        times: Times,
        complain: Callable[[str], None],
        count: Callable[[list[bytes]], None],
        gone: Callable[["VenueEnd"], None],
    ) -> None:
        self.number = number
        self.life = life
        self.session = session
        self.times = times
        self._hub = hub
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._rate = SlidingLimit(rules.messages_per_second, 1.0)
        self._complain = complain
        self._count = count
        self._gone = gone
        self._frozen = False
        self._ended = False
        self._keepalive = Keepalive(rules, clock.seconds)
        self._echo = rules.echo_required
        self.client = ClientEnd(self)
        self.outlet = Outlet(number, self.client, variant, _drained)
        hub.attach(self.outlet)
        self._feed(list(session.streams))
        self._timer = self._loop.call_at(self._keepalive.next_at(), self._keep_alive)

    @property
    def transport(self) -> "ClientEnd":
        """Return the transport of the connection."""
        return self.client

    # effects of faults
    def stall(self) -> None:
        """Stop sending market data."""
        self._hub.pause(self.outlet)

    def unstall(self) -> None:
        """Resume sending market data."""
        if not self._ended and not self._frozen:
            self._hub.resume(self.outlet)

    def freeze(self) -> None:
        """Stop reading and writing."""
        self._hub.pause(self.outlet)
        self._frozen = True

    def cut(self, why: str, *, reset: bool) -> None:
        """End TCP without a close frame."""
        del why
        self._hub.pause(self.outlet)
        self._end(Closed(1006, ""), reset=reset)

    def close_soon(self, code: int, reason: str, why: str, after_seconds: float = 0) -> None:
        """Close the connection from the venue's side.

        Args:
            code: close code.
            reason: close reason.
            why: reason in the simulator's status.
            after_seconds: delay.
        """
        del why
        self._loop.call_later(after_seconds, self._close, code, reason)

    def notify_shutdown(self) -> None:
        """Send the serverShutdown event."""
        data = b'{"e":"serverShutdown","E":%d}' % (self._clock.true_us() // 1000)
        self.outlet.send(text_frame(combine("!serverShutdown", data) if self.session.combined else data))

    def leave(self) -> None:
        """Drop the client and all in-flight bytes."""
        self._ended = True
        self._timer.cancel()
        self._hub.detach(self.outlet)
        self._gone(self)

    # input from the client
    def receive(self, text: str) -> None:
        """Handle a text frame of the client: a command."""
        if self._frozen or self._ended:
            return
        if not self._rate.allows(self._clock.seconds):
            self._complain("more messages a second than the venue allows")
            self._close(1008, "Too many requests")
            return
        outcome = self.session.handle(text)
        self.outlet.send(text_frame(outcome.reply))
        self._hub.unsubscribe(self.outlet, outcome.removed)
        self._feed(list(outcome.added))

    def delivered(self, texts: list[bytes]) -> None:
        """Count delivered frames of market data, corrupted or not."""
        self._count(
            [text for text in texts if not text.startswith(_REPLIES) and b"serverShutdown" not in text]
        )

    def receive_ping(self) -> None:
        """Handle a ping of the client."""
        if not self._frozen and not self._ended:
            self.outlet.send(pong_frame(b""))

    def receive_pong(self, payload: bytes) -> None:
        """Handle a pong of the client."""
        self._keepalive.ponged(payload)

    def receive_close(self) -> None:
        """Handle the client's close; a half-open venue does not detect it."""
        if not self._frozen and not self._ended:
            self._end(Closed(1000, ""), reset=False)

    def _feed(self, streams: list[str]) -> None:
        """Start sending `streams` after a delay, as a real venue does."""
        if self.times.first_data_seconds:
            self._loop.call_later(self.times.first_data_seconds, self._feed_now, streams)
        else:
            self._feed_now(streams)

    def _feed_now(self, streams: list[str]) -> None:
        if not self._ended:
            self._hub.subscribe(self.outlet, [each for each in streams if each in self.session.streams])

    def _keep_alive(self) -> None:
        now = self._clock.seconds
        while not self._frozen and (due := self._keepalive.due(now)) is not None:
            match due:
                case Due.PING:
                    payload = str(self._clock.true_us() // 1000).encode() if self._echo else b""
                    self.outlet.send(ping_frame(payload))
                    self._keepalive.pinged(payload, now)
                case Due.NOTICE:
                    self.notify_shutdown()
                case Due.NO_PONG:
                    self._close(1008, "Pong timeout")
                    return
                case Due.END_OF_LIFE:
                    self._close(1001, "")
                    return
        if not self._frozen:
            self._timer = self._loop.call_at(max(now + 0.01, self._keepalive.next_at()), self._keep_alive)

    def _close(self, code: int, reason: str) -> None:
        if not self._ended and not self._frozen:
            self._hub.pause(self.outlet)
            self._end(Closed(code, reason), reset=False)

    def _end(self, how: Closed, *, reset: bool) -> None:
        if self._ended:
            return
        self.leave()
        self.client.end(how, at_once=reset)


class ClientEnd:
    """The worker's `Socket` and the hub's `Sink`."""

    def __init__(self, venue_end: VenueEnd) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Closed] = loop.create_future()
        self.sink: FrameSink | None = None
        self._venue = venue_end
        self._loop = loop
        self._latency = venue_end.times.latency_seconds
        self._down = Pipe(loop)
        self._up = Pipe(loop)
        self._kernel: deque[bytes | Closed] = deque()
        self._bytes = 0
        self._paused = False
        self._leaving = False
        self._unplugged = False

    # the hub's side
    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        self._bytes += len(data)
        self._down.put(self._loop.time() + self._latency, partial(self._arrive, data))

    def is_closing(self) -> bool:
        """Return whether the connection is closed for writing."""
        return self._leaving or self.closed.done()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes beyond the kernel buffers."""
        return max(0, self._bytes - _KERNEL_BYTES)

    def end(self, how: Closed, *, at_once: bool) -> None:
        """Close the venue's side, after in-flight bytes or `at_once`."""
        if at_once:
            self._loop.call_later(self._latency, self._close_now, how)
        else:
            self._down.put(self._loop.time() + self._latency, partial(self._arrive, how))

    def unplug(self) -> None:
        """Stop delivering: the process has ended."""
        self._unplugged = True
        self._venue.leave()

    # the worker's side
    def send(self, text: str) -> None:
        """See `Socket`."""
        self._upstream(partial(self._venue.receive, text))

    def ping(self) -> None:
        """See `Socket`."""
        self._upstream(self._venue.receive_ping)

    def pause_reading(self) -> None:
        """See `Socket`."""
        self._paused = True

    def resume_reading(self) -> None:
        """See `Socket`."""
        self._paused = False
        self._read()

    def close(self) -> None:
        """See `Socket`."""
        if not self._leaving:
            self._leaving = True
            self._upstream(self._venue.receive_close)
            self._loop.call_later(2 * self._latency + 0.5, self._close_now, Closed(1000, ""))

    def abort(self) -> None:
        """See `Socket` and `Abortable`."""
        self._leaving = True
        self._venue.leave()
        self._close_now(Closed(1006, ""))

    def _upstream(self, call: Callable[[], None]) -> None:
        if not self.closed.done() and not self._unplugged:
            self._up.put(self._loop.time() + self._latency, call)

    def _arrive(self, what: bytes | Closed) -> None:
        if self.closed.done() or self._unplugged:
            return
        self._kernel.append(what)
        if not self._paused:
            self._read()

    def _read(self) -> None:
        """Deliver received bytes, as one read of a socket does."""
        texts: list[bytes] = []
        ended: Closed | None = None
        while self._kernel and ended is None:
            what = self._kernel.popleft()
            if isinstance(what, Closed):
                ended = what
            else:
                self._bytes -= len(what)
                self._split(what, texts)
        if texts and self.sink is not None and not self.closed.done() and not self._leaving:
            self._venue.delivered(texts)
            try:
                self.sink.on_frames(texts)
            except Exception as error:  # noqa: BLE001 - the contract: `closed` raises what a sink raised
                self.closed.set_exception(error)
                self._venue.leave()
        if ended is not None:
            self._close_now(ended)

    def _split(self, data: bytes, texts: list[bytes]) -> None:
        """Return the frames in `data`, which the venue writes unmasked and unfragmented (RFC 6455, 5.2)."""
        at, end = 0, len(data)
        while at < end:
            first, length = data[at], data[at + 1]
            at += 2
            if length == 126:
                length = int.from_bytes(data[at : at + 2])
                at += 2
            elif length == 127:
                length = int.from_bytes(data[at : at + 8])
                at += 8
            payload = data[at : at + length]
            at += length
            if first == _TEXT:
                texts.append(payload)
            elif self.sink is not None:
                if first == _PING:
                    self._upstream(partial(self._venue.receive_pong, payload))
                self.sink.on_control_frame(answered=first == _PING)

    def _close_now(self, how: Closed) -> None:
        if not self.closed.done() and not self._unplugged:
            self.closed.set_result(how)
        self._kernel.clear()


def variant_of(session: Session, *, microseconds: bool) -> int:
    """Return the form in which a connection receives its frames."""
    return (COMBINED if session.combined else 0) | (MICROSECONDS if microseconds else 0)


async def _drained() -> None:
    """Do nothing: connections of the model need no draining."""
