"""Both WebSocket transports against a real server on a real socket."""

import asyncio
import base64
import hashlib
import logging
import re
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from marketfeed_devtools.waiting import until_async
from marketfeed_workers.connection.transports import picows_socket, websockets_socket
from marketfeed_workers.connection.transports.socket import Closed, OpenSocket
from marketfeed_workers.venues.errors import Limited, Refused, Unreachable

Handler = Callable[[ServerConnection], Awaitable[None]]


class Sink:
    """Stores the frames of each call."""

    def __init__(self) -> None:
        self.reads: list[list[bytes]] = []
        self.control_frames: list[bool] = []

    @property
    def frames(self) -> list[bytes]:
        return [frame for read in self.reads for frame in read]

    def on_frames(self, frames: list[bytes]) -> None:
        self.reads.append(frames)

    def on_control_frame(self, *, answered: bool) -> None:
        self.control_frames.append(answered)


class BrokenSink(Sink):
    """Accepts two frames and raises at the third."""

    def on_frames(self, frames: list[bytes]) -> None:
        super().on_frames(frames)
        if len(self.frames) >= 3:
            raise ArithmeticError("the sink is broken")


@pytest.fixture(params=["picows", "websockets"])
def open_socket(request: pytest.FixtureRequest) -> OpenSocket:
    opens: dict[str, OpenSocket] = {
        "picows": picows_socket.open_socket,
        "websockets": websockets_socket.open_socket,
    }
    return opens[request.param]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@asynccontextmanager
async def venue(handler: Handler) -> AsyncIterator[str]:
    """Start a server that runs `handler` for each connection; yield its URL."""
    server = serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=1)
    async with server as running:
        yield f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}/stream?streams=btcusdt@trade"


async def write_at_once(connection: ServerConnection, *write: Callable[[], None]) -> None:
    """Write frames that the client receives in one read of its socket."""
    for each in write:
        each()
    connection.transport.write(b"".join(connection.protocol.data_to_send()))


async def test_socket_frames_are_complete_and_in_order(open_socket: OpenSocket, sink: Sink) -> None:
    sent = [str(n).encode() * (1 + n % 300) for n in range(3000)] + ["été €".encode(), b"", b"x" * 300_000]

    async def handler(connection: ServerConnection) -> None:
        for frame in sent:
            await connection.send(frame, text=True)
        await connection.wait_closed()

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        await until_async(lambda: len(sink.frames) == len(sent), "every frame")
        assert sink.frames == sent
        socket.close()
        await socket.closed


async def test_socket_delivers_the_frames_of_a_read_together(sink: Sink) -> None:
    async def handler(connection: ServerConnection) -> None:
        protocol = connection.protocol
        await write_at_once(connection, *[lambda n=n: protocol.send_text(b"%d" % n) for n in range(50)])
        await connection.wait_closed()

    async with venue(handler) as url:
        socket = await picows_socket.open_socket(url, sink, 5)
        await until_async(lambda: len(sink.frames) == 50, "every frame")
        assert [len(read) for read in sink.reads] == [50]
        socket.close()
        await socket.closed


async def test_socket_pong_after_data_does_not_delay_the_data(open_socket: OpenSocket, sink: Sink) -> None:
    answered = asyncio.get_running_loop().create_future()

    async def handler(connection: ServerConnection) -> None:
        pong = await connection.ping(b"1723161600001")
        await pong
        protocol = connection.protocol
        await write_at_once(
            connection, lambda: protocol.send_text(b"before"), lambda: protocol.send_ping(b"behind data")
        )
        answered.set_result(None)
        await connection.wait_closed()

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        await asyncio.wait_for(answered, 10)
        await until_async(lambda: sink.frames == [b"before"], "the frame before the ping")
        await until_async(lambda: sink.control_frames == [True, True], "word of both pings")
        socket.close()
        await socket.closed


async def test_socket_ping_reports_the_pong_to_the_sink(open_socket: OpenSocket, sink: Sink) -> None:
    async with venue(lambda connection: connection.wait_closed()) as url:
        socket = await open_socket(url, sink, 5)
        socket.ping()
        await until_async(lambda: sink.control_frames == [False], "the pong")
        assert sink.frames == []
        socket.close()
        await socket.closed


async def test_socket_joins_a_fragmented_message(open_socket: OpenSocket, sink: Sink) -> None:
    async def handler(connection: ServerConnection) -> None:
        protocol = connection.protocol
        await connection.send("whole")
        await connection.send(["fr", "agmen", "ted"])
        await write_at_once(
            connection,
            lambda: protocol.send_text(b"ping ", fin=False),
            lambda: protocol.send_ping(b"between"),
            lambda: protocol.send_continuation(b"between", fin=True),
            lambda: protocol.send_text(b"and after"),
        )
        await connection.wait_closed()

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        await until_async(lambda: len(sink.frames) == 4, "every message")
        assert sink.frames == [b"whole", b"fragmented", b"ping between", b"and after"]
        socket.close()
        await socket.closed


async def test_socket_sends_commands(open_socket: OpenSocket, sink: Sink) -> None:
    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(f"got {message!r}")

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        socket.send('{"method":"SUBSCRIBE"}')
        socket.send("2")
        await until_async(lambda: len(sink.frames) == 2, "both answers")
        assert sink.frames == [b"""got '{"method":"SUBSCRIBE"}'""", b"got '2'"]
        socket.close()
        await socket.closed


async def test_socket_pause_causes_back_pressure(open_socket: OpenSocket, sink: Sink) -> None:
    frame, count = b"x" * 65_536, 600  # about 39 MB: more than the kernel's buffers
    sent = 0

    async def handler(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(count):
            await connection.send(frame, text=True)
            sent += 1
        await connection.wait_closed()

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        await until_async(lambda: len(sink.frames) >= 10, "the stream")
        socket.pause_reading()
        await _standstill(lambda: (sent, len(sink.frames)))
        assert sent < count, "the venue wrote everything although reading was paused"
        assert len(sink.frames) < count
        socket.resume_reading()
        await until_async(lambda: len(sink.frames) == count, "the rest after the pause")
        assert set(sink.frames) == {frame}
        socket.close()
        await socket.closed


async def _standstill(state: Callable[[], object]) -> None:
    """Return when 300 iterations of the loop, which both sides share, have changed nothing."""
    rounds, last = 0, state()
    while rounds < 300:
        await asyncio.sleep(0)
        rounds, last = (rounds + 1, last) if state() == last else (0, state())


async def test_socket_pause_is_idempotent(open_socket: OpenSocket, sink: Sink) -> None:
    async with venue(lambda connection: connection.wait_closed()) as url:
        socket = await open_socket(url, sink, 5)
        for call in (
            socket.pause_reading,
            socket.pause_reading,
            socket.resume_reading,
            socket.resume_reading,
        ):
            call()
        socket.close()
        await socket.closed
        for call in (
            socket.pause_reading,
            socket.resume_reading,
            socket.close,
            socket.abort,
            socket.ping,
            lambda: socket.send("too late"),
        ):
            call()
        assert sink.frames == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(1000, "", id="done"),
        pytest.param(1001, "going away", id="going away"),
        pytest.param(1008, "Too many requests", id="policy violation: commands too fast"),
        pytest.param(1012, "service restart", id="restart"),
        pytest.param(4001, "private", id="a private code"),
    ],
)
async def test_socket_close_code_and_reason(
    open_socket: OpenSocket, sink: Sink, code: int, reason: str
) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(code, reason)

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        assert await asyncio.wait_for(socket.closed, 10) == Closed(code, reason)
        assert sink.frames == [b"last words"]


async def test_socket_close_frame_without_a_code(open_socket: OpenSocket, sink: Sink) -> None:
    ended = asyncio.get_running_loop().create_future()

    async def handler(connection: ServerConnection) -> None:
        await write_at_once(connection, lambda: connection.protocol.send_close())
        await connection.wait_closed()
        ended.set_result((connection.close_code, connection.close_reason))

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        assert await asyncio.wait_for(socket.closed, 10) == Closed(1005, "")
        # 1005 must not be sent in a frame (RFC 6455, 7.4.1): it would be a protocol error for the venue.
        code, _ = await asyncio.wait_for(ended, 10)
        assert code in (1000, 1005)


async def test_socket_close_is_clean(open_socket: OpenSocket, sink: Sink) -> None:
    ended = asyncio.get_running_loop().create_future()

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        ended.set_result(connection.close_code)

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        socket.close()
        assert (await asyncio.wait_for(socket.closed, 10)).code in (1000, 1005, 1006)
        assert await asyncio.wait_for(ended, 10) == 1000


async def test_socket_close_after_a_cancelled_wait(open_socket: OpenSocket, sink: Sink) -> None:
    ended = asyncio.get_running_loop().create_future()

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        ended.set_result(connection.close_code)

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.closed, 0.01)
        socket.close()
        assert await asyncio.wait_for(ended, 10) == 1000


async def test_socket_cut_has_code_1006(open_socket: OpenSocket, sink: Sink) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("last words")
        connection.transport.abort()

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        assert await asyncio.wait_for(socket.closed, 10) == Closed(1006, "")


async def test_socket_abort_with_an_unresponsive_peer(open_socket: OpenSocket, sink: Sink) -> None:
    async def handler(connection: ServerConnection) -> None:
        connection.transport.pause_reading()  # the kernel accepts data, but there is no response to a close frame
        await connection.wait_closed()

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        socket.abort()
        assert await asyncio.wait_for(socket.closed, 10) == Closed(1006, "", by_us=True)


async def test_socket_error_of_the_sink_closes_it_and_is_raised(
    open_socket: OpenSocket,
) -> None:
    sink = BrokenSink()

    async def handler(connection: ServerConnection) -> None:
        for n in range(1000):
            await connection.send(str(n))
        await connection.wait_closed()

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        with pytest.raises(ArithmeticError, match="the sink is broken"):
            await asyncio.wait_for(socket.closed, 10)
        delivered = len(sink.reads)
        await asyncio.sleep(0)
        assert len(sink.reads) == delivered, "a failed sink received more frames"
        socket.abort()


async def test_socket_protocol_error_closes_the_connection(open_socket: OpenSocket, sink: Sink) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("good")
        connection.transport.write(b"\x83\x01x")  # an opcode that does not exist
        await connection.wait_closed()

    async with venue(handler) as url:
        socket = await open_socket(url, sink, 5)
        assert isinstance(await asyncio.wait_for(socket.closed, 10), Closed)
        assert sink.frames == [b"good"]


async def refusal(open_socket: OpenSocket, status: int, headers: dict[str, str]) -> Exception:
    """Return the exception of opening a socket whose handshake gets `status`."""

    def refuse(_: ServerConnection, __: Request) -> Response:
        return Response(status, HTTPStatus(status).phrase, Headers(headers), b"no")

    async with serve(
        lambda connection: connection.wait_closed(), "127.0.0.1", 0, process_request=refuse
    ) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/stream"
        with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
            await open_socket(url, Sink(), 5)
    return caught.value


@pytest.mark.parametrize(
    ("status", "headers", "kind", "reason"),
    [
        pytest.param(451, {}, Refused, "region_refused", id="451: the region is refused"),
        pytest.param(403, {}, Refused, "forbidden", id="403: the firewall refuses"),
        pytest.param(429, {"Retry-After": "7"}, Limited, "rate_limited", id="429: too many attempts"),
        pytest.param(418, {"Retry-After": "300"}, Limited, "banned", id="418: banned"),
        pytest.param(500, {}, Unreachable, "http_500", id="500: an error of the venue"),
        pytest.param(503, {"Retry-After": "3"}, Unreachable, "http_503", id="503: unavailable"),
        pytest.param(200, {"Content-Type": "text/html"}, Unreachable, "http_200", id="200: not a WebSocket"),
        pytest.param(404, {}, Unreachable, "http_404", id="404: no such path"),
    ],
)
async def test_handshake_rejected_by_status(
    open_socket: OpenSocket, status: int, headers: dict[str, str], kind: type[Exception], reason: str
) -> None:
    error = await refusal(open_socket, status, headers)
    assert type(error) is kind
    assert isinstance(error, Unreachable | Refused)
    assert error.reason == reason
    assert str(status) in str(error)
    if isinstance(error, Limited):
        assert error.retry_after_seconds == float(headers["Retry-After"])


async def test_handshake_redirect_is_not_followed(open_socket: OpenSocket) -> None:
    error = await refusal(open_socket, 302, {"Location": "ws://127.0.0.1:9/elsewhere"})
    assert isinstance(error, Unreachable)
    assert error.reason == "http_302"


async def test_connect_to_a_closed_port(open_socket: OpenSocket, sink: Sink) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(Unreachable, match=f"ws://127.0.0.1:{port}") as caught:
        await open_socket(f"ws://127.0.0.1:{port}/stream", sink, 5)
    assert caught.value.reason == "connect_failed"


@asynccontextmanager
async def tcp_server(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Start a server that is not a WebSocket server; yield its port."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_handshake_timeout(open_socket: OpenSocket, sink: Sink) -> None:
    hung_up = asyncio.get_running_loop().create_future()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client disconnects
        writer.close()
        hung_up.set_result(None)

    async with tcp_server(silent) as port:
        with pytest.raises(Unreachable, match=r"within 0\.2 s") as caught:
            await open_socket(f"ws://127.0.0.1:{port}/stream", sink, 0.2)
        await asyncio.wait_for(hung_up, 10)
    assert caught.value.reason == "connect_timeout"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="an upgrade without its headers"),
    ],
)
async def test_handshake_aborted_by_the_peer(open_socket: OpenSocket, sink: Sink, answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with tcp_server(handler) as port:
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
            await open_socket(f"ws://127.0.0.1:{port}/stream", sink, 5)


async def test_handshake_tls_against_a_plain_port(open_socket: OpenSocket, sink: Sink) -> None:
    async with venue(lambda connection: connection.wait_closed()) as url:
        with pytest.raises(Unreachable) as caught:
            await open_socket(url.replace("ws://", "wss://"), sink, 5)
    assert caught.value.reason == "connect_failed"


async def test_socket_logs_nothing_at_info(
    open_socket: OpenSocket, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    async with venue(lambda connection: connection.wait_closed()) as url:
        with caplog.at_level(logging.INFO):
            socket = await open_socket(url, sink, 5)
            socket.close()
            await socket.closed
    assert [record.getMessage() for record in caplog.records if record.name != "websockets.server"] == []


class RawVenue:
    """A server that accepts the handshake and then writes raw bytes until it is stopped."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self.url = ""

    async def __aenter__(self) -> "RawVenue":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        assert key is not None
        accept = base64.b64encode(
            hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 - RFC 6455
        )
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        with suppress(ConnectionError):
            writer.write(b"".join(self._parts[:-1]))
            block = self._parts[-1] * max(1, 2**16 // len(self._parts[-1]))
            while not writer.transport.is_closing():
                writer.write(block)
                await writer.drain()
                await asyncio.sleep(0)


def raw_frame(opcode: int, payload: bytes, *, fin: bool = False, compressed: bool = False) -> bytes:
    first = (0x80 if fin else 0) | (0x40 if compressed else 0) | opcode
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    return (
        bytes([first, 126]) + size.to_bytes(2, "big") + payload
        if size < 2**16
        else (bytes([first, 127]) + size.to_bytes(8, "big") + payload)
    )


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        pytest.param(
            [raw_frame(1, b"x" * 2**20), raw_frame(0, b"x" * 2**20)],
            1009,
            id="fragments of a mebibyte, without end",
        ),
        pytest.param([raw_frame(1, b""), raw_frame(0, b"")], 1009, id="empty fragments without end"),
        pytest.param(
            [raw_frame(1, b"x"), raw_frame(0, b"x") + raw_frame(9, b"", fin=True)],
            1009,
            id="fragments with pings between",
        ),
        pytest.param(
            [bytes([0x81, 127]) + (2**40).to_bytes(8, "big"), b"x" * 2**16],
            1009,
            id="one frame of a tebibyte",
        ),
        pytest.param(
            [raw_frame(1, zlib.compress(bytes(2**22)), fin=True, compressed=True)],
            1002,
            id="a compressed message without negotiation",
        ),
        pytest.param([raw_frame(0, b"x", fin=True)], 1002, id="the end of a message that never began"),
    ],
)
async def test_socket_message_too_large_closes_the_connection(
    open_socket: OpenSocket, sink: Sink, parts: list[bytes], code: int
) -> None:
    async with RawVenue(*parts) as venue:
        socket = await open_socket(venue.url, sink, 5)
        tracemalloc.start()
        try:
            async with asyncio.timeout(20):
                ending = await socket.closed
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (ending.code, ending.by_us) == (code, True), ending
    assert "closed by this worker" in str(ending)
    assert peak < 64 * 2**20
    assert sum(map(len, sink.frames)) < 2**20
