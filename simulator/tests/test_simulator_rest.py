"""REST over a real socket: endpoints, errors, weights, backoff and bans."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from marketfeed_devtools.waiting import until_async

Start = Callable[..., Awaitable[Any]]
RecordingOf = Callable[..., Path]
KEY = {"X-MBX-APIKEY": "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"}


@pytest.fixture
def replayed(start: Start, recording_of: RecordingOf) -> Callable[..., Awaitable[Any]]:
    """Start a venue whose market of trades with `ids` has finished."""

    async def begin(ids: Iterable[int], *rules: str) -> Any:
        venue = await start(
            *rules, "replay", recording_of(ids), "--speed", "max", "--no-wait-for-subscribers"
        )
        await until_async(lambda: venue.simulator.ledger()["finished"], "the end")
        return venue

    return begin


async def test_rest_trades_are_the_newest_in_order(replayed: Start) -> None:
    venue = await replayed(range(1, 1501))
    _, newest = await venue.get("/api/v3/trades?symbol=BTCUSDT")
    assert [row["id"] for row in newest] == list(range(1001, 1501))
    _, most = await venue.get("/api/v3/trades?symbol=BTCUSDT&limit=5000")
    assert [row["id"] for row in most] == list(range(501, 1501))
    assert most[0] == {
        "id": 501,
        "price": "1.50000000",
        "qty": "2.00000000",
        "quoteQty": "3.00000000",
        "time": 1_700_000_000_500,
        "isBuyerMaker": False,
        "isBestMatch": True,
    }


async def test_rest_historical_trades_by_id_need_a_key(replayed: Start) -> None:
    venue = await replayed([*range(1, 11), *range(14, 20)])
    status, refused = await venue.get("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=9")
    assert (status, refused["code"]) == (401, -2014)
    _, rows = await venue.get("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=9&limit=4", headers=KEY)
    assert [row["id"] for row in rows] == [9, 10, 14, 15]
    _, rows = await venue.get("/api/v3/historicalTrades?symbol=BTCUSDT&limit=2", headers=KEY)
    assert [row["id"] for row in rows] == [18, 19]


async def test_rest_of_the_other_venue_without_key_in_microseconds(replayed: Start) -> None:
    venue = await replayed(range(1, 11), "--venue", "binance")
    path = "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1&limit=1"
    assert (await venue.get(path))[1][0]["time"] == 1_700_000_000_000
    assert (await venue.get(path, headers={"X-MBX-TIME-UNIT": "MICROSECOND"}))[1][0][
        "time"
    ] == 1_700_000_000_000_000


async def test_rest_aggregates_show_absent_ids(replayed: Start) -> None:
    venue = await replayed([1, 2, 5, 6])
    _, rows = await venue.get("/api/v3/aggTrades?symbol=BTCUSDT&startTime=1700000000001")
    assert [(row["f"], row["l"]) for row in rows] == [(2, 2), (5, 5), (6, 6)]
    _, rows = await venue.get(f"/api/v3/aggTrades?symbol=BTCUSDT&fromId={rows[1]['a']}")
    assert [row["f"] for row in rows] == [5, 6]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v3/trades", 400, -1102),
        ("/api/v3/trades?symbol=NOSUCH", 400, -1121),
        ("/api/v3/trades?symbol=btcusdt", 400, -1121),
        ("/api/v3/trades?symbol=BTCUSDT&limit=0", 400, -1130),
        ("/api/v3/trades?symbol=BTCUSDT&limit=x", 400, -1100),
        ("/api/v3/aggTrades?symbol=BTCUSDT&fromId=1&startTime=1", 400, -1128),
        ("/api/v3/aggTrades?symbol=BTCUSDT&startTime=1&endTime=3600001", 400, -1127),
        ("/api/v3/exchangeInfo?symbol=NOSUCH", 400, -1121),
        ('/api/v3/exchangeInfo?symbols=["BTCUSDT","NOSUCH"]', 400, -1121),
        ("/api/v3/exchangeInfo?symbols=BTCUSDT", 400, -1100),
        ('/api/v3/exchangeInfo?symbol=BTCUSDT&symbols=["BTCUSDT"]', 400, -1128),
        ("/api/v3/nosuch", 404, -1000),
    ],
)
async def test_rest_errors_have_the_venue_s_code(replayed: Start, path: str, status: int, code: int) -> None:
    venue = await replayed([1])
    got, body = await venue.get(path)
    assert (got, body["code"]) == (status, code)
    assert body["msg"]


async def test_rest_exchange_info(start: Start, tmp_path: Path) -> None:
    saved = tmp_path / "info.json"
    saved.write_text('{"symbols":[{"symbol":"OLDUSDT","status":"BREAK","filters":[]}]}')
    venue = await start(
        "--listed",
        "SLEEPUSDT=HALT",
        "--exchange-info",
        saved,
        "generate",
        "--symbols",
        "BTCUSDT",
        "--trade-rate",
        "50",
    )
    _, info = await venue.get("/api/v3/exchangeInfo")
    assert {entry["symbol"]: entry["status"] for entry in info["symbols"]} == {
        "BTCUSDT": "TRADING",
        "SLEEPUSDT": "HALT",
        "OLDUSDT": "BREAK",
    }
    limits = {(rule["rateLimitType"], rule["interval"]): rule["limit"] for rule in info["rateLimits"]}
    assert limits["REQUEST_WEIGHT", "MINUTE"] == 1200
    assert limits["RAW_REQUESTS", "MINUTE"] == 5000
    _, some = await venue.get('/api/v3/exchangeInfo?symbols=["SLEEPUSDT"]')
    assert [entry["symbol"] for entry in some["symbols"]] == ["SLEEPUSDT"]
    assert (await venue.get("/api/v3/trades?symbol=SLEEPUSDT")) == (200, [])


@pytest.mark.parametrize(("venue_name", "weight"), [("binance_us", 10), ("binance", 20)])
async def test_rest_used_weight_header(start: Start, venue_name: str, weight: int) -> None:
    venue = await start("--venue", venue_name, "generate")
    async with venue.session.get(f"{venue.http}/api/v3/time") as response:
        assert response.headers["X-MBX-USED-WEIGHT-1M"] == "1"
    async with venue.session.get(f"{venue.http}/api/v3/exchangeInfo") as response:
        assert response.headers["X-MBX-USED-WEIGHT-1M"] in (
            str(weight + 1),
            str(weight),
        )  # a new minute may begin in between


async def test_rest_limit_returns_429_then_418(start: Start) -> None:
    venue = await start("--weight-limit", "5", "generate")
    statuses = []
    for _ in range(10):
        async with venue.session.get(f"{venue.http}/api/v3/exchangeInfo") as response:
            statuses.append(response.status)
            assert 1 <= int(response.headers["Retry-After"]) <= (60 if response.status == 429 else 240)
            assert (await response.json())["code"] == -1003
    assert statuses[0] == 429
    assert 418 in statuses
    requests = (await venue.ledger())["requests"]["exchangeInfo"]
    assert requests == {"418": statuses.count(418), "429": statuses.count(429)}


async def test_rest_time_is_the_market_time(start: Start) -> None:
    venue = await start("generate", "--start-us", "1700000000000000")
    _, first = await venue.get("/api/v3/time")
    await asyncio.sleep(0.05)
    _, second = await venue.get("/api/v3/time")
    assert 1_700_000_000_000 <= first["serverTime"] < second["serverTime"] < 1_700_000_060_000


async def test_rest_has_undelivered_trades(start: Start) -> None:
    venue = await start("generate", "--symbols", "BTCUSDT", "--trade-rate", "500")
    await until_async(lambda: venue.simulator.ledger()["frames"] > 200, "frames")
    _, rows = await venue.get("/api/v3/trades?symbol=BTCUSDT&limit=1000")
    ids = [row["id"] for row in rows]
    assert len(ids) > 20
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert ids[0] == (await venue.ledger())["symbols"]["BTCUSDT"]["first_trade_id"]
