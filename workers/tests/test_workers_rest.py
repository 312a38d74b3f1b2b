"""REST client of Binance's spot venues against a real HTTP server with documented responses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from marketfeed_service.id_ranges import IdRange
from marketfeed_wire import Trade
from marketfeed_workers.rate_limit import WeightBudget
from marketfeed_workers.validate import validate
from marketfeed_workers.venues.errors import Limited, Refused, UnknownSymbol, Unreachable
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import Fetched, RestAccess, SymbolInfo, VenueRest

NOW_US = 1_723_161_700_000_000
TRADE_TIME_MS = 1_723_161_600_000


class Api:
    """A server whose responses are set by the test.

    Attributes:
        base: its address.
        asked: (endpoint, parameters, API key) of each request.
        answers: endpoint -> answer, or what makes it from the request's parameters.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], str]] = []
        self.answers: dict[str, Any] = {}
        self.base = ""
        self.budget = WeightBudget(1, lambda: 0.0)
        self.noted: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        endpoint = request.path.rpartition("/")[2]
        self.asked.append((endpoint, dict(request.query), request.headers.get("X-MBX-APIKEY", "")))
        answer = self.answers[endpoint]
        if callable(answer):
            answer = answer(dict(request.query))
        if isinstance(answer, web.Response):
            return answer
        return web.json_response(answer, headers={"X-MBX-USED-WEIGHT-1M": "77"})


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    app = web.Application()
    app.router.add_get("/api/v3/{endpoint:.+}", made.handle)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    made.base = str(server.make_url("/"))
    yield made
    await server.close()


MakeRest = Callable[..., VenueRest]


@pytest.fixture
async def make_rest(api: Api) -> AsyncIterator[MakeRest]:
    async with ClientSession() as session:

        def make(
            venue: str = "binance_us",
            key: str = "",
            base: str = "",
            monotonic: Callable[[], float] = lambda: 0.0,
        ) -> VenueRest:
            access = RestAccess(
                base or api.base,
                session,
                api.budget,
                SecretStr(key),
                lambda: NOW_US,
                lambda reason, count: api.noted.update({reason: count}),
                monotonic=monotonic,
            )
            assert "SecretStr('**********')" in repr(access) or not key
            return VENUES[venue].rest(access)

        yield make


def row(trade_id: int) -> dict[str, Any]:
    return {
        "id": trade_id,
        "price": "61685.99000000",
        "qty": "0.00120000",
        "quoteQty": "74.02",
        "time": TRADE_TIME_MS + trade_id,
        "isBuyerMaker": True,
        "isBestMatch": True,
    }


def aggregate(number: int, first: int, last: int) -> dict[str, Any]:
    return {
        "a": number,
        "f": first,
        "l": last,
        "p": "61685.99000000",
        "q": "0.00120000",
        "T": TRADE_TIME_MS + first,
        "m": True,
        "M": True,
    }


def ids(fetched: Fetched) -> list[int]:
    return [trade.trade_id for trade in fetched.trades]


async def test_listing_recorded_is_read_with_its_limits(
    api: Api, make_rest: MakeRest, recording: Callable[[str], Path]
) -> None:
    listing = recording("binance-us-exchangeInfo-2021.json").read_bytes()
    api.answers["exchangeInfo"] = lambda _: web.Response(body=listing, content_type="application/json")
    symbols = await make_rest().symbols()
    assert len(symbols) == 121
    assert symbols["BTCUSDT"] == SymbolInfo("TRADING", True)
    assert {info.trading for info in symbols.values() if info.status != "TRADING"} == {False}
    assert api.budget.limit == 1200
    accepted, refused = validate(("BTCUSDT", "NOPEUSDT"), symbols)
    assert (accepted, list(refused)) == (["BTCUSDT"], ["NOPEUSDT"])
    # The whole listing: in a request by name one unknown symbol fails the request.
    assert api.asked == [("exchangeInfo", {}, "")]


async def test_weight_used_is_the_value_reported_by_the_venue(api: Api, make_rest: MakeRest) -> None:
    api.answers["time"] = {"serverTime": TRADE_TIME_MS}
    assert (await make_rest().server_time()).time_us == TRADE_TIME_MS * 1000
    assert api.budget.used == 77


async def test_rest_row_becomes_a_trade_without_an_event_time(api: Api, make_rest: MakeRest) -> None:
    api.answers["trades"] = [row(5)]
    assert await make_rest().newest_trade("BTCUSDT") == Trade(
        "binance_us",
        "BTCUSDT",
        5,
        "61685.99000000",
        "0.00120000",
        True,
        (TRADE_TIME_MS + 5) * 1000,
        None,
        NOW_US,
        "backfill",
    )
    assert api.asked == [("trades", {"symbol": "BTCUSDT", "limit": "1"}, "")]
    api.answers["trades"] = []
    assert await make_rest().newest_trade("BTCUSDT") is None


async def test_first_id_since_a_time(api: Api, make_rest: MakeRest) -> None:
    api.answers["aggTrades"] = [aggregate(900, 41, 43)]
    assert await make_rest().first_id_since("BTCUSDT", TRADE_TIME_MS * 1000) == 41
    (_, asked, _) = api.asked[0]
    assert asked["startTime"] == str(TRADE_TIME_MS)
    assert int(asked["endTime"]) - int(asked["startTime"]) < 3_600_000, "longer spans are refused (-1127)"


@pytest.mark.parametrize(
    "is_bounded", [False, True], ids=["asked from a time on", "only by windows and by id"]
)
@pytest.mark.parametrize("hours", [0, 3, 9000])
async def test_first_id_since_a_time_is_found_after_any_quiet_period(
    api: Api, make_rest: MakeRest, hours: int, is_bounded: bool
) -> None:
    start = TRADE_TIME_MS - hours * 3_600_000
    rows = [
        {**aggregate(a, 10 * a, 10 * a + 9), "T": start + hours * 3_600_000 + 500 * (a - 50)}
        for a in range(70)
    ]

    def answer(asked: dict[str, str]) -> list[dict[str, Any]]:
        found = [each for each in rows if each["a"] >= int(asked.get("fromId", 0))]
        since = int(asked.get("startTime", 0))
        until = int(asked.get("endTime", since + 3_600_000 if is_bounded and since else 1 << 60))
        found = [each for each in found if since <= each["T"] <= until]
        return found[: int(asked["limit"])] if asked.keys() & {"fromId", "startTime"} else found[-1:]

    api.answers["aggTrades"] = answer
    needed = start if hours else start + 1
    expected = next(each["f"] for each in rows if each["T"] >= needed)
    assert await make_rest().first_id_since("BTCUSDT", needed * 1000) == expected
    assert len(api.asked) < 20


async def test_first_id_since_a_future_time_is_none(api: Api, make_rest: MakeRest) -> None:
    api.answers["aggTrades"] = lambda asked: [] if "startTime" in asked else [aggregate(900, 41, 43)]
    assert await make_rest().first_id_since("BTCUSDT", NOW_US) is None


async def test_first_id_since_the_year_1_is_the_first_of_all(api: Api, make_rest: MakeRest) -> None:
    api.answers["aggTrades"] = lambda asked: [aggregate(0, 0, 1)] if int(asked["startTime"]) >= 0 else None
    assert await make_rest().first_id_since("BTCUSDT", -62_135_596_800_000_000) == 0


async def test_newest_update_id_is_from_the_order_book(api: Api, make_rest: MakeRest) -> None:
    api.answers["depth"] = {"lastUpdateId": 1027024, "bids": [["4.0", "431.0"]], "asks": []}
    assert await make_rest().newest_update_id("BTCUSDT") == 1027024
    assert api.asked[-1][1] == {"symbol": "BTCUSDT", "limit": "5"}
    for odd in ({}, {"lastUpdateId": "7"}, {"lastUpdateId": -1}, []):
        api.answers["depth"] = odd
        with pytest.raises(Unreachable):
            await make_rest().newest_update_id("BTCUSDT")


async def test_rest_recent_ids_from_trades(api: Api, make_rest: MakeRest) -> None:
    api.answers["trades"] = [row(n) for n in range(1001, 2001) if n not in (1050, 1051)]
    fetched = await make_rest().trades("BTCUSDT", IdRange(1048, 1053), NOW_US)
    assert ids(fetched) == [1048, 1049, 1052, 1053]
    assert (fetched.absent, fetched.proof) == ([IdRange(1050, 1051)], "trades")
    assert all(trade.origin == "backfill" for trade in fetched.trades)


async def test_rest_trades_cover_only_their_range(api: Api, make_rest: MakeRest) -> None:
    api.answers["trades"] = [row(n) for n in range(1001, 2001)]
    below = await make_rest().trades("BTCUSDT", IdRange(990, 1002), NOW_US)
    assert (ids(below), below.absent) == ([1001, 1002], [])
    above = await make_rest().trades("BTCUSDT", IdRange(1999, 2004), NOW_US)
    assert (ids(above), above.absent) == ([1999, 2000], []), "newer ids are not absent"


async def test_rest_trades_with_few_rows_do_not_prove_lower_ids_absent(api: Api, make_rest: MakeRest) -> None:
    api.answers["trades"] = [row(n) for n in (503, 504, 506)]
    fetched = await make_rest().trades("BTCUSDT", IdRange(501, 505), NOW_US)
    assert (ids(fetched), fetched.absent) == ([503, 504], [IdRange(505, 505)])


async def test_rest_trades_with_a_cleared_cache_do_not_prove_older_ids_absent(
    api: Api, make_rest: MakeRest
) -> None:
    api.answers["trades"] = [row(n) for n in range(5_000_000, 5_000_300)]
    fetched = await make_rest().trades("BTCUSDT", IdRange(4_999_990, 5_000_001), NOW_US)
    assert (ids(fetched), fetched.absent) == ([5_000_000, 5_000_001], [])


async def test_rest_aggregates_continue_over_an_hour_without_trades(api: Api, make_rest: MakeRest) -> None:
    api.answers["trades"] = [row(n) for n in range(9001, 10_001)]
    pages = {None: [aggregate(7, 90, 98)], "8": [aggregate(8, 99, 99), aggregate(9, 101, 104)]}
    api.answers["aggTrades"] = lambda asked: pages[asked.get("fromId")]
    fetched = await make_rest().trades("BTCUSDT", IdRange(99, 103), NOW_US)
    assert (ids(fetched), fetched.absent) == ([99], [IdRange(100, 100)])


@pytest.mark.parametrize("spoiled", [{"price": "n/a"}, {"qty": "1e5"}, {"id": -1}, {"time": 2**62}])
async def test_rest_invalid_row_fills_nothing(api: Api, make_rest: MakeRest, spoiled: dict[str, Any]) -> None:
    api.answers["trades"] = [{**row(7), **spoiled}]
    with pytest.raises(Unreachable, match="the newest trade of BTCUSDT is invalid"):
        await make_rest().newest_trade("BTCUSDT")


GOOD = {"symbol": "BTCUSDT", "status": "TRADING"}
LIMIT = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1800}


@pytest.mark.parametrize(
    "odd",
    [
        {"symbol": "NEWUSDT"},
        {"symbol": "NEWUSDT", "status": None},
        {"symbol": "", "status": "TRADING"},
        {"symbol": 7, "status": "TRADING"},
        None,
        "BTCUSDT",
        [],
    ],
    ids=repr,
)
async def test_listing_skips_only_the_invalid_entry(api: Api, make_rest: MakeRest, odd: object) -> None:
    api.answers["exchangeInfo"] = {"symbols": [odd, GOOD, odd], "rateLimits": [LIMIT]}
    assert await make_rest().symbols() == {"BTCUSDT": SymbolInfo("TRADING", True)}
    assert api.budget.limit == 1800
    assert api.noted == {"bad_listing_entry": 2}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param([LIMIT], 1800, id="as documented"),
        pytest.param([{**LIMIT, "limit": 0}], 1200, id="0"),
        pytest.param([{**LIMIT, "limit": -1}], 1200, id="-1"),
        pytest.param([{**LIMIT, "limit": 1}], 1200, id="less than one request"),
        pytest.param([{**LIMIT, "limit": 10**30}], 1200, id="huge"),
        pytest.param([{**LIMIT, "limit": "1800"}], 1200, id="a text"),
        pytest.param([{**LIMIT, "limit": None}], 1200, id="null"),
        pytest.param([{**LIMIT, "limit": 2.5}], 1200, id="half"),
        pytest.param([{**LIMIT, "intervalNum": 0}], 1200, id="in 0 minutes"),
        pytest.param([{**LIMIT, "interval": "AEON"}], 1200, id="in an unknown unit"),
        pytest.param(
            [{**LIMIT, "interval": "SECOND", "intervalNum": 10, "limit": 200}], 1200, id="by the second"
        ),
        pytest.param([{**LIMIT, "interval": "HOUR", "limit": 90_000}], 1500, id="by the hour"),
        pytest.param(
            [{"rateLimitType": "REQUEST_WEIGHT", "limit": 900}], 900, id="without an interval, as in 2018"
        ),
        pytest.param([{"rateLimitType": "CONNECTIONS", "limit": 300}, LIMIT], 1800, id="beside a new kind"),
        pytest.param([{**LIMIT, "rateLimitType": "ORDERS", "limit": 0}, LIMIT], 1800, id="beside an odd one"),
        pytest.param([None, 7, LIMIT], 1800, id="beside invalid ones"),
        pytest.param([], 1200, id="none"),
        pytest.param(None, 1200, id="null in place of the list"),
        pytest.param({"a": 1}, 1200, id="no list"),
    ],
)
async def test_weight_limit_defaults_to_the_documented_one(
    api: Api, make_rest: MakeRest, limits: object, expected: int
) -> None:
    api.answers["exchangeInfo"] = {"symbols": [GOOD], "rateLimits": limits}
    assert list(await make_rest().symbols()) == ["BTCUSDT"]
    assert api.budget.limit == expected


async def test_rest_redirect_is_not_followed_and_gets_no_key(api: Api, make_rest: MakeRest) -> None:
    elsewhere = f"{api.base}api/v3/elsewhere"
    api.answers["time"] = lambda _: web.Response(status=302, headers={"Location": elsewhere})
    api.answers["elsewhere"] = {"serverTime": TRADE_TIME_MS}
    with pytest.raises(Unreachable, match="302"):
        await make_rest(key="k").server_time()
    assert [endpoint for endpoint, _, _ in api.asked] == ["time"]


async def test_rest_older_ids_are_proven_by_aggregates(api: Api, make_rest: MakeRest) -> None:
    api.answers["trades"] = [row(n) for n in range(9001, 10_001)]
    api.answers["aggTrades"] = [aggregate(1, 95, 100), aggregate(2, 101, 101), aggregate(3, 104, 108)]
    fetched = await make_rest().trades("BTCUSDT", IdRange(99, 106), NOW_US)
    assert ids(fetched) == [101], "of an aggregate of several only the sum is known"
    assert (fetched.absent, fetched.proof) == ([IdRange(102, 103)], "aggTrades")


async def test_rest_aggregates_are_paged_until_the_last_id(api: Api, make_rest: MakeRest) -> None:
    api.answers["trades"] = [row(n) for n in range(9001, 10_001)]
    pages = {
        None: [aggregate(n, n, n) for n in range(1, 1001)],
        "1001": [aggregate(n, n, n) for n in range(1001, 1500)],
    }
    api.answers["aggTrades"] = lambda asked: pages[asked.get("fromId")]
    fetched = await make_rest().trades("BTCUSDT", IdRange(990, 1100), NOW_US)
    assert (ids(fetched), fetched.absent) == (list(range(990, 1101)), [])


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="nothing there"),
        pytest.param([aggregate(1, 200, 300)], id="only newer ones"),
        pytest.param([aggregate(1, 1, 50)], id="only older ones"),
    ],
)
async def test_rest_aggregates_that_do_not_reach_the_ids_prove_nothing(
    api: Api, make_rest: MakeRest, rows: list[dict[str, Any]]
) -> None:
    api.answers["trades"] = [row(n) for n in range(9001, 10_001)]
    api.answers["aggTrades"] = rows
    assert await make_rest().trades("BTCUSDT", IdRange(99, 106), NOW_US) == Fetched([], [], "aggTrades")


@pytest.mark.parametrize(
    ("venue", "key"),
    [
        pytest.param("binance_us", "a key", id="Binance US with a key"),
        pytest.param("binance", "", id="Binance without a key"),
    ],
)
async def test_rest_old_ids_from_historical_trades(
    api: Api, make_rest: MakeRest, venue: str, key: str
) -> None:
    api.answers["historicalTrades"] = [row(n) for n in (100, 101, 104, 105)]
    fetched = await make_rest(venue, key).trades("BTCUSDT", IdRange(100, 104), NOW_US)
    assert (ids(fetched), fetched.absent) == ([100, 101, 104], [IdRange(102, 103)])
    assert api.asked == [("historicalTrades", {"symbol": "BTCUSDT", "fromId": "100", "limit": "6"}, key)]


@pytest.mark.parametrize("venue", ["binance_us", "binance"])
async def test_rest_continues_without_a_rejected_key(api: Api, make_rest: MakeRest, venue: str) -> None:
    api.answers["historicalTrades"] = lambda _: (
        web.Response(status=401, text='{"code":-2015,"msg":"Invalid API-key"}')
        if api.asked[-1][2]
        else web.json_response([row(n) for n in range(1001, 2001)])
    )
    api.answers["trades"] = [row(n) for n in range(1001, 2001)]
    rest = make_rest(venue, key="wr0ng")
    for _ in range(2):
        assert ids(await rest.trades("BTCUSDT", IdRange(1048, 1050), NOW_US)) == [1048, 1049, 1050]
    with_key = [endpoint for endpoint, _, key in api.asked if key]
    assert with_key == ["historicalTrades"], "a rejected key was sent again"


async def test_rest_historical_trades_that_end_early_do_not_prove_absence(
    api: Api, make_rest: MakeRest
) -> None:
    api.answers["historicalTrades"] = [row(100), row(101)]
    fetched = await make_rest(key="k").trades("BTCUSDT", IdRange(100, 104), NOW_US)
    assert (ids(fetched), fetched.absent) == ([100, 101], [])
    api.answers["historicalTrades"] = []
    assert (await make_rest(key="k").trades("BTCUSDT", IdRange(100, 104), NOW_US)).absent == []


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        pytest.param({"status": 451}, Refused, "region_refused", id="451"),
        pytest.param({"status": 403}, Refused, "forbidden", id="403"),
        pytest.param({"status": 500, "text": "oops"}, Unreachable, "http_500", id="500"),
        pytest.param({"status": 400, "text": '{"code":-1100}'}, Unreachable, "http_400", id="400"),
        pytest.param({"status": 400, "text": "-1121"}, Unreachable, "http_400", id="400 of another shape"),
        pytest.param(
            {"status": 400, "text": '{"code":-1121}'}, UnknownSymbol, "http_400", id="unknown symbol"
        ),
        pytest.param({"text": "<html>maintenance</html>"}, Unreachable, "bad_answer", id="HTML with 200"),
        pytest.param({"text": ""}, Unreachable, "bad_answer", id="nothing"),
        pytest.param({"text": "[]"}, Unreachable, "bad_answer", id="JSON of another shape"),
        pytest.param({"text": '{"rateLimits":[]}'}, Unreachable, "bad_answer", id="a field is missing"),
        pytest.param({"text": '{"new":' + "[" * 100_000}, Unreachable, "bad_answer", id="nested deeply"),
    ],
)
async def test_rest_invalid_responses(
    api: Api, make_rest: MakeRest, answer: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    api.answers["exchangeInfo"] = lambda _: web.Response(**answer)
    with pytest.raises((Unreachable, Refused)) as caught:
        await make_rest().symbols()
    assert type(caught.value) is kind
    assert caught.value.reason == reason
    assert "/api/v3/exchangeInfo" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("status", "reason"), [(429, "rate_limited"), (418, "banned")])
async def test_rest_rate_limit_blocks_every_request_for_retry_after(
    api: Api, make_rest: MakeRest, status: int, reason: str
) -> None:
    api.answers["time"] = lambda _: web.Response(status=status, headers={"Retry-After": "30"})
    with pytest.raises(Limited) as caught:
        await make_rest().server_time()
    assert (caught.value.reason, caught.value.retry_after_seconds) == (reason, 30)
    assert api.budget.wait_seconds(1) == 30
    waiting = asyncio.create_task(make_rest().server_time())
    await asyncio.sleep(0.05)
    assert len(api.asked) == 1, "a request was sent before the end of Retry-After"
    waiting.cancel()


async def test_connect_to_a_closed_port(api: Api, make_rest: MakeRest) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{port}") as caught:
        await make_rest(base=f"http://127.0.0.1:{port}").symbols()
    assert caught.value.reason == "rest_unreachable"


async def test_rest_truncated_response(api: Api, make_rest: MakeRest) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"symbols":[')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(Unreachable) as caught:
            await make_rest(base=f"http://127.0.0.1:{port}/").symbols()
    finally:
        server.close()
        await server.wait_closed()
    assert caught.value.reason == "rest_unreachable"


async def test_rest_api_key_is_in_the_header_and_in_no_message(api: Api, make_rest: MakeRest) -> None:
    api.answers["historicalTrades"] = lambda _: web.Response(status=500, text="no")
    with pytest.raises(Unreachable) as caught:
        await make_rest(key="k3y-of-mine").trades("BTCUSDT", IdRange(1, 2), NOW_US)
    assert api.asked[0][2] == "k3y-of-mine"
    assert "k3y" not in str(caught.value) + repr(caught.value)


async def test_rest_clock_measurement_excludes_rate_limiting(api: Api, make_rest: MakeRest) -> None:
    """The wait for request weight counted as latency: an error of up to half a minute, or half a day after a 418."""
    now = [0.0]

    class Budget(WeightBudget):
        async def acquire(self, weight: int, *, is_backfill: bool = False) -> None:
            now[0] += 60
            await super().acquire(weight, is_backfill=is_backfill)

    def answer(_: dict[str, str]) -> dict[str, int]:
        now[0] += 1
        return {"serverTime": TRADE_TIME_MS}

    api.budget = Budget(1, lambda: now[0])
    api.answers["time"] = answer
    found = await make_rest(monotonic=lambda: now[0]).server_time()
    assert found == (TRADE_TIME_MS * 1000, 60.5)


@pytest.mark.parametrize("key", ["", "k"], ids=["without a key", "with a key"])
async def test_weight_reserve_serves_stream_probes_while_backfill_waits(
    api: Api, make_rest: MakeRest, key: str
) -> None:
    api.budget.limit = 1200
    api.budget.observe(864)
    rest = make_rest(key=key)
    api.answers |= {name: [row(5)] for name in ("trades", "historicalTrades")} | {"aggTrades": []}
    asked = rest.trades("BTCUSDT", IdRange(5, 6), NOW_US, is_backfill=True)
    waiting = asyncio.create_task(asked)
    await asyncio.sleep(0)
    assert await rest.newest_trade("BTCUSDT") is not None
    assert [given["limit"] for _, given, _ in api.asked] == ["1"], "backfill took what is set aside"
    waiting.cancel()
