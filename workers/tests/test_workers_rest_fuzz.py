"""The worker's REST client against random responses: none raises another error or exceeds the bounds."""

import asyncio
import gzip
import json
import random
import resource
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from marketfeed_devtools import fuzz
from marketfeed_devtools.seeds import fuzz_rng, fuzz_rounds
from marketfeed_service.id_ranges import IdRange, membership, merged
from marketfeed_wire import MAX_TIME_US, Trade, encode
from marketfeed_wire.codec import decode_trade
from marketfeed_workers.rate_limit import WeightBudget
from marketfeed_workers.venues.errors import VenueError
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import Fetched, RestAccess, VenueRest

NOW_US = 1_796_000_000_000_000
NEEDED = [IdRange(100, 140), IdRange(160, 170), IdRange(5000, 250_000)]


def bodies() -> dict[str, bytes]:
    """Return real responses by endpoint."""
    times = NOW_US // 1000 - 10_000
    rows = [
        {"id": n, "price": "1.5", "qty": "0.2", "quoteQty": "1", "time": times, "isBuyerMaker": True}
        for n in range(95, 150)
    ]
    sums = [
        {"a": n, "f": 3 * n, "l": 3 * n + n % 3, "p": "1", "q": "2", "T": times, "m": False, "M": True}
        for n in range(30, 60)
    ]
    limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}
    listing = {
        "symbols": [{"symbol": f"S{n}", "status": "TRADING"} for n in range(20)],
        "rateLimits": [limit],
    }
    answers: dict[str, Any] = {
        "trades": rows,
        "historicalTrades": rows,
        "aggTrades": sums,
        "exchangeInfo": listing,
        "time": {"serverTime": times},
    }
    return {name: json.dumps(answer).encode() for name, answer in answers.items()}


class HostileServer:
    """A server that responds to every request with a mutation of the real response.

    Attributes:
        rng: what it draws from.
        base: its address.
    """

    def __init__(self) -> None:
        self.rng = random.Random()  # noqa: S311
        self.base = ""
        self._bodies = bodies()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        rng = self.rng
        body = fuzz.mutated(self._bodies[request.path.rpartition("/")[2]], rng)
        headers = {}
        if rng.random() < 0.2:
            headers["X-MBX-USED-WEIGHT-1M"] = rng.choice(("-1", "²", "9" * 5000, "x", "", "7"))
        if rng.random() < 0.1:
            headers["Content-Encoding"] = rng.choice(("gzip", "deflate"))
            packed = gzip.compress(body) if headers["Content-Encoding"] == "gzip" else zlib.compress(body)
            body = packed if rng.random() < 0.5 else packed[: rng.randrange(len(packed))] + body[:9]
        if rng.random() < 0.05:
            retry_after = rng.choice(("", "0", "soon", "9" * 500, "-3", "²"))
            return web.Response(status=rng.choice((429, 418)), headers={"Retry-After": retry_after})
        if rng.random() < 0.05:
            return web.Response(
                status=rng.choice((301, 400, 404, 500, 503, 451, 403)), body=body, headers=headers
            )
        return web.Response(
            body=body, headers=headers, content_type=rng.choice(("application/json", "text/html"))
        )


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    made = HostileServer()
    app = web.Application()
    app.router.add_get("/api/v3/{endpoint}", made.answer)
    running = TestServer(app, host="127.0.0.1")
    await running.start_server()
    made.base = str(running.make_url("/"))
    yield made
    await running.close()


def assert_sound(fetched: Fetched) -> None:
    """Assert that trades can be stored, were requested, and are not absent at the same time."""
    is_needed = membership(NEEDED)
    for trade in fetched.trades:
        assert is_needed(trade.trade_id)
        assert 0 <= trade.trade_time_us <= MAX_TIME_US
        assert decode_trade(encode(trade)) == trade
    absent = fetched.absent
    assert merged(absent) == absent
    assert all(is_needed(first) and is_needed(last) for first, last in absent)
    is_absent = membership(absent)
    assert not any(is_absent(trade.trade_id) for trade in fetched.trades)


async def ask(rest: VenueRest, rng: random.Random) -> str:
    """Call the client once and return the outcome."""
    try:
        match rng.randrange(6):
            case 0:
                assert all(isinstance(name, str) for name in await rest.symbols())
            case 1:
                assert 0 <= (await rest.server_time()).time_us <= MAX_TIME_US
            case 2:
                newest = await rest.newest_trade("S1")
                assert newest is None or isinstance(newest, Trade)
            case 3:
                first = await rest.first_id_since("S1", rng.choice((0, NOW_US, NOW_US - 86_400_000_000)))
                assert first is None or first >= 0
            case _:
                assert_sound(await rest.trades("S1", rng.choice(NEEDED), NOW_US, NEEDED))
    except VenueError as error:
        return error.reason if len(str(error)) < 2000 else f"a message of {len(str(error))} characters"
    return "used"


async def test_rest_client_survives_any_response(server: HostileServer) -> None:
    server.rng = rng = fuzz_rng("the worker's REST client")
    outcomes: Counter[str] = Counter()
    async with ClientSession() as session:
        for venue in ("binance", "binance_us"):
            for _ in range(fuzz_rounds() // 2):
                # A new budget each time: a blocked one would delay the next call.
                access = RestAccess(
                    server.base, session, WeightBudget(1, lambda: 0.0), SecretStr(""), lambda: NOW_US
                )
                async with asyncio.timeout(30):
                    outcomes[await ask(VENUES[venue].rest(access), rng)] += 1
    print(dict(outcomes))
    assert {"used", "bad_answer"} <= outcomes.keys(), "all responses had the same outcome"
    assert not [outcome for outcome in outcomes if outcome.startswith("a message of")]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", ""], ids=["gzip", "deflate", "as it is"])
async def test_rest_body_is_bounded(encoding: str) -> None:
    """A few hundred compressed kibibytes are 256 MiB of zeros."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    zeros = bytes(2**22)
    parts = [packer.compress(zeros) if encoding else zeros for _ in range(64)]

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Encoding": encoding} if encoding else {})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response

    app = web.Application()
    app.router.add_get("/api/v3/{endpoint}", answer)
    running = TestServer(app, host="127.0.0.1")
    await running.start_server()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        async with ClientSession() as session:
            base = str(running.make_url("/"))
            access = RestAccess(base, session, WeightBudget(1, lambda: 0.0), SecretStr(""), lambda: NOW_US)
            with pytest.raises(VenueError, match=r"more than \d+ bytes"):
                await VENUES["binance"].rest(access).symbols()
    finally:
        await running.close()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 200 * 1024, "the whole body was kept"


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"symbols":['])
@pytest.mark.parametrize("depth", [100, 10_000, 3_000_000])
async def test_rest_body_nested_deeply_is_an_error(opening: str, depth: int) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=opening * depth)

    app = web.Application()
    app.router.add_get("/api/v3/{endpoint}", answer)
    running = TestServer(app, host="127.0.0.1")
    await running.start_server()
    try:
        async with ClientSession() as session:
            base = str(running.make_url("/"))
            access = RestAccess(base, session, WeightBudget(1, lambda: 0.0), SecretStr(""), lambda: NOW_US)
            rest = VENUES["binance"].rest(access)
            with pytest.raises(VenueError, match="invalid response"):
                await rest.symbols()
            with pytest.raises(VenueError, match="invalid response"):
                await rest.trades("S1", IdRange(1, 5), NOW_US)
    finally:
        await running.close()
