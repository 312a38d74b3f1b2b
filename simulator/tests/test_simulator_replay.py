"""Replays over real sockets: byte for byte, nothing lost at speed max, and the frames that a cut loses."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from marketfeed_devtools.waiting import until_async

Start = Callable[..., Awaitable[Any]]
RecordingOf = Callable[..., Path]
ALL = "/stream?streams=btcusdt@trade/btcusdt@bookTicker/ethusdt@trade/ethusdt@bookTicker"


async def ids_until(ws: aiohttp.ClientWebSocketResponse, last: int) -> list[int]:
    """Return the trade ids received up to `last`, or up to the end of the connection."""
    ids: list[int] = []
    async for message in ws:
        ids.append(json.loads(message.data)["data"]["t"])
        if ids[-1] == last:
            break
    return ids


async def test_replay_is_byte_for_byte(start: Start, recorded: Path) -> None:
    venue = await start("replay", recorded, "--speed", "max")
    with gzip.open(recorded) as lines:
        expected = [line.partition(b" ")[2].rstrip() for line in lines]
    async with venue.connect(ALL) as ws:
        for place, text in enumerate(expected):
            message = await ws.receive(timeout=30)
            assert message.data.encode() == text, f"frame {place}"
    ledger = await venue.ledger()
    assert (ledger["finished"], ledger["frames"], ledger["delivered"]["frames"]) == (True, 98_371, 98_371)
    assert sum(entry["trades"] for entry in ledger["symbols"].values()) == 18_556
    assert all(entry["absent_trade_ids"] == [] for entry in ledger["symbols"].values())
    _, rows = await venue.get("/api/v3/trades?symbol=ETHUSDT&limit=1")
    assert rows[0]["id"] == ledger["symbols"]["ETHUSDT"]["last_trade_id"]


async def test_replay_raw_stream_is_byte_for_byte(start: Start, recording_of: RecordingOf) -> None:
    path = recording_of(range(1, 50))
    venue = await start("replay", path, "--speed", "max")
    async with venue.connect("/ws/btcusdt@trade") as ws:
        for line in path.read_text().splitlines():
            text = line.partition(" ")[2]
            assert (await ws.receive(timeout=5)).data == text[text.index('"data": ') + 8 : -1]


async def test_max_speed_begins_with_a_subscriber_for_every_stream(start: Start, recorded: Path) -> None:
    venue = await start("replay", recorded, "--speed", "max")
    async with venue.connect("/stream?streams=btcusdt@trade/btcusdt@bookTicker/ethusdt@trade") as first:
        assert (await venue.ledger())["frames"] == 0
        async with venue.connect("/ws/ethusdt@bookTicker") as second:
            assert (await first.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT
            assert (await second.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT


async def test_max_speed_waits_for_a_slow_reader(start: Start, recording_of: RecordingOf) -> None:
    count = 60_000
    venue = await start("replay", recording_of(range(1, count + 1)), "--speed", "max")
    async with venue.connect("/stream?streams=btcusdt@trade", max_msg_size=0) as ws:
        ids = await ids_until(ws, 1)
        seen = -1
        while (
            frames := (await venue.ledger())["frames"]
        ) != seen:  # until the full write buffer has stopped the market
            seen = frames
            await asyncio.sleep(0.2)
        assert seen < count
        ids += await ids_until(ws, count)
    assert ids == list(range(1, count + 1))


async def test_max_speed_stops_without_a_subscriber(start: Start, recording_of: RecordingOf) -> None:
    count = 20_000
    venue = await start("replay", recording_of(range(1, count + 1)), "--speed", "max")
    async with venue.connect("/stream?streams=btcusdt@trade") as ws:
        await ids_until(ws, 100)
    await until_async(
        lambda: venue.simulator.ledger()["state"] == "waiting for subscribers", "the replay to stop"
    )
    stopped_at = (await venue.ledger())["frames"]
    async with venue.connect("/stream?streams=btcusdt@trade") as ws:
        ids = await ids_until(ws, count)
    assert ids == list(range(stopped_at + 1, count + 1))


async def test_cut_loses_exactly_lose_frames(start: Start, recording_of: RecordingOf) -> None:
    venue = await start("replay", recording_of(range(1, 3001)), "--speed", "max")
    await venue.fault(fault="cut", after_frames=1000, lose_frames=250)
    async with venue.connect("/stream?streams=btcusdt@trade") as ws:
        assert await ids_until(ws, 3000) == list(range(1, 1001))
        assert ws.close_code == 1006
    async with venue.connect("/stream?streams=btcusdt@trade") as ws:
        assert await ids_until(ws, 3000) == list(range(1251, 3001))
    ledger = await venue.ledger()
    assert ledger["symbols"]["BTCUSDT"]["trades"] == 3000
    assert ledger["connections"]["ended"]["cut"] == 1


async def test_cut_at_max_speed_waits_for_all_former_streams(start: Start, recorded: Path) -> None:
    venue = await start("replay", recorded, "--speed", "max")
    await venue.fault(fault="cut", after_frames=5000)
    halves = [f"/stream?streams={symbol}@trade/{symbol}@bookTicker" for symbol in ("btcusdt", "ethusdt")]
    received = 0
    first = [await venue.connect(path) for path in halves]
    for ws in first:
        async for _ in ws:
            received += 1
    assert received == 5000
    again = await venue.connect(halves[1])
    await asyncio.sleep(0.1)  # enough time for the market to run, which it must not
    at_the_cut = await venue.ledger()
    assert at_the_cut["frames"] == 5000
    other = await venue.connect(halves[0])  # the market resumes

    async def read(ws: aiohttp.ClientWebSocketResponse, frames: int) -> None:
        for _ in range(frames):
            await ws.receive(timeout=30)

    per_half = [
        sum(
            entry["trades"] + entry["quotes"]
            for name, entry in at_the_cut["symbols"].items()
            if name == symbol
        )
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    await asyncio.gather(read(other, 10147 + 45134 - per_half[0]), read(again, 8409 + 34681 - per_half[1]))
    assert (await venue.ledger())["frames"] == 98_371


async def test_paced_market_continues_without_a_subscriber(start: Start, recording_of: RecordingOf) -> None:
    venue = await start("replay", recording_of(range(1, 1001)), "--speed", "4")
    async with venue.connect("/stream?streams=btcusdt@trade") as ws:
        before = await ids_until(ws, 100)
    await asyncio.sleep(0.05)
    async with venue.connect("/stream?streams=btcusdt@trade") as ws:
        after = await ids_until(ws, 1000)
    assert before[-1] + 1 < after[0]
    assert after[-1] == 1000
    await until_async(lambda: venue.simulator.ledger()["finished"], "the end")
    _, rows = await venue.get("/api/v3/trades?symbol=BTCUSDT&limit=1000")
    assert [row["id"] for row in rows] == list(range(1, 1001))


async def test_paced_replay_follows_the_recorded_times(start: Start, recording_of: RecordingOf) -> None:
    loop = asyncio.get_running_loop()
    path = recording_of(range(1, 11), gap_ms=100)
    venue = await start("replay", path, "--wait-for-subscribers")
    async with venue.connect("/stream?streams=btcusdt@trade") as ws:
        began = loop.time()
        await ids_until(ws, 10)
        assert loop.time() - began > 0.85
