"""A symbol is delisted when the venue confirms it, and not when its listing entry is invalid."""
# ruff: noqa: F811 - fixtures

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from test_workers_rest import Api, MakeRest, api, make_rest  # noqa: F401
from workers_rig import SYMBOL, Rig
from workers_rig import frames as trade_frames
from workers_support import MakeSettings

from marketfeed_devtools.mock_broker import Broker
from marketfeed_workers import startup
from marketfeed_workers.venues.clock import VenueClock
from marketfeed_workers.venues.errors import Unreachable
from marketfeed_workers.venues.monitor import VenueMonitor

GOOD = {"symbol": SYMBOL, "status": "TRADING"}
OTHER = {"symbol": "ETHUSDT", "status": "TRADING"}
QUOTE = {"bidPrice": "1", "bidQty": "1", "askPrice": "2", "askQty": "1"}


def refusal(code: int, status: int = 400) -> Callable[[dict[str, str]], web.Response]:
    return lambda _: web.json_response({"code": code, "msg": "…"}, status=status)


class Watch:
    def __init__(self, rig: Rig, api: Api, make_rest: MakeRest) -> None:
        self.rig, self._api = rig, api
        self.rest = make_rest()
        self.symbols = VenueMonitor(self.rest, rig.pipeline, rig.counters, VenueClock(rig.clock, lambda: 0.0))

    async def read(self, *entries: object) -> dict[str, str]:
        self._api.answers["exchangeInfo"] = {"symbols": list(entries), "rateLimits": []}
        await self.symbols._read_symbols()
        return self.symbols.not_trading


@pytest.fixture
async def watch(
    make_settings: MakeSettings,
    shared_broker: Broker,
    api: Api,
    make_rest: MakeRest,
) -> Watch:
    return Watch(Rig(make_settings, shared_broker), api, make_rest)


ODD = [
    {"symbol": SYMBOL, "status": None},
    {"symbol": SYMBOL},
    {"symbol": None, "status": "TRADING"},
    {"symbol": SYMBOL.lower(), "status": "TRADING"},
    17,
]


@pytest.mark.parametrize("entry", ODD, ids=str)
async def test_listing_entry_that_is_invalid_does_not_delist_a_symbol(
    watch: Watch, api: Api, entry: object
) -> None:
    api.answers["bookTicker"] = QUOTE
    assert await watch.read(entry, OTHER) == {}
    assert ("bookTicker", {"symbol": SYMBOL}, "") in api.asked


async def test_listing_that_is_empty_is_ignored(watch: Watch, api: Api) -> None:
    api.answers["bookTicker"] = refusal(-1121)
    with pytest.raises(Unreachable, match="empty"):
        await watch.read()
    assert watch.symbols.not_trading == {}
    assert [endpoint for endpoint, _, _ in api.asked] == ["exchangeInfo"], (
        "hundreds of symbols were asked about"
    )


async def test_listing_status_is_kept_while_the_entry_is_invalid(watch: Watch, api: Api) -> None:
    api.answers["bookTicker"] = QUOTE
    assert await watch.read({"symbol": SYMBOL, "status": "HALT"}, OTHER) == {SYMBOL: "HALT"}
    assert await watch.read(ODD[0], OTHER) == {SYMBOL: "HALT"}
    assert await watch.read(GOOD, OTHER) == {}


async def test_delisted_symbol_is_confirmed_by_name(
    watch: Watch,
    api: Api,
) -> None:
    api.answers["bookTicker"] = refusal(-1121)
    assert await watch.read(OTHER) == {SYMBOL: "delisted"}
    api.answers["bookTicker"] = QUOTE
    assert await watch.read(OTHER) == {}, "the symbol is listed again"


@pytest.mark.parametrize(
    "answer",
    [refusal(-1100), refusal(-1121, 404), refusal(-1003, 429), lambda _: web.Response(status=400, text="no"),
     lambda _: web.Response(status=500)],
)  # fmt: skip
async def test_delisted_symbol_is_not_concluded_from_other_errors(
    watch: Watch, api: Api, answer: object
) -> None:
    api.answers["bookTicker"] = answer
    with pytest.raises(Unreachable):
        await watch.read(OTHER)
    assert watch.symbols.not_trading == {}


async def test_delisted_symbol_must_not_deliver(watch: Watch, api: Api) -> None:
    watch.rig.flow.resume(0, [])
    api.answers["bookTicker"] = refusal(-1121)
    assert await watch.read(OTHER) == {SYMBOL: "delisted"}
    watch.symbols.check_deliveries()
    assert watch.symbols.delisted == [SYMBOL]
    watch.rig.pipeline.process(trade_frames(1))
    watch.symbols.check_deliveries()
    assert watch.symbols.delisted == []
    watch.rig.pipeline.process(trade_frames(2))
    assert await watch.read(OTHER) == {}, "the status changes with each listing"
    assert await watch.read(OTHER) == {SYMBOL: "delisted"}, "the symbol has delivered"


@pytest.mark.parametrize("entry", [*ODD, None], ids=str)
async def test_startup_accepts_symbols_confirmed_by_name(
    watch: Watch,
    api: Api,
    make_settings: MakeSettings,
    entry: object,
) -> None:
    api.answers["exchangeInfo"] = {"symbols": [] if entry is None else [entry, OTHER], "rateLimits": []}
    known = {SYMBOL, "ETHUSDT"}
    api.answers["bookTicker"] = lambda given: QUOTE if given["symbol"] in known else refusal(-1121)({})
    chosen = await startup.validate_symbols(make_settings(), watch.rest, [SYMBOL, "ETHUSDT", "NOPEUSDT"])
    assert (chosen.accepted, list(chosen.refused)) == ([SYMBOL, "ETHUSDT"], ["NOPEUSDT"])


async def test_rest_failures_are_logged_once_with_their_end(
    watch: Watch,
) -> None:
    """Each attempt was logged during an outage of REST."""
    due, done = asyncio.Event(), asyncio.Event()
    outcomes: list[Exception | None] = [Unreachable("rest_unreachable", "away")] * 3 + [None]

    async def work() -> None:
        due.set()
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        due.clear()
        done.set()

    with capture_logs() as lines:
        running = asyncio.create_task(watch.symbols._every("clock", 3600.0, 0.0, work, due))
        await asyncio.wait_for(done.wait(), 20)
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
    assert [(line["event"], line["request"]) for line in lines] == [
        ("REST requests failing", "clock"),
        ("REST requests recovered", "clock"),
    ]
