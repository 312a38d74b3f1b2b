"""WebSocket protocol with real clients: aiohttp and websockets."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import websockets

from marketfeed_devtools.waiting import until_async

Start = Callable[..., Awaitable[Any]]
BUSY = ("generate", "--symbols", "BTCUSDT,ETHUSDT", "--trade-rate", "200", "--quote-rate", "200")
QUIET = ("generate", "--symbols", "BTCUSDT", "--trade-rate", "0", "--quote-rate", "0")


async def test_raw_and_combined_streams(start: Start) -> None:
    venue = await start(*BUSY)
    async with websockets.connect(venue.ws + "/ws/btcusdt@trade") as raw:
        payload = json.loads(await raw.recv())
        assert (payload["e"], payload["s"]) == ("trade", "BTCUSDT")
    async with websockets.connect(venue.ws + "/stream?streams=btcusdt@trade/ethusdt@bookTicker") as combined:
        seen = {(message := json.loads(await combined.recv()))["stream"]: message["data"] for _ in range(200)}
        assert set(seen) == {"btcusdt@trade", "ethusdt@bookTicker"}
        assert seen["ethusdt@bookTicker"]["s"] == "ETHUSDT"


async def test_raw_streams_on_one_connection(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect("/ws/btcusdt@trade/ethusdt@trade") as ws:
        assert {(await ws.receive_json())["s"] for _ in range(100)} == {"BTCUSDT", "ETHUSDT"}


async def test_subscribe_while_streaming(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect("/stream") as ws:
        reply = await venue.request(ws, method="SUBSCRIBE", params=["btcusdt@trade"], id=1)
        assert reply == {"result": None, "id": 1}
        assert (await ws.receive_json())["stream"] == "btcusdt@trade"
        await venue.request(ws, method="SUBSCRIBE", params=["ethusdt@trade"], id=2)
        assert await venue.request(ws, method="UNSUBSCRIBE", params=["btcusdt@trade"], id=3) == {
            "result": None,
            "id": 3,
        }
        assert {(await ws.receive_json())["stream"] for _ in range(50)} == {"ethusdt@trade"}
        assert (await venue.request(ws, method="LIST_SUBSCRIPTIONS", id=4))["result"] == ["ethusdt@trade"]


async def test_property_combined_changes_the_format(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect("/ws/btcusdt@trade") as ws:
        assert await venue.request(ws, method="SET_PROPERTY", params=["combined", True], id=1) == {
            "result": None,
            "id": 1,
        }
        assert (await ws.receive_json())["stream"] == "btcusdt@trade"


async def test_subscribe_to_an_unknown_stream_succeeds_without_data(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect("/ws/nosuchcoin@trade") as ws:
        assert (await venue.request(ws, method="LIST_SUBSCRIPTIONS", id=1))["result"] == ["nosuchcoin@trade"]
        with pytest.raises(TimeoutError):
            await ws.receive(timeout=0.2)


@pytest.mark.parametrize("kind", ["json", "ping", "pong"])
async def test_message_limit_closes_with_1008(start: Start, kind: str) -> None:
    venue = await start(*QUIET)
    async with venue.connect("/ws", autoping=False) as ws:
        for number in range(6):
            if kind == "json":
                await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
            elif kind == "ping":
                await ws.ping(b"x")
            else:
                await ws.pong(b"x")
        replies = 0
        while (message := await ws.receive(timeout=5)).type is not aiohttp.WSMsgType.CLOSE:
            replies += 1
        assert message.data == 1008
        assert replies == (0 if kind == "pong" else 5)
    assert (await venue.ledger())["connections"]["ended"] == {"too many messages": 1}


async def test_ping_is_echoed(start: Start) -> None:
    venue = await start(*QUIET)
    async with websockets.connect(venue.ws + "/ws", ping_interval=None) as ws:
        await asyncio.wait_for(await ws.ping(b"hello"), 5)


async def test_ping_timeout_closes_the_connection(start: Start) -> None:
    venue = await start("--ping-interval-seconds", "0.3", "--pong-deadline-seconds", "0.6", *QUIET)
    async with websockets.connect(venue.ws + "/ws", ping_interval=None) as responsive:
        async with venue.connect("/ws", autoping=False) as unresponsive:
            pings = 0
            while (message := await unresponsive.receive(timeout=5)).type is aiohttp.WSMsgType.PING:
                pings += 1
            assert pings >= 2
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        await responsive.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert json.loads(await responsive.recv()) == {"result": [], "id": 1}
    assert (await venue.ledger())["connections"]["ended"]["no pong"] == 1


async def test_ping_of_the_other_venue_needs_an_echo(start: Start) -> None:
    venue = await start(
        "--venue", "binance", "--ping-interval-seconds", "0.3", "--pong-deadline-seconds", "0.6", *QUIET
    )
    async with venue.connect("/ws", autoping=False) as ws:
        while (message := await ws.receive(timeout=5)).type is aiohttp.WSMsgType.PING:
            assert message.data
            await ws.pong(b"")
        assert message.data == 1008


@pytest.mark.parametrize(("path", "combined"), [("/ws", False), ("/stream", True)])
async def test_lifetime_ends_with_a_notice_raw_or_combined(start: Start, path: str, combined: bool) -> None:
    venue = await start(
        "--venue", "binance", "--life-seconds", "0.6", "--shutdown-notice-seconds", "0.3", *QUIET
    )
    async with venue.connect(path) as ws:
        notice = await ws.receive_json(timeout=5)
        assert (notice["stream"] == "!serverShutdown") if combined else ("stream" not in notice)
        event = notice["data"] if combined else notice
        assert (event["e"], sorted(event)) == ("serverShutdown", ["E", "e"])
        message = await ws.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)


async def test_stream_limit_of_1024(start: Start) -> None:
    venue = await start(*QUIET)
    names = [f"s{number}usdt@trade" for number in range(1025)]
    async with venue.connect("/stream") as ws:
        assert (await venue.request(ws, method="SUBSCRIBE", params=names[:1024], id=1))["result"] is None
        assert (await venue.request(ws, method="SUBSCRIBE", params=names[1024:], id=2))["code"] == 4
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await venue.connect("/ws/" + "/".join(f"{number}@t" for number in range(1025)))
    assert refused.value.status == 400


async def test_attempt_limit_rejects_connections(start: Start) -> None:
    venue = await start("--attempts", "3", *QUIET)
    for _ in range(3):
        async with venue.connect("/ws"):
            pass
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await venue.connect("/ws")
    assert refused.value.status == 429


async def test_microseconds_where_the_venue_offers_them(start: Start) -> None:
    venue = await start("--venue", "binance", *BUSY)
    async with venue.connect("/stream?streams=btcusdt@trade&timeUnit=MICROSECOND") as ws:
        trade = (await ws.receive_json())["data"]
        assert trade["T"] > 10**15
    async with venue.connect("/stream?streams=btcusdt@trade") as ws:
        assert (await ws.receive_json())["data"]["T"] < 10**14
    older = await start(*BUSY)
    async with older.connect("/stream?streams=btcusdt@trade&timeUnit=MICROSECOND") as ws:
        assert (await ws.receive_json())["data"]["T"] < 10**14


async def test_slow_reader_is_disconnected(start: Start) -> None:
    venue = await start(
        "--most-buffered-bytes", "200000", "generate", "--quote-rate", "4000", "--trade-rate", "0"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", venue.simulator.port, limit=1024)
    writer.write(
        b"GET /stream?streams=btcusdt@bookTicker/ethusdt@bookTicker HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with venue.connect("/stream?streams=btcusdt@bookTicker") as ws:

        async def cut() -> bool:
            assert (await ws.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT
            return bool(venue.simulator.ledger()["delivered"].slow_readers_cut)

        await until_async(cut, "the slow reader to be cut off", 60)
        assert (await ws.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT
    writer.close()
    assert not reader.at_eof()
