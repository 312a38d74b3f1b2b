"""Delivery of a read in batches, and no further while reading is paused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve

from marketfeed_devtools.waiting import until_async
from marketfeed_workers.connection.transports.picows_socket import MAX_FRAMES, open_socket
from marketfeed_workers.connection.transports.socket import Closed, Socket

FRAMES = [b"%d" % number for number in range(4 * MAX_FRAMES + 7)]
"""About 12 kB: written at once, received by one read of a loopback socket."""


class HoldingSink:
    """Pauses its socket after each batch while `holds` is set."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.holds = True
        self.socket: Socket | None = None

    def on_frames(self, frames: list[bytes]) -> None:
        self.batches.append(frames)
        if self.holds and self.socket is not None:
            self.socket.pause_reading()

    def on_control_frame(self, *, answered: bool) -> None:
        """Not used here."""

    @property
    def frames(self) -> list[bytes]:
        return [frame for batch in self.batches for frame in batch]


@asynccontextmanager
async def connected(sink: HoldingSink, *, closes: bool = False) -> AsyncIterator[Socket]:
    """Open a socket whose peer writes FRAMES at once on request, followed by a close frame if it `closes`."""

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        for frame in FRAMES:
            connection.protocol.send_text(frame)
        if closes:
            connection.protocol.send_close(1001, "going away")
        connection.transport.write(b"".join(connection.protocol.data_to_send()))
        await connection.wait_closed()

    async with serve(
        handler, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=1
    ) as server:
        sink.socket = await open_socket(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", sink, 5)
        sink.socket.send("go")
        yield sink.socket
        sink.socket.close()
        await sink.socket.closed


async def test_socket_delivers_a_long_read_in_batches() -> None:
    sink = HoldingSink()
    sink.holds = False
    async with connected(sink):
        await until_async(lambda: len(sink.frames) == len(FRAMES), "every frame")
        assert sink.frames == FRAMES
        assert max(map(len, sink.batches)) == MAX_FRAMES


async def test_socket_delivers_one_batch_per_resume() -> None:
    sink = HoldingSink()
    async with connected(sink) as socket:
        await until_async(lambda: bool(sink.batches), "the first batch")
        for number in range(1, 5):
            assert [len(batch) for batch in sink.batches] == [MAX_FRAMES] * number
            socket.resume_reading()
        assert sink.frames == FRAMES


async def test_socket_paused_delivers_its_frames_when_the_venue_closes() -> None:
    sink = HoldingSink()
    async with connected(sink, closes=True) as socket:
        await until_async(lambda: bool(sink.batches), "the first batch")
        assert await socket.closed == Closed(1001, "going away")
        assert sink.frames == FRAMES


async def test_socket_paused_delivers_its_frames_when_it_is_aborted() -> None:
    sink = HoldingSink()
    async with connected(sink) as socket:
        await until_async(lambda: bool(sink.batches), "the first batch")
        sink.holds = False
        socket.abort()
        await socket.closed
        assert sink.frames == FRAMES
