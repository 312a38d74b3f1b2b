"""Backfill of missing ids: what REST can give is fetched within the documented bound, whatever it cannot give.

The pipeline, its publisher and the broker are real, and so is the HTTP server that answers as a venue does.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from workers_rig import SYMBOL, Rig, frames
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until_async
from marketfeed_service.id_ranges import of_ids
from marketfeed_workers.backfill import Backfiller
from marketfeed_workers.rate_limit import WeightBudget
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import RestAccess

BOUND_SECONDS = 8.0
"""The documented bound for a small gap, with a reserve for a loaded machine; a first request takes 0.1 s."""

Row = dict[str, Any]


def row(trade_id: int, **changed: Any) -> Row:
    made = {"id": trade_id, "price": "1", "qty": "2", "quoteQty": "2", "time": int(time.time() * 1000)}
    return {**made, "isBuyerMaker": True, "isBestMatch": True, **changed}


class History:
    """The venue's REST API: trades by id, and faults.

    Attributes:
        ids: the trades that exist.
        changed: trade id -> what stands in its row otherwise; None: the row is no object.
        silent: ids from which on a request is answered with nothing at all.
        asked: fromId of each request.
        busy: fromId -> how many more requests are answered with 503.
        limited: how many more requests are answered with 429.
        shuffle: rearranges the rows of a response.
    """

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.changed: dict[int, Row | None] = {}
        self.silent: list[range] = []
        self.hanging: set[int] = set()
        self.asked: list[int] = []
        self.busy: Counter[int] = Counter()
        self.limited = 0
        self.shuffle: Callable[[list[Any]], list[Any]] = lambda rows: rows
        self.most = 1000
        self.base = ""

    def _rows(self, ids: list[int]) -> list[Any]:
        return self.shuffle(
            [
                row(each, **(self.changed.get(each) or {})) if self.changed.get(each, {}) is not None else 7
                for each in ids
            ]
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        endpoint, limit = request.path.rpartition("/")[2], int(request.query["limit"])
        if endpoint == "aggTrades":
            return web.json_response([])
        first = int(request.query.get("fromId", -1))
        self.asked.append(first)
        if self.limited:
            self.limited -= 1
            return web.Response(status=429, headers={"Retry-After": "1"})
        if self.busy[first]:
            self.busy[first] -= 1
            return web.Response(status=503)
        if first in self.hanging:
            await asyncio.sleep(30)
        if any(first in each for each in self.silent):
            return web.json_response([])
        if endpoint == "trades":
            return web.json_response(self._rows(sorted(self.ids)[-limit:]))
        found = sorted(each for each in self.ids if each >= first)
        return web.json_response(self._rows(found[: min(limit, self.most)]))


@pytest.fixture
async def history() -> AsyncIterator[History]:
    made = History()
    app = web.Application()
    app.router.add_get("/api/v3/{endpoint}", made.answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    made.base = str(server.make_url("/"))
    yield made
    await server.close()


@pytest.fixture
def rig(make_settings: MakeSettings, shared_broker: Broker) -> Rig:
    return Rig(make_settings, shared_broker)


class Desk:
    """A running backfill."""

    def __init__(self, rig: Rig, history: History, make_settings: MakeSettings, key: str) -> None:
        self._rig, self._history, self._settings, self._key = rig, history, make_settings(), key
        self.budget = WeightBudget(1, time.monotonic)
        self.is_ample = True

    async def __aenter__(self) -> "Desk":
        self._session = ClientSession()
        access = RestAccess(self._history.base, self._session, self.budget, SecretStr(self._key), now_us)
        rest = VENUES["binance_us"].rest(access)
        rig, rng = self._rig, random.Random(1)  # noqa: S311
        desk = Backfiller(
            self._settings, rig.pipeline, rest, rig.counters, now_us, rng,
            monotonic=time.monotonic, has_spare=lambda: self.budget.has_spare,
            has_ample_spare=lambda: self.is_ample,
        )  # fmt: skip
        self._running = asyncio.create_task(desk.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})
        await self._session.close()

    def missing(self) -> set[int]:
        return {each for first, last in self._rig.flow.sequence.missing() for each in range(first, last + 1)}

    async def until_missing(self, expected: set[int], seconds: float = BOUND_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while self.missing() != expected:
            self._rig.pipeline.poll()
            if time.monotonic() > deadline:
                missing, asked = of_ids(self.missing())[:9], self._history.asked[:40]
                raise AssertionError(f"missing {missing} instead of {of_ids(expected)[:9]}; asked {asked}")
            await asyncio.sleep(0.01)


StartDesk = Callable[..., Desk]


@pytest.fixture
def start(rig: Rig, history: History, make_settings: MakeSettings) -> StartDesk:
    def make(key: str = "a key") -> Desk:
        return Desk(rig, history, make_settings, key)

    return make


async def test_backfill_skips_only_the_invalid_row(rig: Rig, history: History, start: StartDesk) -> None:
    history.ids = set(range(90, 6000))
    history.changed = {103: {"price": "1E-8"}}
    rig.flow.resume(100, [])
    rig.pipeline.process(frames(110, 5000, 5010))
    async with start() as desk:
        await desk.until_missing({103})
        assert rig.counters.failures["bad_row"]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"price": "1E-8"}, id="an exponent"),
        pytest.param({"price": -1}, id="a number that is negative"),
        pytest.param({"price": "-1"}, id="negative"),
        pytest.param({"qty": None}, id="null"),
        pytest.param({"time": 0}, id="1970"),
        pytest.param({"time": "soon"}, id="time as text"),
        pytest.param({"time": 1_723_161_600}, id="time in seconds"),
        pytest.param({"time": 1_723_161_600_000_000}, id="time in microseconds"),
        pytest.param({"time": 4_000_000_000_000}, id="a future time"),
        pytest.param({"isBuyerMaker": "yes"}, id="a side as text"),
    ],
)
async def test_backfill_keeps_the_id_of_an_impossible_row_missing(
    rig: Rig, history: History, start: StartDesk, changed: Row
) -> None:
    history.ids = set(range(90, 130)) - {107}
    history.changed = {103: changed}
    rig.flow.resume(100, [])
    rig.pipeline.process(frames(110))
    async with start() as desk:
        await desk.until_missing({103})


@pytest.mark.parametrize(
    "spoiled", [None, {"id": "x"}, {"id": -4}], ids=["no object", "no id", "a negative id"]
)
async def test_backfill_does_not_prove_ids_absent_next_to_a_row_without_an_id(
    rig: Rig, history: History, start: StartDesk, spoiled: Row | None
) -> None:
    history.ids = {*range(90, 103), 105, 108, 109, 110}
    history.changed = {105: spoiled}
    rig.flow.resume(100, [])
    rig.pipeline.process(frames(110))
    async with start() as desk:
        await desk.until_missing(set(range(103, 108)))


async def test_backfill_of_gaps_without_a_response_does_not_delay_another(
    rig: Rig, history: History, start: StartDesk
) -> None:
    """REST has nothing of five old gaps; the sixth can be filled."""
    history.ids = set(range(1, 20_000))
    gaps = [range(1000 * n, 1000 * n + 10) for n in range(1, 7)]
    history.silent = gaps[:5]
    rig.flow.resume(999, [])
    rig.pipeline.process(frames(*(each.stop for each in gaps)))
    between = [range(one.stop + 1, two.start) for one, two in itertools.pairwise(gaps)]
    for each in between:
        rig.pipeline.process(frames(*each))
    async with start() as desk:
        await desk.until_missing({each for gap in gaps[:5] for each in gap})
        rig.pipeline.process(frames(7000))
        await desk.until_missing({each for gap in gaps[:5] for each in gap}, 2.0)


async def test_backfill_without_a_response_has_reserved_weight(
    rig: Rig, history: History, start: StartDesk
) -> None:
    """Gaps that REST does not have used up the weight of all retries, also that of a gap after a 503."""
    history.ids = set(range(1, 20_000))
    history.silent, history.busy = [range(1000, 1010)], Counter({2000: 2})
    rig.flow.resume(999, [])
    async with start() as desk:
        desk.is_ample = False
        rig.pipeline.process(frames(1010, *range(1011, 2000), 2010))
        await desk.until_missing(set(range(1000, 1010)))
        assert history.asked.count(2000) == 3
        assert history.asked.count(1000) == 1


async def test_backfill_continues_after_an_empty_page(rig: Rig, history: History, start: StartDesk) -> None:
    history.ids = set(range(1, 9000))
    history.silent = [range(1000, 2000)]
    rig.flow.resume(999, [])
    rig.pipeline.process(frames(5000))
    async with start() as desk:
        await desk.until_missing(set(range(1000, 2000)))


async def test_backfill_proves_a_gap_of_200_000_ids_absent_by_one_response(
    rig: Rig, history: History, start: StartDesk
) -> None:
    history.ids = {98, 99, 100, *range(200_100, 200_105)}
    rig.flow.resume(100, [])
    rig.pipeline.process(frames(*range(200_100, 200_105)))
    async with start() as desk:
        await desk.until_missing(set())
        assert len(history.asked) <= 2


@pytest.mark.parametrize("key", ["a key", ""], ids=["with a key", "without"])
async def test_backfill_closes_every_gap_that_one_response_covers(
    rig: Rig, history: History, start: StartDesk, key: str
) -> None:
    history.ids = set(range(1, 1200))
    rig.flow.resume(500, [])
    rig.pipeline.process(frames(*range(510, 1190, 10)))
    async with start(key) as desk:
        await desk.until_missing(set())
        assert len(history.asked) == 1


@pytest.mark.parametrize(
    ("shuffle", "left"),
    [
        pytest.param(lambda rows: rows[::-1], {107}, id="newest first"),
        pytest.param(lambda rows: rows[1::2] + rows[::2], {107}, id="in no order"),
        pytest.param(lambda rows: [*rows[-3:], *rows], {107}, id="repeated out of order"),
        pytest.param(lambda rows: [row(5), *rows], {107}, id="one from before the request"),
        pytest.param(
            lambda rows: [each for each in rows for _ in range(2)], set(), id="each twice, in order"
        ),
        pytest.param(
            lambda rows: [*rows[:3], {**rows[2], "price": "9"}, *rows[3:]],
            {103},
            id="one twice, with two prices",
        ),
    ],
)
async def test_backfill_accepts_rows_in_any_order_without_proving_absence(
    rig: Rig,
    history: History,
    start: StartDesk,
    shuffle: Callable[[list[Any]], list[Any]],
    left: set[int],
) -> None:
    history.ids = set(range(90, 130)) - {107}
    history.shuffle = shuffle
    rig.flow.resume(100, [])
    rig.pipeline.process(frames(110))
    async with start() as desk:
        await desk.until_missing(left)


async def test_backfill_with_fewer_rows_than_requested(rig: Rig, history: History, start: StartDesk) -> None:
    history.ids = set(range(1, 400))
    history.most = 7
    rig.flow.resume(100, [])
    rig.pipeline.process(frames(200))
    async with start() as desk:
        await desk.until_missing(set())


async def test_backfill_continues_after_a_429(rig: Rig, history: History, start: StartDesk) -> None:
    history.ids = set(range(1, 9000))
    rig.flow.resume(999, [])
    rig.pipeline.process(frames(5000))
    async with start() as desk:
        await desk.until_missing(set(range(2000, 5000)) & desk.missing(), 5)
        history.limited = 1
        await desk.until_missing(set())


async def test_backfill_requests_first_what_leaves_the_newest_trades_soonest(
    rig: Rig, history: History, start: StartDesk
) -> None:
    """Without a key the newest 1,000 trades are available: an old gap must not delay a newer one."""
    history.ids = set(range(4001, 5003))
    rig.flow.resume(100, [])
    rig.pipeline.process(frames(4500, 5002))
    async with start("") as desk:
        await desk.until_missing(set(range(101, 4003)))
        assert len(history.asked) <= 3


async def test_backfill_of_a_request_that_hangs_does_not_delay_another_gap(
    rig: Rig, history: History, start: StartDesk
) -> None:
    history.ids = set(range(1, 9000))
    history.hanging = {101}
    other = rig.pipeline.add_symbol("ETHUSDT")
    rig.flow.resume(100, [])
    other.resume(3000, [])
    async with start() as desk:
        rig.pipeline.process(frames(110))
        await desk.until_missing(set(range(101, 110)))
        for frame in frames(3010):
            rig.pipeline.process([frame.replace(b"btcusdt", b"ethusdt").replace(b"BTCUSDT", b"ETHUSDT")])
        await until_async(lambda: not other.missing, "the other symbol's gap")


@pytest.mark.parametrize("seed", range(4))
async def test_backfill_closes_every_gap_that_the_venue_can_fill(
    rig: Rig, history: History, start: StartDesk, seed: int
) -> None:
    """Random gaps with absent ids, odd rows and parts without a response."""
    rng = random.Random(seed)  # noqa: S311
    history.ids = set(range(1, 20_000)) - set(rng.sample(range(1000, 15_000), 200))
    arrived = sorted(rng.sample(sorted(history.ids & set(range(1000, 15_000))), 60))
    odd = set(rng.sample(sorted(history.ids & set(range(1000, 15_000)) - set(arrived)), 10))
    history.changed = {each: {"qty": ""} for each in odd}
    rig.flow.resume(999, [])
    rig.pipeline.process(frames(*arrived))
    async with start() as desk:
        await desk.until_missing({each for each in odd if each < arrived[-1]}, 20)
        assert SYMBOL in rig.pipeline.flows
