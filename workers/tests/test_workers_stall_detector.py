"""What the watch over single streams does with odd quotes, and with symbols that leave while REST is asked.

REST is a model of the venue's; broker, publisher and pipeline are real.
"""

import asyncio
import random
import time
from contextlib import suppress
from decimal import Decimal
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from test_workers_id_series import VenueModel
from workers_rig import SYMBOL, Rig, frames
from workers_support import MakeSettings

from marketfeed_devtools.mock_broker import Broker
from marketfeed_service.id_ranges import IdRange
from marketfeed_wire import Trade
from marketfeed_workers.backfill import Backfiller
from marketfeed_workers.stall_detector import CHECK_SECONDS, StallDetector, StreamId
from marketfeed_workers.venues.clock import VenueClock
from marketfeed_workers.venues.monitor import VenueMonitor
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import BestQuote, Fetched

TRADES = StreamId(SYMBOL, "trade")


def quote_frame(update_id: int, bid: str) -> bytes:
    data = b'{"u":%d,"s":"BTCUSDT","b":"%b","B":"1","a":"101","A":"1"}' % (update_id, bid.encode())
    return b'{"stream":"btcusdt@bookTicker","data":%b}' % data


class Venue(VenueModel):
    """A REST API with a best bid and ask, and responses that can be delayed."""

    def __init__(self, first_id: int) -> None:
        super().__init__(first_id)
        self.best: BestQuote | None = None
        self.pending: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def best_quote(self, symbol: str) -> BestQuote | None:  # type: ignore[override]
        await self._wait()
        return self.best

    async def newest_trade(self, symbol: str) -> Trade | None:
        await self._wait()
        return await super().newest_trade(symbol)

    async def _wait(self) -> None:
        self.asked.set()
        if self.pending is not None:
            await self.pending.wait()


class Watch:
    """A stall detector, one symbol on one connection, and its clock."""

    def __init__(self, rig: Rig) -> None:
        self.now = 0.0
        self.rig, self.venue = rig, Venue(1000)
        clock = VenueClock(rig.clock, self.monotonic)
        symbols = VenueMonitor(self.venue, rig.pipeline, rig.counters, clock)
        venue = VENUES["binance_us"]
        self.streams = StallDetector(
            venue, self.venue, rig.pipeline, rig.counters, self.monotonic, 1.0, symbols
        )
        session = SimpleNamespace(streams=dict.fromkeys(venue.streams(SYMBOL)), verified=set())
        self.renewed: list[str] = []
        connection = SimpleNamespace(session=session, rotate=self.renewed.append)
        self.streams.watch(SimpleNamespace(connections=[connection], connection_of=lambda _: connection))

    def monotonic(self) -> float:
        return self.now

    async def look(self, seconds: float = 0.0) -> None:
        """Observe for so many seconds, and run the due probes."""
        for _ in range(1 + int(seconds / CHECK_SECONDS)):
            for stream in self.streams.observe():
                await self.streams._run_probe(stream, self.streams._streams[stream])
            self.now += CHECK_SECONDS

    def state(self, kind: str) -> str:
        return self.streams.status(SYMBOL)[kind].state


@pytest.fixture
def watch(make_settings: MakeSettings, shared_broker: Broker) -> Watch:
    return Watch(Rig(make_settings, shared_broker))


def best(bid: str) -> BestQuote:
    return BestQuote(Decimal(bid), Decimal(1), Decimal(101), Decimal(1))


@pytest.mark.parametrize("bid", ["abc", "1e5000000", "NaN", "-1", "٣", "1_0", " 1"])
async def test_stall_detector_ignores_a_quote_that_is_not_decimal(watch: Watch, bid: str) -> None:
    watch.venue.best = best("100")
    watch.rig.pipeline.process([quote_frame(1, "100"), quote_frame(2, bid)])
    await watch.look(30)
    assert watch.rig.flow.last_quote is not None
    assert watch.rig.flow.last_quote.bid_price == bid, "the quote was not published unchanged"
    assert watch.state("quotes") == "idle"
    assert await watch.streams.undelivered(["btcusdt@bookTicker"]) == set()
    assert watch.renewed == []


async def test_stall_detector_detects_a_stall_after_an_invalid_quote(watch: Watch) -> None:
    watch.venue.best = best("100")
    watch.rig.pipeline.process([quote_frame(1, "abc")])
    await watch.look(10)
    assert watch.state("quotes") == "idle"
    watch.venue.best = best("99")
    await watch.look(120)
    assert watch.state("quotes") == "stalled"


async def test_stall_detector_symbol_removed_during_a_probe(watch: Watch) -> None:
    watch.streams.observe()
    watch.venue.trade()
    answer = watch.venue.pending = asyncio.Event()
    asked = asyncio.create_task(watch.streams.undelivered(["btcusdt@trade"]))
    await watch.venue.asked.wait()
    watch.rig.pipeline.remove_symbol(SYMBOL)
    watch.streams.observe()
    answer.set()
    assert await asked == set()


async def test_stall_detector_symbol_added_again_during_a_probe(watch: Watch) -> None:
    watch.streams.observe()
    liveness = watch.streams._streams[TRADES]
    for _ in range(2):
        watch.venue.trade()
        await watch.streams._run_probe(TRADES, liveness)
    watch.venue.asked.clear()
    answer = watch.venue.pending = asyncio.Event()
    probe = asyncio.create_task(watch.streams._run_probe(TRADES, liveness))
    await watch.venue.asked.wait()
    watch.rig.pipeline.remove_symbol(SYMBOL)
    watch.streams.observe()
    watch.rig.pipeline.add_symbol(SYMBOL).resume(1000, [])
    watch.streams.observe()
    answer.set()
    await probe
    assert watch.renewed == [], "a stream that was just subscribed is stalled"


async def test_backfill_of_a_symbol_removed_before_the_request(
    watch: Watch, make_settings: MakeSettings
) -> None:
    rig = watch.rig
    rng = random.Random(1)  # noqa: S311
    desk = Backfiller(
        make_settings(), rig.pipeline, watch.venue, rig.counters, rig.clock, rng, monotonic=watch.monotonic
    )
    rig.flow.resume(41, [])
    for trade in (watch.venue.trade(44), watch.venue.trade(45)):
        rig.flow.accept(trade, 1)
    desk.wake(SYMBOL)
    watch.now += 10
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        desk._send_due(group)
        watch.now += 10
        desk._send_due(group)  # the request is a task that has not started
        assert [request.ids for request in desk._in_flight.values()] == [IdRange(42, 43)]
        rig.pipeline.remove_symbol(SYMBOL)
    assert not desk._in_flight


async def test_backfill_requests_are_marked(watch: Watch, make_settings: MakeSettings) -> None:
    rng = random.Random(1)  # noqa: S311
    rig, asked = watch.rig, asyncio.Event()

    class Recording(Venue):
        async def trades(self, *args: object, is_backfill: bool = False) -> Fetched:  # type: ignore[override]
            assert is_backfill
            asked.set()
            return Fetched([], [], "model")

    desk = Backfiller(
        make_settings(), rig.pipeline, Recording(1), rig.counters, rig.clock, rng, monotonic=time.monotonic
    )
    rig.flow.resume(41, [])
    rig.flow.accept(watch.venue.trade(44), 1)
    running = asyncio.create_task(desk.run())
    async with asyncio.timeout(20):
        await asked.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_stall_detector_logs_failed_probes_once_with_their_end(watch: Watch) -> None:
    """Each probe of each stream was logged during an outage of REST."""
    watch.venue.best = best("100")
    watch.rig.pipeline.process([quote_frame(1, "100")])
    watch.venue.responds = False
    with capture_logs() as lines:
        await watch.look(60)
        during = [line for line in lines if line["event"] == "stream not verified"]
        assert {line["stream"] for line in during} == {"btcusdt@trade"}
        assert len(during) == 1
        watch.venue.responds = True
        await watch.look(60)
    (ended,) = [line for line in lines if line["event"] == "stream verified"]
    assert ended["stream"] == "btcusdt@trade"
    assert ended["occurrences"] > 5
    assert sum(line["event"] == "stream not verified" for line in lines) == 1


@pytest.mark.parametrize("how", ["it delivers", "it leaves"])
async def test_stall_detector_logs_failed_probes_again_when(watch: Watch, how: str) -> None:
    watch.venue.responds = False
    with capture_logs() as lines:
        await watch.look(30)
        if how == "it delivers":
            watch.rig.pipeline.process(frames(1000))
        else:
            watch.rig.pipeline.remove_symbol(SYMBOL)
        watch.streams.observe()
    assert [line["event"] for line in lines if line.get("stream") == "btcusdt@trade"].count(
        "stream verified"
    ) == (how == "it delivers")
    assert not watch.streams._unverified.keys() & {TRADES}
