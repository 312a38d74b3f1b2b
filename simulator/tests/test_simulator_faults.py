"""Every fault over its control endpoint, observed by a real client."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from marketfeed_devtools.waiting import until_async
from marketfeed_simulator import faults

Start = Callable[..., Awaitable[Any]]
RecordingOf = Callable[..., Path]
BUSY = ("generate", "--symbols", "BTCUSDT,ETHUSDT", "--trade-rate", "200", "--quote-rate", "0")
TRADES = "/stream?streams=btcusdt@trade"
REPLAY = ("--speed", "max")


async def received(ws: aiohttp.ClientWebSocketResponse, count: int) -> list[str]:
    return [(await ws.receive(timeout=10)).data for _ in range(count)]


def ids(messages: list[str]) -> list[int]:
    return [json.loads(message)["data"]["t"] for message in messages]


async def end_of(ws: aiohttp.ClientWebSocketResponse) -> int | None:
    """Return the close code of the connection."""
    async for _ in ws:
        pass
    return ws.close_code


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param({"fault": "drop"}, [1, 2, 3, 5, 6, 7, 8], id="drop one"),
        pytest.param({"fault": "drop", "count": 3}, [1, 2, 3, 7, 8], id="drop three"),
        pytest.param({"fault": "duplicate"}, [1, 2, 3, 4, 4, 5, 6, 7, 8], id="duplicate"),
        pytest.param({"fault": "duplicate", "copies": 2}, [1, 2, 3, 4, 4, 4, 5, 6, 7, 8], id="triple"),
        pytest.param({"fault": "reorder"}, [1, 2, 3, 5, 4, 6, 7, 8], id="swap two"),
        pytest.param({"fault": "reorder", "distance": 3}, [1, 2, 3, 5, 6, 7, 4, 8], id="one after three"),
        pytest.param(
            {"fault": "reorder", "distance": 9}, [1, 2, 3, 5, 6, 7, 8, 4], id="the end flushes delayed frames"
        ),
        pytest.param(
            {"fault": "drop", "streams": ["ethusdt@*"]}, [1, 2, 3, 4, 5, 6, 7, 8], id="another stream's"
        ),
        pytest.param({"fault": "drop", "streams": ["btc*@trade"]}, [1, 2, 3, 5, 6, 7, 8], id="by pattern"),
        pytest.param(
            {"fault": "drop", "connection": 77}, [1, 2, 3, 4, 5, 6, 7, 8], id="another connection's"
        ),
    ],
)
async def test_frame_faults_hit_the_requested_frames(
    start: Start, recording_of: RecordingOf, fault: dict[str, Any], expected: list[int]
) -> None:
    venue = await start("replay", recording_of(range(1, 9)), *REPLAY)
    await venue.fault(**fault, after_frames=3)
    async with venue.connect(TRADES) as ws:
        assert ids(await received(ws, len(expected))) == expected
    assert (await venue.ledger())["symbols"]["BTCUSDT"]["trades"] == 8


@pytest.mark.parametrize("how", ["truncated", "not_json", "missing_field", "wrong_type", "bad_price"])
async def test_corrupt_frame_is_a_text_frame_but_not_a_trade(
    start: Start, recording_of: RecordingOf, how: str
) -> None:
    venue = await start("replay", recording_of(range(1, 4)), *REPLAY)
    await venue.fault(fault="corrupt", how=how, after_frames=1)
    async with venue.connect(TRADES) as ws:
        messages = await received(ws, 3)
    assert ids([messages[0], messages[2]]) == [1, 3]
    try:
        trade = json.loads(messages[1])["data"]
    except json.JSONDecodeError:
        assert how in ("truncated", "not_json")
    else:
        assert {
            "missing_field": "t" not in trade,
            "wrong_type": trade.get("t") == "2",
            "bad_price": trade["p"] == "NaN",
        }[how]


async def test_corrupt_utf8_is_rejected_by_the_client(start: Start, recording_of: RecordingOf) -> None:
    venue = await start("replay", recording_of(range(1, 4)), *REPLAY)
    await venue.fault(fault="corrupt", how="not_utf8", after_frames=1)
    async with venue.connect(TRADES) as ws:
        await ws.receive(timeout=5)
        assert (await ws.receive(timeout=5)).type is aiohttp.WSMsgType.ERROR
        assert ws.close_code == aiohttp.WSCloseCode.INVALID_TEXT


async def test_frame_fault_seed_is_reproducible(start: Start, recording_of: RecordingOf) -> None:
    path = recording_of(range(1, 401))
    kept = []
    for seed in (5, 5, 6):
        venue = await start("replay", path, *REPLAY)
        await venue.fault(fault="drop", count=None, chance=0.5, seed=seed)
        async with venue.connect(TRADES) as ws:
            numbers = ids(await received(ws, 100))
        kept.append(numbers)
    assert kept[0] == kept[1] != kept[2]


async def test_frame_fault_of_one_connection(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as one, venue.connect(TRADES) as other:
        before = ids(await received(one, 1))
        _, connections = await venue.get("/control/connections")
        assert [each["stream_names"] for each in connections] == [["btcusdt@trade"]] * 2
        await venue.fault(fault="drop", connection=connections[0]["id"], count=5)
        first, second = before + ids(await received(one, 60)), ids(await received(other, 60))
    assert len(set(range(first[0], first[-1])) - set(first)) == 5
    assert second == list(range(second[0], second[0] + 60))


async def test_cut_with_reset_drops_unsent_data(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        await received(ws, 5)
        entry = await venue.fault(fault="cut", reset=True)
        assert entry["state"] == "done"
        assert await end_of(ws) == 1006


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"fault": "close"}, 1008),
        ({"fault": "close", "code": 1013, "reason": "busy"}, 1013),
        ({"fault": "end_of_life"}, 1001),
        ({"fault": "server_shutdown", "close_after_seconds": 0.05}, 1001),
    ],
)
async def test_close_faults(start: Start, fault: dict[str, Any], code: int) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        await received(ws, 5)
        await venue.fault(**fault)
        assert await end_of(ws) == code


@pytest.mark.parametrize(("path", "combined"), [("/ws/btcusdt@trade", False), (TRADES, True)])
async def test_server_shutdown_event_is_raw_or_combined(start: Start, path: str, combined: bool) -> None:
    venue = await start(*BUSY)
    async with venue.connect(path) as ws:
        await received(ws, 3)
        await venue.fault(fault="server_shutdown", close_after_seconds=None)
        while True:
            message = json.loads((await received(ws, 1))[0])
            data = message["data"] if combined else message
            if data["e"] == "serverShutdown":
                break
        assert message.get("stream") == ("!serverShutdown" if combined else None)
        assert await received(ws, 5)  # without a close the data continues


async def test_stall_stops_data_but_not_replies(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        before = ids(await received(ws, 5))
        entry = await venue.fault(fault="stall")
        await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        while True:
            message = json.loads((await received(ws, 1))[0])
            if "stream" not in message:
                break
            before.append(message["data"]["t"])
        with pytest.raises(TimeoutError):
            await ws.receive(timeout=0.2)
        async with venue.connect(TRADES) as fresh:
            assert await received(fresh, 3)
        async with venue.session.delete(f"{venue.http}/control/faults/{entry['id']}") as response:
            assert response.status == 200
        after = ids(await received(ws, 3))
        assert after[0] > before[-1] + 1


async def test_stall_ends_after_its_seconds(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        before = ids(await received(ws, 5))
        await venue.fault(fault="stall", seconds=0.2)
        numbers = before
        while numbers[-1] == numbers[-2] + 1:
            numbers += ids(await received(ws, 1))
        assert numbers[-1] > numbers[-2] + 5


async def test_stall_of_one_stream_ends_with_the_connection(start: Start) -> None:
    venue = await start(*BUSY)
    both = TRADES + "/ethusdt@trade"
    async with venue.connect(both) as ws:
        await received(ws, 5)
        await venue.fault(fault="stall", streams=["btcusdt@*"], seconds=600)
        in_a_row = 0
        while in_a_row < 50:  # frames of the stalled stream may still be in flight
            (message,) = await received(ws, 1)
            in_a_row = in_a_row + 1 if json.loads(message)["data"]["s"] == "ETHUSDT" else 0
        async with venue.connect(TRADES) as other:
            assert await received(other, 5)


async def test_frame_fault_ends_after_its_seconds(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        before = ids(await received(ws, 5))
        await venue.fault(fault="drop", count=None, seconds=0.2)
        numbers = before
        while numbers[-1] == numbers[-2] + 1:
            numbers += ids(await received(ws, 1))
        assert numbers[-1] > numbers[-2] + 5


async def test_half_open_connection_is_silent_and_then_reset(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        await received(ws, 5)
        await venue.fault(fault="half_open", seconds=0.5)
        await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        replies = [json.loads(message.data) async for message in ws]
        assert all("stream" in reply for reply in replies)
        assert ws.close_code == 1006


@pytest.mark.parametrize("status", [451, 403, 503])
async def test_refuse_rejects_count_handshakes(start: Start, status: int) -> None:
    venue = await start(*BUSY)
    entry = await venue.fault(fault="refuse", status=status, count=2)
    for _ in range(2):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await venue.connect(TRADES)
        assert refused.value.status == status
    async with venue.connect(TRADES) as ws:
        assert await received(ws, 1)
    _, (listed,) = await venue.get("/control/faults")
    assert (listed["id"], listed["state"], listed["hits"]) == (entry["id"], "done", 2)
    assert (await venue.ledger())["connections"]["refused"] == 2


async def test_refuse_without_a_count_lasts_until_removed(start: Start) -> None:
    venue = await start(*BUSY)
    await venue.fault(fault="refuse")
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await venue.connect(TRADES)
    async with venue.session.delete(f"{venue.http}/control/faults") as response:
        assert await response.json() == {"removed": 1}
    async with venue.connect(TRADES) as ws:
        assert await received(ws, 1)


async def test_rest_error_ends_after_its_count(start: Start) -> None:
    venue = await start(*BUSY)
    await venue.fault(fault="rest_error", status=503, endpoint="trades", count=1, retry_after_seconds=3)
    assert (await venue.get("/api/v3/time"))[0] == 200
    async with venue.session.get(f"{venue.http}/api/v3/trades?symbol=BTCUSDT") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "3")
        assert (await response.json())["code"] == -1000
    assert (await venue.get("/api/v3/trades?symbol=BTCUSDT"))[0] == 200


@pytest.mark.parametrize("status", [200, 502])
async def test_rest_error_as_html(start: Start, status: int) -> None:
    venue = await start(*BUSY)
    await venue.fault(fault="rest_error", status=status, html=True)
    async with venue.session.get(f"{venue.http}/api/v3/time") as response:
        assert (response.status, response.content_type) == (status, "text/html")
        assert "<html>" in await response.text()


async def test_rest_error_cuts_the_connection(start: Start) -> None:
    venue = await start(*BUSY)
    await venue.fault(fault="rest_error", cut=True, endpoint="time")
    with pytest.raises(aiohttp.ClientConnectionError):
        await venue.get("/api/v3/time")
    assert (await venue.get("/api/v3/ping"))[0] == 200


async def test_rest_lag_behind_the_streams(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        await received(ws, 5)
        await venue.fault(fault="rest_lag", seconds=600)
        assert (await venue.get("/api/v3/trades?symbol=BTCUSDT"))[1] == []
        async with venue.session.delete(f"{venue.http}/control/faults"):
            assert (await venue.get("/api/v3/trades?symbol=BTCUSDT"))[1] != []


async def test_rest_odd_rows(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        await received(ws, 1)
        await venue.fault(fault="odd_rows", symbols=["BTCUSDT"], count=2)
        seen = [json.loads(message)["data"] for message in await received(ws, 100)]
    assert all("E" not in each["p"] for each in seen)
    _, rows = await venue.get("/api/v3/trades?symbol=BTCUSDT&limit=1000")
    assert [row["price"] for row in rows if "E" in row["price"]] == ["1E-8", "1E-8"]


async def test_restart_ids(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        before = ids(await received(ws, 5))
        await venue.fault(fault="restart_ids", symbols=["BTCUSDT"], last_id=40)
        numbers = ids(await received(ws, 100))
    assert before[0] > 1_000_000
    assert 41 in numbers
    _, rows = await venue.get("/api/v3/trades?symbol=BTCUSDT&limit=1000")
    assert rows[0]["id"] == 41


async def test_wrong_unit_returns_milliseconds(start: Start) -> None:
    venue = await start("--venue", "binance", *BUSY)
    in_microseconds = TRADES + "&timeUnit=MICROSECOND"
    async with venue.connect(in_microseconds) as ws:
        right = json.loads((await received(ws, 1))[0])["data"]["T"]
    await venue.fault(fault="wrong_unit")
    async with venue.connect(in_microseconds) as ws:
        wrong = json.loads((await received(ws, 1))[0])["data"]["T"]
    assert right // wrong in (999, 1000)


async def test_rest_delay(start: Start) -> None:
    venue = await start(*BUSY)
    await venue.fault(fault="rest_delay", seconds=5, count=1)
    with pytest.raises(TimeoutError):
        await venue.get("/api/v3/time", timeout=aiohttp.ClientTimeout(0.2))
    assert (await venue.get("/api/v3/time", timeout=aiohttp.ClientTimeout(5)))[0] == 200


async def test_rate_limit_that_is_ignored_leads_to_a_ban(start: Start) -> None:
    venue = await start(*BUSY)
    entry = await venue.fault(fault="rate_limit", seconds=30)
    statuses = []
    for _ in range(5):
        async with venue.session.get(f"{venue.http}/api/v3/time") as response:
            statuses.append(response.status)
            assert int(response.headers["Retry-After"]) > 0
    assert statuses == [429, 429, 429, 418, 418]
    await venue.session.delete(f"{venue.http}/control/faults/{entry['id']}")
    assert (await venue.get("/api/v3/time"))[0] == 200


async def test_ban_returns_418_with_retry_after(start: Start) -> None:
    venue = await start(*BUSY)
    await venue.fault(fault="ban", seconds=90)
    async with venue.session.get(f"{venue.http}/api/v3/time") as response:
        assert (response.status, response.headers["Retry-After"]) == (418, "90")


async def test_halt_until_resume(start: Start) -> None:
    venue = await start(*BUSY)

    async def status() -> str:
        _, info = await venue.get("/api/v3/exchangeInfo?symbol=BTCUSDT")
        return str(info["symbols"][0]["status"])

    async def trades() -> int:
        return int((await venue.ledger())["symbols"].get("BTCUSDT", {}).get("trades", 0))

    await until_async(trades, "a trade")
    await venue.fault(fault="halt", symbols=["BTCUSDT"])
    assert await status() == "HALT"
    halted_at = await trades()
    await asyncio.sleep(0.1)
    assert await trades() == halted_at
    await venue.fault(fault="resume", symbols=["BTCUSDT"])
    assert await status() == "TRADING"
    await until_async(lambda: _more(trades, halted_at), "trades after the halt")


async def _more(count: Callable[[], Awaitable[int]], than: int) -> bool:
    return await count() > than


async def test_delist_and_list(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect("/stream?streams=newusdt@trade") as ws:
        await venue.fault(fault="delist", symbols=["ETHUSDT"])
        assert (await venue.get("/api/v3/trades?symbol=ETHUSDT"))[1]["code"] == -1121
        await venue.fault(fault="list", symbols=["NEWUSDT"], trade_rate=200)
        assert json.loads((await received(ws, 1))[0])["data"]["s"] == "NEWUSDT"
    _, info = await venue.get("/api/v3/exchangeInfo")
    assert [entry["symbol"] for entry in info["symbols"]] == ["BTCUSDT", "NEWUSDT"]


async def test_skip_ids(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        before = ids(await received(ws, 3))
        await venue.fault(fault="skip_ids", symbols=["BTCUSDT"], count=10)
        numbers = before + ids(await received(ws, 100))
    missing = sorted(set(range(numbers[0], numbers[-1])) - set(numbers))
    assert len(missing) == 10
    entry = (await venue.ledger())["symbols"]["BTCUSDT"]
    assert entry["absent_trade_ids"] == [[missing[0], missing[-1]]]
    path = f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={missing[0]}&limit=1"
    _, rows = await venue.get(path, headers={"X-MBX-APIKEY": "key"})
    assert rows[0]["id"] == missing[-1] + 1


async def test_clock_skew_in_server_time_and_events(start: Start) -> None:
    venue = await start(*BUSY)
    async with venue.connect(TRADES) as ws:
        true_ms = (await venue.get("/api/v3/time"))[1]["serverTime"]
        await venue.fault(fault="clock_skew", milliseconds=-3_600_000)
        skewed_ms = (await venue.get("/api/v3/time"))[1]["serverTime"]
        assert -3_600_000 <= skewed_ms - true_ms < -3_590_000
        events = [json.loads(message)["data"]["E"] for message in await received(ws, 100)]
        assert events[-1] < true_ms - 3_500_000


async def test_burst_multiplies_the_rate_and_ends(start: Start) -> None:
    venue = await start("generate", "--symbols", "BTCUSDT", "--trade-rate", "0", "--quote-rate", "10")
    async with venue.connect("/stream?streams=btcusdt@bookTicker") as ws:
        await venue.fault(fault="burst", factor=100, seconds=0.5)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await received(ws, 100)
        assert loop.time() - began < 5  # ten seconds' worth without the burst


async def test_burst_of_a_replay_accelerates_it(start: Start, recording_of: RecordingOf) -> None:
    venue = await start("replay", recording_of(range(1, 101), gap_ms=100), "--wait-for-subscribers")
    await venue.fault(fault="burst", factor=20)
    async with venue.connect(TRADES) as ws:
        assert ids(await received(ws, 100)) == list(range(1, 101))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "truncated"),
        (b'{"fault":"nosuch"}', "Invalid value 'nosuch'"),
        (b'{"count":1}', "missing required field `fault`"),
        (b'{"fault":"drop","cuont":1}', "unknown field `cuont`"),
        (b'{"fault":"drop","count":0}', ">= 1"),
        (b'{"fault":"drop","after_frames":1,"after_seconds":1}', "only one of them may be"),
        (b'{"fault":"halt","symbols":["NOSUCH"]}', "not listed here: NOSUCH"),
        (b'{"fault":"halt","symbols":[]}', "length >= 1"),
        (b'{"fault":"cut","connection":99}', "no connection 99"),
    ],
)
async def test_fault_that_is_invalid_is_rejected_with_the_reason(
    start: Start, body: bytes, words: str
) -> None:
    venue = await start(*BUSY)
    async with venue.session.post(f"{venue.http}/control/faults", data=body) as response:
        assert response.status == 400
        assert words in (await response.json())["error"]
    assert (await venue.get("/control/faults"))[1] == []
    async with venue.session.delete(f"{venue.http}/control/faults/7") as response:
        assert (response.status, await response.json()) == (404, {"error": "there is no fault 7"})


async def test_fault_not_possible_with_a_recording_is_rejected(
    start: Start, recording_of: RecordingOf
) -> None:
    venue = await start("replay", recording_of([1, 2]), *REPLAY)
    for fault, words in (
        ({"fault": "skip_ids", "symbols": ["BTCUSDT"]}, "generated"),
        ({"fault": "burst"}, "paced"),
    ):
        async with venue.session.post(f"{venue.http}/control/faults", json=fault) as response:
            assert response.status == 400
            assert words in (await response.json())["error"]


async def test_scenario_is_set_at_start(start: Start, recording_of: RecordingOf, tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        "faults:\n"
        "  - {fault: drop, after_frames: 2}\n"
        "  - {fault: duplicate, after_frames: 4}\n"
        "  - {fault: ban, seconds: 60, after_seconds: 0.05}\n"
    )
    venue = await start("--scenario", scenario, "replay", recording_of(range(1, 9)), *REPLAY)
    async with venue.connect(TRADES) as ws:
        assert ids(await received(ws, 8)) == [1, 2, 4, 5, 5, 6, 7, 8]

    async def banned() -> bool:
        return bool((await venue.get("/api/v3/time"))[0] == 418)

    await until_async(banned, "the ban")


def test_readme_lists_every_fault() -> None:
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    for kind in faults.AnyFault.__args__:
        assert f"`{kind.__struct_config__.tag}`" in text, kind
        for field in kind.__struct_fields__:
            assert f"`{field}`" in text, (kind, field)
