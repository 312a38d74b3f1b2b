"""The venue interface with a venue of another protocol: the real worker against a server of this protocol."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import workers_other_venue
from aiohttp import ClientConnectionResetError, WSMsgType, web
from workers_line import Worker
from workers_other_venue import IN_STREAMS, OVER_REST, PAGE
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until_async
from marketfeed_wire import Trade, decode_gap, decode_trade
from marketfeed_workers.connection.session import Session
from marketfeed_workers.connection.transports import picows_socket
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.pipeline import Pipeline

HERE = Path(__file__).parent
SNAPSHOT = 3
"""Trades in the snapshot of a subscription."""


class Server:
    """The venue: a list of trades, sent to subscribers and returned over REST."""

    def __init__(self) -> None:
        self.trades: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in IN_STREAMS}
        self.opened = self.pings = 0
        self.answers_pings = self.answers_rest = True
        self._subscribed: dict[web.WebSocketResponse, set[str]] = {}

    async def __aenter__(self) -> "Server":
        app = web.Application()
        app.router.add_get("/v2", self._stream)
        app.router.add_get("/0/pairs", self._pairs)
        app.router.add_get("/0/time", self._time)
        app.router.add_get("/0/trades/{pair}", self._rest_trades)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        return len(self._subscribed)

    @property
    def streams(self) -> int:
        return sum(map(len, self._subscribed.values()))

    async def trade(self, symbol: str, count: int = 1, *, send: bool = True) -> None:
        """Add `count` trades, a millisecond apart, in one frame."""
        known = self.trades[symbol]
        after_ns = known[-1]["time_ns"] if known else 0
        new = [
            {
                "symbol": symbol, "trade_id": str(len(known) + n + 1), "price": 61685.10, "qty": 1e-7,
                "taker": "sell" if n % 2 else "buy", "time_ns": max(time.time_ns(), after_ns + 1_000_000) + n * 10**6,
            }
            for n in range(count)
        ]  # fmt: skip
        known += new
        if send:
            for socket, streams in self._subscribed.items():
                if f"trade:{IN_STREAMS[symbol]}" in streams:
                    await self._send(socket, "update", IN_STREAMS, symbol, new)

    async def cut(self) -> None:
        """Close every connection."""
        for socket in list(self._subscribed):
            await socket.close()

    async def _send(
        self, socket: web.WebSocketResponse, kind: str, names: dict[str, str], symbol: str, data: list[Any]
    ) -> None:
        rows = [{**each, "symbol": names[symbol]} for each in data]
        text = json.dumps({"channel": "trade", "type": kind, "data": rows})
        with contextlib.suppress(ClientConnectionResetError):  # the worker may be disconnecting
            await socket.send_str(text.replace("61685.1,", "61685.10,"))  # the format of this venue

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.opened += 1
        self._subscribed[socket] = set()
        try:
            async for message in socket:
                assert message.type is WSMsgType.TEXT
                await self._obey(socket, json.loads(message.data))
        finally:
            del self._subscribed[socket]
        return socket

    async def _obey(self, socket: web.WebSocketResponse, command: dict[str, Any]) -> None:
        streams = self._subscribed[socket]
        reply: dict[str, Any] = {"channel": "reply", "req_id": command["req_id"]}
        match command["method"]:
            case "subscribe":
                streams.update(command["streams"])
            case "unsubscribe":
                streams.difference_update(command["streams"])
            case "list":
                reply["result"] = sorted(streams)
            case "ping":
                self.pings += 1
                if not self.answers_pings:
                    return
        await socket.send_str(json.dumps(reply))
        if command["method"] == "subscribe":
            for symbol, name in IN_STREAMS.items():
                if f"trade:{name}" in command["streams"] and self.trades[symbol]:
                    await self._send(socket, "snapshot", IN_STREAMS, symbol, self.trades[symbol][-SNAPSHOT:])

    async def _pairs(self, _: web.Request) -> web.Response:
        return web.json_response(dict.fromkeys(OVER_REST.values(), "online"))

    async def _time(self, _: web.Request) -> web.Response:
        return web.Response(text=str(time.time_ns()))

    async def _rest_trades(self, request: web.Request) -> web.Response:
        if not self.answers_rest:
            return web.Response(status=503)
        symbol = next(ours for ours, name in OVER_REST.items() if name == request.match_info["pair"])
        since_ns = int(request.query["since"])
        rows = self.trades[symbol]
        page = [row for row in rows if row["time_ns"] > since_ns][:PAGE] if since_ns >= 0 else rows[-PAGE:]
        found = [{**row, "symbol": OVER_REST[symbol]} for row in page]
        return web.Response(text=json.dumps(found).replace("61685.1,", "61685.10,"))


class Rig:
    """Server, broker and workers."""

    def __init__(self, server: Server, broker: Broker, folder: Path, venue: str) -> None:
        self.server = server
        self._broker = broker
        self._folder = folder
        self._venue = venue
        self._topics = {
            f"MARKET_{name}_TOPIC": broker.new_topic(name) for name in ("TRADES", "BOOK", "PROGRESS", "GAPS")
        }
        self._workers: list[Worker] = []

    async def worker(self, **variables: str) -> Worker:
        environment = {
            "VENUE": self._venue, "BINANCE_SYMBOLS": "BTCUSD,ETHUSD", "BINANCE_STREAMS": "trade",
            "BINANCE_WS_BASE": f"ws://{self.server.address}", "BINANCE_REST_BASE": f"http://{self.server.address}",
            "KAFKA_BROKER": self._broker.address, "METRICS_HOST": "127.0.0.1", "METRICS_PORT": "0",
            "PROGRESS_INTERVAL_SECONDS": "0.1", **self._topics, **variables,
        }  # fmt: skip
        command = [sys.executable, str(HERE / "workers_other_venue.py")]
        worker = Worker(self._folder, f"worker-{len(self._workers)}", command, environment)
        self._workers.append(worker)
        await self.until(lambda: self.server.streams == len(IN_STREAMS), "the subscriptions")
        return worker

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            await until_async(condition, what, 20)
        except AssertionError as error:
            logs = "\n".join(worker.log.read_text()[-3000:] for worker in self._workers)
            raise AssertionError(f"{error}\n{logs}") from None

    async def stop(self, worker: Worker) -> None:
        assert await asyncio.to_thread(worker.stop) == 0, worker.log.read_text()

    def kill(self) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            worker.process.wait(10)

    async def acknowledged(self, worker: Worker) -> int:
        status = await asyncio.to_thread(worker.status)
        return status.acknowledged[self._topics["MARKET_TRADES_TOPIC"]]

    async def until_acknowledged(self, worker: Worker, count: int) -> None:
        async def are_acknowledged() -> bool:
            return await self.acknowledged(worker) >= count

        await until_async(
            are_acknowledged, lambda: f"{count} acknowledged trades: {worker.log.read_text()[-3000:]}", 40
        )

    def stored(self) -> dict[str, list[Trade]]:
        found: dict[str, list[Trade]] = {symbol: [] for symbol in IN_STREAMS}
        for key, value in self._broker.read(self._topics["MARKET_TRADES_TOPIC"]):
            found[key.decode()].append(decode_trade(value))
        return found

    def unsettled_gaps(self) -> list[str]:
        newest = {
            key: decode_gap(value) for key, value in self._broker.read(self._topics["MARKET_GAPS_TOPIC"])
        }
        return [gap.state for gap in newest.values() if gap.state not in ("backfilled", "absent")]


@pytest.fixture(params=["other", "other_increasing"])
def venue(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def rig(shared_broker: Broker, tmp_path: Path, venue: str) -> Any:
    async with Server() as server:
        made = Rig(server, shared_broker, tmp_path, venue)
        try:
            yield made
        finally:
            await asyncio.to_thread(made.kill)


def ids(trades: list[Trade]) -> list[int]:
    return [trade.trade_id for trade in trades]


async def test_other_venue_messages_are_mapped(rig: Rig, venue: str) -> None:
    worker = await rig.worker()
    await rig.server.trade("BTCUSD", 4)
    await rig.server.trade("ETHUSD", 2)
    await rig.until_acknowledged(worker, 6)
    await rig.until(lambda: rig.server.pings >= 3, "pings by command")
    assert rig.server.opened == 1
    await rig.stop(worker)
    stored = rig.stored()
    assert (ids(stored["BTCUSD"]), ids(stored["ETHUSD"])) == ([1, 2, 3, 4], [1, 2])
    first, second = stored["BTCUSD"][:2]
    assert (first.venue, first.symbol, first.price, first.qty) == (venue, "BTCUSD", "61685.10", "0.0000001")
    assert (first.buyer_is_maker, second.buyer_is_maker) == (False, True)
    assert first.event_time_us is None
    assert first.trade_time_us == rig.server.trades["BTCUSD"][0]["time_ns"] // 1000
    assert first.origin == "stream"


async def test_other_venue_snapshot_is_not_published_twice(rig: Rig) -> None:
    worker = await rig.worker()
    await rig.server.trade("BTCUSD", 5)
    await rig.until_acknowledged(worker, 5)
    await rig.server.cut()
    await rig.until(lambda: rig.server.opened == 2 and rig.server.streams == 2, "the next connection")
    await rig.server.trade("BTCUSD", 1)
    await rig.until_acknowledged(worker, 6)
    await rig.server.cut()
    await rig.server.trade("BTCUSD", SNAPSHOT - 1, send=False)  # only in the snapshot
    await rig.until(lambda: rig.server.opened == 3 and rig.server.streams == 2, "the third connection")
    await rig.until_acknowledged(worker, 6 + SNAPSHOT - 1)
    assert (await asyncio.to_thread(worker.status)).symbols["BTCUSD"].duplicates >= SNAPSHOT
    await rig.stop(worker)
    await rig.worker()  # and after a restart
    await rig.server.trade("BTCUSD", 1)
    again = rig._workers[-1]
    await rig.until_acknowledged(again, 1)
    await rig.stop(again)
    published = rig.stored()["BTCUSD"]
    # The next process has no copy to compare the snapshot with: it publishes it again for deduplication by consumers.
    stored = list({trade.trade_id: trade for trade in reversed(published)}.values())
    stored.sort(key=lambda trade: trade.trade_id)
    assert ids(stored) == list(range(1, 6 + SNAPSHOT + 1))
    assert ids(published[: 6 + SNAPSHOT - 1]) == list(range(1, 6 + SNAPSHOT))
    assert len(published) - len(stored) <= SNAPSHOT
    assert [trade.origin for trade in stored[6 : 6 + SNAPSHOT - 1]] == ["backfill"] * (SNAPSHOT - 1)


async def test_other_venue_keepalive_timeout_closes_a_streaming_connection(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await rig.worker()
    rig.server.answers_pings = False

    async def reconnects() -> bool:
        await rig.server.trade("BTCUSD")
        return rig.server.opened > 1

    await until_async(reconnects, lambda: f"another connection: {worker.log.read_text()}", 40)
    rig.server.answers_pings = True
    await rig.until(lambda: rig.server.streams == 2, "the next connection")
    assert "keepalive timed out" in worker.log.read_text()


@pytest.mark.parametrize("venue", ["other"], indirect=True)
@pytest.mark.parametrize("hold_seconds", ["30", "0"])
async def test_other_venue_backfill_by_time(rig: Rig, hold_seconds: str) -> None:
    worker = await rig.worker(GAP_HOLD_SECONDS=hold_seconds)
    await rig.server.trade("BTCUSD", 2)
    await rig.until_acknowledged(worker, 2)
    rig.server.answers_rest = False
    await rig.server.trade("BTCUSD", 3 * PAGE + 1, send=False)
    lost_ns = rig.server.trades["BTCUSD"][-1]["time_ns"]
    await rig.server.trade("BTCUSD", 1)
    # Too long ago to be found near the newest trade.
    await rig.until(lambda: time.time_ns() > lost_ns + 2 * workers_other_venue.MARGIN_NS, "time to pass")
    await rig.server.trade("BTCUSD", 1)
    rig.server.answers_rest = True
    count = len(rig.server.trades["BTCUSD"])
    await rig.until_acknowledged(worker, count)
    await rig.until(lambda: not rig.unsettled_gaps(), "the record of the filled gap")
    await rig.stop(worker)
    found = ids(rig.stored()["BTCUSD"])
    assert sorted(found) == list(range(1, count + 1))
    assert found == sorted(found) or hold_seconds == "0"


@pytest.mark.parametrize("venue", ["other"], indirect=True)
async def test_other_venue_backfill_by_time_after_an_outage(rig: Rig) -> None:
    worker = await rig.worker()
    await rig.server.trade("BTCUSD", 2)
    await rig.until_acknowledged(worker, 2)
    await rig.stop(worker)
    await rig.server.trade("BTCUSD", 2 * PAGE, send=False)
    lost_ns = rig.server.trades["BTCUSD"][-1]["time_ns"]
    await rig.until(lambda: time.time_ns() > lost_ns + 2 * workers_other_venue.MARGIN_NS, "time to pass")
    again = await rig.worker()
    await rig.server.trade("BTCUSD", SNAPSHOT)
    count = len(rig.server.trades["BTCUSD"])
    await rig.until_acknowledged(again, count - 2)
    await rig.stop(again)
    assert ids(rig.stored()["BTCUSD"]) == list(range(1, count + 1))


async def test_other_venue_snapshot_does_not_end_the_warm_up(
    make_settings: MakeSettings, shared_broker: Broker
) -> None:
    other = workers_other_venue.CONTIGUOUS
    settings = make_settings(
        KAFKA_BROKER=shared_broker.address, MARKET_TRADES_TOPIC=shared_broker.new_topic("trades")
    )
    counters = Counters(*(StreamCounters(name, shared_broker.new_topic(name)) for name in "tqgp"))
    pipeline = Pipeline(other, Publisher(settings, now_us), counters, now_us)
    pipeline.add_symbol("BTCUSD")
    async with Server() as server:
        await server.trade("BTCUSD", 5)
        session = Session(other, settings, pipeline, counters, now_us, time.monotonic)
        streams = list(other.streams("BTCUSD"))
        await session.open(
            picows_socket.open_socket, f"ws://{server.address}", streams, track_deliveries=True
        )
        await until_async(lambda: counters.trades.received == SNAPSHOT, "the snapshot")
        assert not session.warm.is_set()
        assert sum(counters.trades.venue_to_socket.counts) == 0
        await server.trade("BTCUSD", 1)
        await until_async(session.warm.is_set, "the first live trade")
        session.close()
