"""Sockets by the `websockets` library: pure Python, the widest use; a frame at a time."""

import asyncio
from collections.abc import Awaitable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from marketfeed_workers.errors import Unreachable, error_for_status
from marketfeed_workers.transports.socket import Closed, FrameSink, Socket


def _telling(sink: FrameSink) -> type[ClientConnection]:
    """A connection that tells of pings and pongs, which the library keeps to itself, from its first one on."""

    class Telling(ClientConnection):
        def process_event(self, event: Event) -> None:
            super().process_event(event)
            if isinstance(event, Frame) and event.opcode in (Opcode.PING, Opcode.PONG):
                sink.on_control_frame(answered=event.opcode is Opcode.PING)

    return Telling


class _ConnectOnce(connect):
    """Without the library's following of redirects: where data comes from is the user's choice alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _WebsocketsSocket:
    """Reads in a task of its own; while reading is paused the library's bounded queue fills and it stops too."""

    def __init__(self, connection: ClientConnection, sink: FrameSink) -> None:
        self._connection = connection
        self._sink = sink
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._sends: set[asyncio.Task[None]] = set()
        self.closed: asyncio.Future[Closed] = asyncio.create_task(self._read(), name="websockets-reader")

    async def _read(self) -> Closed:
        try:
            while True:
                await self._may_read.wait()
                self._sink.on_frames([await self._connection.recv(decode=False)])
        except ConnectionClosed as error:
            return Closed(error.rcvd.code, error.rcvd.reason) if error.rcvd else Closed(1006, "")

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
        self._may_read.set()
        self._connection.transport.abort()

    def _in_background(self, sending: Awaitable[object]) -> None:
        async def until_closed() -> None:
            try:
                await sending
            except ConnectionClosed:
                return  # the reader tells the session

        task = asyncio.create_task(until_closed())
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)


async def open_socket(url: str, sink: FrameSink, timeout_seconds: float) -> Socket:
    """Open `url`; see `OpenSocket`."""
    try:
        connection = await _ConnectOnce(
            url,
            create_connection=_telling(sink),
            open_timeout=timeout_seconds,
            ping_interval=None,
            proxy=None,  # as the other transport and REST: what the environment says of proxies is not for us
            compression=None,
            max_size=10 * 2**20,
            close_timeout=2,
        )
    except InvalidStatus as error:
        response = error.response
        raise error_for_status(response.status_code, response.headers.get("Retry-After"), url) from error
    except TimeoutError as error:
        raise Unreachable("connect_timeout", f"{url}: no connection within {timeout_seconds:g} s") from error
    except (InvalidHandshake, InvalidURI, OSError) as error:
        raise Unreachable("connect_failed", f"{url}: {error}") from error
    return _WebsocketsSocket(connection, sink)
