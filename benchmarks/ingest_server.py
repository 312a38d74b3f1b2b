"""Frame server of the ingestion benchmark: a cheap venue that sends frames on request.

    python ingest_server.py --port-file FILE TAPE …

At full speed the kernel copies a tape from its file to the socket (sendfile); at a constant rate slices of it are
written every millisecond. A connection receives the tape with exactly the streams in its URL.

    GET  /control/connections           return the number of open connections
    POST /control/go?events=N&rate=R    send the next N frames of every connection's tape, R per second in total (0:
                                        at full speed); responds when the last was passed to the kernel
    POST /control/loop?seconds=S        send the tape repeatedly with increasing ids; returns the number of frames
"""

import argparse
import asyncio
import json
import mmap
import shutil
import tempfile
import time
from pathlib import Path

import ingest_frames
from aiohttp import web

TICK_SECONDS = 0.001


class OpenConnection:
    """An open connection and its tape."""

    def __init__(self, tape: ingest_frames.Tape, transport: asyncio.Transport) -> None:
        self.tape = tape
        self.transport = transport
        self._file = tape.path.open("rb")
        self._data = memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        self._ends = tape.ends()
        self._next = 0

    async def send(self, events: int, rate: float) -> None:
        """Send the next `events` frames at `rate` per second."""
        first, self._next = self._next, self._next + events
        if rate:
            await self._send_paced(first, events, rate)
        else:
            begin = self._offset(first)
            loop = asyncio.get_running_loop()
            await loop.sendfile(self.transport, self._file, begin, self._offset(self._next) - begin)

    async def _send_paced(self, first: int, events: int, rate: float) -> None:
        began = time.monotonic()
        sent = 0
        while sent < events:
            due = min(events, int((time.monotonic() - began) * rate))
            self.transport.write(self._data[self._offset(first + sent) : self._offset(first + due)])
            sent = due
            await asyncio.sleep(TICK_SECONDS)

    def _offset(self, frame: int) -> int:
        return self._ends[frame - 1] if frame else 0


class Loop:
    """An endless tape: its copies are sent in turn, and the ids of a copy are increased before it is sent.

    The kernel sends from the file's pages, so a copy must not change before it was read completely. This is ensured by
    sending the other copies after it, which are larger than the socket's buffers.
    """

    COPIES = 8

    def __init__(self, tape: ingest_frames.Tape, folder: Path) -> None:
        self._positions = ingest_frames.id_positions(tape)
        self._copies = []
        for number in range(self.COPIES):
            path = folder / f"loop{number}"
            shutil.copy(tape.path, path)
            file = path.open("r+b")
            data = mmap.mmap(file.fileno(), 0)
            ingest_frames.increase_ids(data, self._positions, number)
            self._copies.append((file, data))
        self._size = tape.path.stat().st_size
        self._round = 0

    async def send_round(self, transport: asyncio.Transport) -> None:
        """Send the tape once."""
        file, data = self._copies[self._round % self.COPIES]
        if self._round >= self.COPIES:
            ingest_frames.increase_ids(data, self._positions, self.COPIES)
        self._round += 1
        await asyncio.get_running_loop().sendfile(transport, file, 0, self._size)


class Server:
    """HTTP and WebSocket handlers; see the module."""

    def __init__(self, tapes: list[ingest_frames.Tape]) -> None:
        self._tapes = {tape.streams: tape for tape in tapes}
        self._connections: set[OpenConnection] = set()
        names = {name.split("@")[0].upper() for tape in tapes for name in tape.streams}
        self._listed = [_listed(name) for name in sorted(names)]

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/stream", self.stream),
                web.get("/control/connections", self.connections),
                web.post("/control/go", self.go),
                web.post("/control/loop", self.loop),
                web.get("/api/v3/time", self.time),
                web.get("/api/v3/exchangeInfo", self.info),
                web.get("/api/v3/trades", self.no_trades),
                web.get("/api/v3/aggTrades", self.no_trades),
            ]
        )
        return app

    async def stream(self, request: web.Request) -> web.StreamResponse:
        tape = self._tapes.get(frozenset(request.query["streams"].split("/")))
        if tape is None:
            raise web.HTTPBadRequest(text="no tape has exactly these streams")
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        if request.transport is None:
            raise web.HTTPBadRequest(text="connection closed")
        connection = OpenConnection(tape, request.transport)
        self._connections.add(connection)
        try:
            await socket.receive()  # a client only sends a close frame
        finally:
            self._connections.discard(connection)
        return socket

    async def connections(self, _: web.Request) -> web.Response:
        return web.json_response(len(self._connections))

    async def go(self, request: web.Request) -> web.Response:
        events, rate = int(request.query["events"]), float(request.query["rate"])
        connections = list(self._connections)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(connection.send(events, rate / len(connections)))
        return web.json_response({"seconds": time.monotonic() - began})

    async def loop(self, request: web.Request) -> web.Response:
        end = time.monotonic() + float(request.query["seconds"])
        (connection,) = self._connections
        rounds = 0
        with tempfile.TemporaryDirectory(prefix="marketfeed-loop-") as folder:
            loop = Loop(connection.tape, Path(folder))
            while time.monotonic() < end:
                await loop.send_round(connection.transport)
                rounds += 1
        return web.json_response(rounds * connection.tape.events)

    async def time(self, _: web.Request) -> web.Response:
        return web.json_response({"serverTime": time.time_ns() // 1_000_000})

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response({"symbols": self._listed, "rateLimits": []})

    async def no_trades(self, _: web.Request) -> web.Response:
        """Return no trades: the response to a client that verifies a stalled stream."""
        return web.json_response([])


def _listed(symbol: str) -> dict[str, object]:
    return {
        "symbol": symbol, "status": "TRADING", "baseAsset": symbol[:-4], "quoteAsset": symbol[-4:],
        "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01000000"}],
    }  # fmt: skip


async def serve(tapes: list[Path], port_file: Path) -> None:
    runner = web.AppRunner(Server([ingest_frames.Tape.load(path) for path in tapes]).application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    temporary = port_file.with_suffix(".new")
    temporary.write_text(json.dumps(port))
    temporary.replace(port_file)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("tapes", type=Path, nargs="+")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.tapes, arguments.port_file))


if __name__ == "__main__":
    main()
