"""Sockets by the `websockets` library: pure Python, widely used; delivers one frame at a time."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from marketfeed_workers.connection.transports.socket import (
    MAX_MESSAGE_BYTES,
    NO_CLOSE_FRAME,
    Closed,
    FrameSink,
    Socket,
)
from marketfeed_workers.venues.errors import Unreachable, error_for_status

_CLOSE_SECONDS: Final = 2.0


def _with_control_frames(sink: FrameSink) -> type[ClientConnection]:
    """Return a connection class that passes pings and pongs to `sink`; the library handles them internally."""

    class ConnectionWithControlFrames(ClientConnection):
        is_ending = False

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # The library applies its close timeout only inside calls by its user. Without this a peer that continues to
            # send after a protocol error, or after a message that is too large, would never be disconnected.
            if self.protocol.close_expected() and not self.is_ending:
                self.is_ending = True
                self.loop.call_later(_CLOSE_SECONDS, self.transport.abort)

        def process_event(self, event: Event) -> None:
            super().process_event(event)
            if isinstance(event, Frame) and event.opcode in (Opcode.PING, Opcode.PONG):
                sink.on_control_frame(answered=event.opcode is Opcode.PING)

    return ConnectionWithControlFrames


class _ConnectOnce(connect):
    """Does not follow redirects: only the user decides where data comes from."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _WebsocketsSocket:
    """Reads in a task of its own; while reading is paused the library's bounded queue fills up and stops it, too."""

    def __init__(self, connection: ClientConnection, sink: FrameSink) -> None:
        self._connection = connection
        self._sink = sink
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._own_ending: Closed | None = None
        self._sends: set[asyncio.Task[None]] = set()
        self.closed: asyncio.Future[Closed] = asyncio.create_task(self._read(), name="websockets-reader")

    async def _read(self) -> Closed:
        try:
            while True:
                await self._may_read.wait()
                self._sink.on_frames([await self._connection.recv(decode=False)])
        except ConnectionClosed as error:
            return self._own_ending or _how_it_ended(error)

    def send(self, text: str) -> None:
        self._in_background(self._connection.send(text))

    def ping(self) -> None:
        self._in_background(self._connection.ping())

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def close(self) -> None:
        self._may_read.set()
        self._in_background(self._connection.close())

    def abort(self) -> None:
        self._own_ending = Closed(NO_CLOSE_FRAME, "", by_us=True)
        self._may_read.set()
        self._connection.transport.abort()

    def _in_background(self, sending: Awaitable[object]) -> None:
        async def until_closed() -> None:
            try:
                await sending
            except ConnectionClosed:
                return  # reported by the reader

        task = asyncio.create_task(until_closed())
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)


def _how_it_ended(error: ConnectionClosed) -> Closed:
    """Return how the connection ended; the side that sent a close frame first has closed it."""
    if error.rcvd is not None and error.rcvd_then_sent is not False:
        return Closed(error.rcvd.code, error.rcvd.reason)
    if error.sent is not None:
        return Closed(error.sent.code, error.sent.reason, by_us=True)
    return Closed(NO_CLOSE_FRAME, "")


async def open_socket(url: str, sink: FrameSink, timeout_seconds: float) -> Socket:
    """Open `url`; see `OpenSocket`."""
    try:
        connection = await _ConnectOnce(
            url,
            create_connection=_with_control_frames(sink),
            open_timeout=timeout_seconds,
            ping_interval=None,
            proxy=None,  # as the other transport and REST: proxy variables of the environment are ignored
            compression=None,
            max_size=MAX_MESSAGE_BYTES,  # of a message, including its fragments
            close_timeout=_CLOSE_SECONDS,
        )
    except InvalidStatus as error:
        response = error.response
        raise error_for_status(response.status_code, response.headers.get("Retry-After"), url) from error
    except TimeoutError as error:
        raise Unreachable("connect_timeout", f"{url}: no connection within {timeout_seconds:g} s") from error
    except (InvalidHandshake, InvalidURI, OSError) as error:
        raise Unreachable("connect_failed", f"{url}: {error}") from error
    return _WebsocketsSocket(connection, sink)
