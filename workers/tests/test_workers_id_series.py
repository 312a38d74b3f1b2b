"""Ids that a venue begins again are found by the first such trade, and no odd trade is taken for that.

REST is a model of the venue's; broker and publisher are real.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs
from workers_rig import SYMBOL, Rig
from workers_support import MakeSettings

from marketfeed_devtools.mock_broker import Broker
from marketfeed_service.errors import StartupError
from marketfeed_service.id_ranges import IdRange
from marketfeed_wire import (
    BookTicker,
    Checkpoint,
    Gap,
    Trade,
    decode_book_ticker,
    decode_gap,
    decode_trade,
    encode,
)
from marketfeed_wire.ledger import decode_checkpoint
from marketfeed_workers import startup
from marketfeed_workers.kafka.checkpoints import CheckpointPublisher
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.kafka.recovery import RecoveredState, SharedRecovery
from marketfeed_workers.stream.id_series import (
    DECISIVE_TRADES,
    MAX_HELD,
    QUOTES_SECONDS,
    SeriesDecision,
    SuspectedReset,
)
from marketfeed_workers.stream.id_series_monitor import MAX_RESPONSES, IdSeriesMonitor
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.recent_trades import RecentTrades
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.errors import Unreachable
from marketfeed_workers.venues.venue import Fetched, SymbolInfo, VenueTime

BEGIN_US = 1_700_000_000_000_000


class VenueModel:
    """A venue with trades of one symbol, and its REST API."""

    newest_only = None

    def __init__(self, first_id: int) -> None:
        self.rows: list[Trade] = []
        self.responds = True
        self.update_id: int | None = None
        self.reset_symbols: list[str] = []
        self.exact_rows = 1_000_000
        self.generation = 0
        self.next_id = first_id
        self.time_us = BEGIN_US

    def trade(self, trade_id: int | None = None, **fields: object) -> Trade:
        """Return the next trade, or with an id one that REST does not have."""
        self.time_us += 5_000
        made_id = self.next_id if trade_id is None else trade_id
        content = {"trade_time_us": self.time_us, "price": f"{made_id + 1}.{self.generation}"}
        made = a_trade(made_id, **{**content, **fields})
        if trade_id is None:
            self.rows.append(made)
            self.next_id += 1
        return made

    def begin_again(self, first_id: int) -> None:
        self.rows, self.next_id = [], first_id
        self.generation += 1

    def ids_restarted(self, symbol: str) -> None:
        self.reset_symbols.append(symbol)

    async def symbols(self) -> dict[str, SymbolInfo]:
        return {SYMBOL: SymbolInfo("TRADING", True)}

    async def is_listed(self, symbol: str) -> bool:
        return True

    async def server_time(self) -> VenueTime:
        return VenueTime(self.time_us, time.monotonic())

    async def best_quote(self, symbol: str) -> None:
        return None

    async def newest_update_id(self, symbol: str) -> int | None:
        self._answer()
        return self.update_id

    async def newest_trade(self, symbol: str) -> Trade | None:
        self._answer()
        return self.rows[-1] if self.rows else None

    async def first_id_since(self, symbol: str, time_us: int) -> int | None:
        self._answer()
        return next((row.trade_id for row in self.rows if row.trade_time_us >= time_us), None)

    async def trades(
        self,
        symbol: str,
        ids: IdRange,
        near_time_us: int,
        also: Sequence[IdRange] = (),
        *,
        is_backfill: bool = False,
    ) -> Fetched:
        self._answer()
        exact = self.rows[-self.exact_rows :]
        return Fetched([row for row in exact if ids.first <= row.trade_id <= ids.last], [], "model")

    def _answer(self) -> None:
        if not self.responds:
            raise Unreachable("rest_unreachable", "the venue is unreachable")


def a_trade(trade_id: int, **fields: object) -> Trade:
    made = {"price": f"{trade_id + 1}.0", "qty": "2.0", "buyer_is_maker": True, "origin": "stream", **fields}
    return Trade(
        "binance_us",
        SYMBOL,
        trade_id,
        event_time_us=None,
        received_time_us=1,
        **made,  # type: ignore[arg-type]
    )


class Stage:
    """A pipeline with topics and the monitor of id series."""

    def __init__(self, rig: Rig, venue: VenueModel) -> None:
        self.rig, self.venue = rig, venue
        self.clock = [0.0]
        rig.pipeline = Pipeline(_BinanceUs(), rig.publisher, rig.counters, rig.clock, lambda: self.clock[0])
        rig.teller._pipeline = rig.pipeline
        rig.pipeline.add_symbol(SYMBOL)
        self.watch = IdSeriesMonitor(rig.pipeline, venue, rig.counters, recover_state=self.recover_state)

    def come(self, *trades: Trade) -> None:
        """Process trades of one read."""
        self.rig.pipeline._publish_trades(list(trades), 1, [])
        self.rig.pipeline.poll()

    def quotes(self, *update_ids: int, bid_price: str = "1") -> None:
        quotes = [BookTicker("binance_us", SYMBOL, u, bid_price, "1", "2", "1", None, 1) for u in update_ids]
        self.rig.pipeline.quotes.publish(quotes, 1)
        self.rig.pipeline.poll()

    def look_for(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock[0] += 1
            self.check()

    def check(self) -> None:
        asyncio.run(self.watch.check())
        self.settle()

    def settle(self) -> None:
        self.rig.settle()
        self.rig.pipeline.poll()
        asyncio.run(self.watch.begin_decided())
        self.rig.settle()
        self.rig.pipeline.poll()
        self.rig.settle()

    def published(self) -> list[tuple[int, int]]:
        """Return (series, id) of every trade in the topic."""
        self.settle()
        return [(one.id_series, one.trade_id) for one in map(decode_trade, self.rig.stored(self.rig.trades))]

    def restarted(self) -> "Stage":
        """Return the next process, resumed from Kafka."""
        self.publish()
        return self._next(self.rig.publisher)

    def another(self) -> "Stage":
        """Return another worker of the symbol, resumed from Kafka."""
        self.publish()
        return self._next(Publisher(self.rig.settings, self.rig.clock))

    def publish(self) -> None:
        """Wait for all acknowledgements and publish the checkpoints."""
        self.settle()
        self.rig.teller.publish(is_final=True)
        self.settle()

    def _next(self, publisher: Publisher) -> "Stage":
        rig = Rig.__new__(Rig)
        rig.__dict__.update(self.rig.__dict__)
        if publisher is not rig.publisher:
            rig.publisher = publisher
            rig.teller = CheckpointPublisher(rig.settings, rig.pipeline, publisher, rig.counters, rig.clock)
        new = Stage(rig, self.venue)
        startup.resume(self.memory(), rig.pipeline.flows[SYMBOL], None)
        return new

    def memory(self, *, compacted: bool = False) -> RecoveredState:
        """Return the state recovered from Kafka; `compacted`: from as few records as compaction may leave."""
        memory = RecoveredState()
        for topic, take in ((self.rig.progress, memory.add_checkpoint), (self.rig.gaps, memory.add_gap)):
            records = self.rig.broker.read(topic)
            for _, value in dict(records).items() if compacted else records:
                take("binance_us", value)
        return memory

    async def recover_state(self) -> RecoveredState:
        return self.memory()


def _BinanceUs():  # noqa: N802 - stands for a class
    from marketfeed_workers.venues.registry import VENUES

    return VENUES["binance_us"]


@pytest.fixture
def begin(make_settings: MakeSettings, shared_broker: Broker) -> Callable[[int], Stage]:
    """Return a stage with ten published trades from an id on."""

    def one(first_id: int = 1000) -> Stage:
        venue = VenueModel(first_id)
        stage = Stage(Rig(make_settings, shared_broker), venue)
        for _ in range(10):
            stage.come(venue.trade())
        stage.settle()
        assert stage.published() == [(0, first_id + n) for n in range(10)]
        return stage

    return one


def series(first: int, *ids: int) -> list[tuple[int, int]]:
    return [(first, each) for each in ids]


OLD = series(0, *range(1000, 1010))


@pytest.mark.parametrize("first_id", [0, 1, 500, 1005, 1009])
def test_id_series_begins_with_the_first_trade_after_a_reset(begin, first_id: int) -> None:
    stage = begin()
    stage.venue.begin_again(first_id)
    stage.come(stage.venue.trade())
    assert stage.published() == OLD
    stage.check()
    stage.come(*(stage.venue.trade() for _ in range(20)))
    assert stage.published() == OLD + series(1, *range(first_id, first_id + 21))
    assert stage.rig.counters.series_begun["trade", SYMBOL] == 1


def test_id_series_can_be_reset_twice(begin) -> None:
    stage = begin()
    for _ in range(2):
        stage.venue.begin_again(3)
        stage.come(*(stage.venue.trade() for _ in range(5)))
        stage.check()
    assert stage.published() == OLD + series(1, *range(3, 8)) + series(2, *range(3, 8))


def begin_again_twice(stage: Stage) -> None:
    """Begin two series in `stage`, which another worker does not see."""
    for first_id in (3, 2):
        stage.venue.begin_again(first_id)
        stage.come(*(stage.venue.trade() for _ in range(5)))
        stage.check()
    stage.publish()


TWICE = OLD + series(1, *range(3, 8)) + series(2, *range(2, 7))


@pytest.mark.parametrize("rest_responds", [True, False], ids=["REST decides", "held trades decide"])
def test_id_series_of_a_worker_two_behind_is_the_newest_in_kafka(begin, rest_responds: bool) -> None:
    """The number of its own series plus one was used: trades of two series were published as one."""
    stage = begin()
    behind = stage.another()
    begin_again_twice(stage)
    assert stage.published() == TWICE
    stage.venue.responds = rest_responds
    for _ in range(DECISIVE_TRADES):
        behind.come(stage.venue.trade())
        behind.check()
    assert behind.published() == TWICE + series(2, *range(7, 7 + DECISIVE_TRADES))


@pytest.mark.parametrize("first_id", [0, 5], ids=["from the beginning", "from a known id"])
@pytest.mark.parametrize("comes", [True, False], ids=["with a trade", "quiet symbol"])
def test_id_series_of_a_worker_three_behind_is_above_the_newest_in_kafka(
    begin, first_id: int, comes: bool
) -> None:
    stage = begin()
    behind = stage.another()
    begin_again_twice(stage)
    stage.venue.begin_again(first_id)
    stage.venue.trade()
    if comes:
        behind.come(stage.venue.trade())
        behind.check()
    else:
        stage.venue.trade()
        for _ in range(2):
            asyncio.run(behind.watch.check_resumed())
    behind.check()
    flow = behind.rig.pipeline.flows[SYMBOL]
    assert flow.id_series == 3
    behind.rig.pipeline.flush(flow)
    assert behind.published() == TWICE + series(3, first_id + 1) * comes
    assert flow.resumed_id == first_id - 1


def test_id_series_of_another_worker_is_joined_with_its_gaps(begin) -> None:
    stage = begin()
    behind = stage.another()
    stage.venue.begin_again(3)
    stage.come(stage.venue.trade(), stage.venue.trade())
    stage.check()
    stage.venue.trade()
    stage.come(stage.venue.trade())
    stage.rig.pipeline.flush(stage.rig.pipeline.flows[SYMBOL])
    stage.publish()
    for _ in range(3):
        stage.venue.trade()
    behind.come(stage.venue.trade())
    behind.check()
    behind.check()
    flow = behind.rig.pipeline.flows[SYMBOL]
    assert (flow.id_series, flow.suspected_reset) == (1, None)
    assert flow.sequence.missing() == [IdRange(5, 5), IdRange(7, 9)]
    assert stage.published() == OLD + series(1, 3, 4, 6)
    behind.rig.pipeline.flush(flow)
    assert stage.published() == OLD + series(1, 3, 4, 6, 10)


def test_id_series_waits_while_kafka_cannot_be_read_within_its_bounds(begin) -> None:
    stage = begin()
    stage.venue.begin_again(0)
    unreadable = [True]

    async def recover_state() -> RecoveredState:
        if unreadable[0]:
            raise StartupError("Kafka is away")
        return stage.memory()

    stage.watch._recover_state = recover_state
    with capture_logs() as lines:
        for _ in range(4):
            stage.come(*(stage.venue.trade() for _ in range(MAX_HELD)))
            stage.check()
    assert stage.published() == OLD
    assert stage.rig.pipeline.paused
    assert [line["event"] for line in lines if line["event"].startswith("id series")] == [
        "id series not begun: checkpoints cannot be read"
    ]
    unreadable[0] = False
    stage.settle()
    stage.rig.pipeline.poll()
    assert not stage.rig.pipeline.paused
    assert stage.published() == OLD + series(1, *range(4 * MAX_HELD))


def test_id_series_is_known_after_compaction_with_a_lagging_worker(begin) -> None:
    """Checkpoints shared a key: only the later one of the ended series remained."""
    stage = begin()
    behind = stage.another()
    stage.venue.begin_again(3)
    stage.come(stage.venue.trade())
    stage.check()
    stage.publish()
    behind.come(a_trade(1010, trade_time_us=stage.venue.time_us + 1))
    behind.quotes(100)
    behind.publish()
    assert stage.memory(compacted=True).checkpoints[SYMBOL].id_series == 1
    assert stage.memory(compacted=True).newest_series(SYMBOL) == 1


def test_id_series_without_a_checkpoint_is_the_newest_of_its_gaps(begin) -> None:
    memory = RecoveredState()
    for id_series in (2, 1):
        gap = Gap(
            venue="binance_us",
            symbol=SYMBOL,
            first_id=5 + id_series,
            last_id=9,
            state="backfilled",
            missing=[],
            absent=[],
            proof="model",
            detected_time_us=1,
            updated_time_us=2,
            id_series=id_series,
        )
        memory.add_gap("binance_us", encode(gap))
    stage = begin()
    flow = SymbolFlow(SYMBOL, b"key")
    startup.resume(memory, flow, None)
    stage.rig.pipeline.flows[SYMBOL] = flow
    stage.come(stage.venue.trade())
    assert stage.published() == [*OLD, (2, 1010)]
    assert stage.memory().checkpoints[SYMBOL].id_series == 2


def test_id_series_of_quotes_of_a_lagging_worker_is_the_newest_in_kafka(begin) -> None:
    stage = begin()
    stage.quotes(*range(100, 110))
    behind, other = stage.another(), stage.another()
    for first in (50, 20):
        stage.venue.update_id = first
        stage.quotes(first, first + 1, first + 2)
        stage.look_for(QUOTES_SECONDS)
        stage.publish()
    assert stage.rig.pipeline.flows[SYMBOL].quote_series == 2
    stage.venue.update_id = 25
    behind.quotes(23, 24, 25)
    behind.look_for(QUOTES_SECONDS)
    assert behind.rig.pipeline.flows[SYMBOL].quote_series == 2
    stage.venue.update_id = 5
    other.quotes(3, 4, 5)
    other.look_for(QUOTES_SECONDS)
    assert other.rig.pipeline.flows[SYMBOL].quote_series == 3


async def test_recovery_for_many_symbols_at_once_reads_at_most_twice() -> None:
    reads: list[int] = []

    def read() -> RecoveredState:
        reads.append(1)
        return RecoveredState()

    shared = SharedRecovery(read)
    await asyncio.gather(*(shared() for _ in range(100)))
    assert len(reads) <= 2
    await shared()
    assert len(reads) <= 3


def test_id_series_start_is_requested_again_while_rest_lags(begin) -> None:
    """It began with the first received trade: the ids before it were lost."""
    stage = begin()
    stage.venue.begin_again(0)
    for _ in range(500):
        stage.venue.trade()
    stage.come(stage.venue.trade())
    since, stage.venue.first_id_since = stage.venue.first_id_since, nothing_since
    stage.venue.exact_rows = 1
    stage.check()
    assert stage.published() == OLD
    stage.venue.first_id_since = since
    stage.check()
    assert stage.published() == OLD
    flow = stage.rig.pipeline.flows[SYMBOL]
    assert (flow.id_series, flow.sequence.missing()) == (1, [IdRange(0, 499)])


async def nothing_since(_symbol: str, _time_us: int) -> None:
    return None


def test_id_series_start_is_backfilled_after_an_outage(begin) -> None:
    """The first trades of the new series were not received: they are a gap."""
    stage = begin()
    stage.venue.begin_again(0)
    missed = [stage.venue.trade() for _ in range(30)]
    stage.come(stage.venue.trade())
    stage.check()
    flow = stage.rig.pipeline.flows[SYMBOL]
    assert flow.sequence.missing() == [IdRange(0, 29)]
    stage.rig.pipeline.fetched.publish(flow, Fetched(missed, [], "model"))
    assert sorted(stage.published()) == OLD + series(1, *range(31))


@pytest.mark.parametrize("first_id", [1, 1003])
def test_id_series_reset_is_detected_by_the_next_process(begin, first_id: int) -> None:
    """Also if the new ids have passed the checkpoint."""
    stage = begin()
    stage.venue.begin_again(first_id)
    missed = [stage.venue.trade() for _ in range(8)]
    stage = stage.restarted()
    stage.come(stage.venue.trade())
    stage.check()
    flow = stage.rig.pipeline.flows[SYMBOL]
    assert (flow.id_series, flow.sequence.missing()) == (1, [IdRange(first_id, first_id + 7)])
    stage.rig.pipeline.fetched.publish(flow, Fetched(missed, [], "model"))
    assert sorted(stage.published()) == OLD + series(1, *range(first_id, first_id + 9))


def test_id_series_continues_in_the_next_process(begin) -> None:
    stage = begin()
    stage.venue.begin_again(0)
    stage.come(stage.venue.trade())
    stage.check()
    stage = stage.restarted()
    stage.come(stage.venue.trade())
    assert stage.published() == OLD + series(1, 0, 1)


def test_id_series_is_recorded_before_its_first_trade(begin) -> None:
    stage = begin()
    stage.venue.begin_again(0)
    stage.come(stage.venue.trade())
    stage.check()
    words = [decode_checkpoint(value) for value in stage.rig.stored(stage.rig.progress)]
    assert [(word.id_series, word.next_id) for word in words][-1] == (1, 0)


def test_id_series_of_a_lagging_worker_never_decreases() -> None:
    memory = RecoveredState()
    for id_series, trade_id in ((0, 1009), (1, 20), (0, 1009)):
        memory.add_checkpoint("binance_us", encode(Checkpoint("binance_us", SYMBOL, trade_id, 1, id_series)))
    assert memory.checkpoints[SYMBOL].id_series == 1
    older = b'{"venue":"binance_us","symbol":"X","trade_id":7,"acknowledged_time_us":5}'
    memory.add_checkpoint("binance_us", older)
    assert memory.checkpoints["X"].id_series == 0


def test_id_series_end_leaves_its_gaps_unresolved_with_the_reason(begin) -> None:
    stage = begin()
    stage.venue.next_id = 1013
    stage.come(stage.venue.trade())
    stage.venue.begin_again(1)
    stage.come(stage.venue.trade())
    stage.check()
    assert stage.published() == [*OLD, (0, 1013), (1, 1)]
    gaps = [decode_gap(value) for value in stage.rig.stored(stage.rig.gaps)]
    last: Gap = gaps[-1]
    assert (last.state, last.proof, last.missing) == ("unresolved", "id series ended", [(1010, 1012)])
    assert stage.rig.pipeline.flows[SYMBOL].missing == 0


ODD = {
    "a known id, later, with another price": {"trade_id": 1004},
    "an id before all that was received": {"trade_id": 5},
}


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD)
@pytest.mark.parametrize("rest_responds", [True, False])
def test_id_series_continues_after_one_odd_trade(begin, fields, rest_responds: bool) -> None:
    """It is published unchanged for consumers to compare; the series continues."""
    stage = begin()
    stage.venue.responds = rest_responds
    stage.come(stage.venue.trade(**fields))
    stage.check()
    stage.come(*(stage.venue.trade() for _ in range(12)))
    stage.check()
    stage.check()
    expected = OLD + series(0, fields["trade_id"], *range(1010, 1022))
    assert stage.published() == expected
    assert stage.rig.counters.series_begun.total() == 0


def test_id_series_continues_when_rest_has_nothing_newer(begin) -> None:
    """An odd trade of a symbol without further trades: REST may lag, so it is queried several times."""
    stage = begin()
    stage.come(stage.venue.trade(7))
    for _ in range(MAX_RESPONSES):
        assert stage.published() == OLD
        stage.check()
    assert stage.published() == [*OLD, (0, 7)]


def test_id_series_is_decided_by_several_trades_without_rest(begin) -> None:
    stage = begin()
    stage.venue.responds = False
    stage.venue.begin_again(4)
    for _ in range(DECISIVE_TRADES - 1):
        stage.come(stage.venue.trade())
        stage.check()
    assert stage.published() == OLD
    stage.clock[0] += 7
    assert (stage.rig.pipeline.resets.held_symbols(6.9), stage.rig.pipeline.resets.held_symbols(7)) == (
        [SYMBOL],
        [],
    )
    stage.come(stage.venue.trade())
    stage.check()
    assert stage.published() == OLD + series(1, *range(4, 4 + DECISIVE_TRADES))


@pytest.mark.parametrize("comes", [True, False], ids=["with a trade", "quiet symbol"])
@pytest.mark.parametrize("first_id", [0, 1])
def test_id_series_reset_that_passed_the_newest_id_in_an_outage_is_detected(
    begin, first_id: int, comes: bool
) -> None:
    """The gap was taken for missed trades: ids of the new series up to ours were lost silently."""
    stage = begin()
    stage.venue.begin_again(first_id)
    for _ in range(2000):
        stage.venue.trade()
    stage.rig.pipeline.resets.mark_outage([SYMBOL], 60)
    if comes:
        stage.come(stage.venue.trade())
        stage.check()
    else:
        asyncio.run(stage.watch.check_after_outages())
        stage.come(stage.venue.trade())
    stage.settle()
    stage.rig.pipeline.flush(stage.rig.pipeline.flows[SYMBOL])
    assert stage.published() == OLD + series(1, first_id + 2000)
    assert stage.rig.pipeline.flows[SYMBOL].sequence.missing() == [IdRange(first_id, first_id + 1999)]


def test_id_series_reset_during_a_backfill_fills_no_gap_of_the_old_series(begin) -> None:
    """REST returned trades of the new series for the gap, and they were published as the missed ones."""
    stage = begin()
    flow = stage.rig.pipeline.flows[SYMBOL]
    missed = [stage.venue.trade() for _ in range(3)]
    stage.come(stage.venue.trade())
    stage.rig.pipeline.flush(flow)
    gap = IdRange(missed[0].trade_id, missed[-1].trade_id)
    assert flow.sequence.missing() == [gap]
    stage.venue.begin_again(0)
    for _ in range(1200):
        stage.venue.trade()
    fetched = asyncio.run(stage.venue.trades(SYMBOL, gap, 0))
    assert len(fetched.trades) == 3
    stage.rig.pipeline.fetched.publish(flow, fetched)
    asyncio.run(stage.watch.check_after_outages())
    stage.come(stage.venue.trade())
    stage.settle()
    stage.rig.pipeline.flush(stage.rig.pipeline.flows[SYMBOL])
    assert stage.published() == OLD + series(0, 1013) + series(1, 1200)
    (word, *_) = [
        gap for gap in map(decode_gap, stage.rig.stored(stage.rig.gaps)) if gap.proof == "id series ended"
    ]
    assert (word.first_id, word.last_id, word.state) == (gap.first, gap.last, "unresolved")


@pytest.mark.parametrize("of_all", [False, True], ids=["of one", "of every row"])
def test_id_series_continues_with_late_times_from_rest(begin, of_all: bool) -> None:
    """The row of the newest id decides: by its time, or by its content if all times of REST are late."""
    stage = begin()
    flow, venue = stage.rig.pipeline.flows[SYMBOL], stage.venue
    venue.trade()
    stage.come(venue.trade())
    stage.rig.pipeline.flush(flow)
    venue.rows = [
        replace(row, trade_time_us=row.trade_time_us + 50_000) if of_all or row.trade_id == 1010 else row
        for row in venue.rows
    ]
    late = asyncio.run(venue.trades(SYMBOL, IdRange(1010, 1010), 0))
    stage.rig.pipeline._clock.measure(venue.time_us + 10_000_000, stage.clock[0])
    stage.rig.pipeline.fetched.publish(flow, late)
    assert stage.published() == OLD + series(0, 1011)
    asyncio.run(stage.watch.check_after_outages())
    stage.rig.pipeline.fetched.publish(flow, late)
    assert stage.published() == OLD + series(0, 1011, 1010)
    assert stage.rig.counters.series_begun.total() == 0
    assert flow.missing == 0


@pytest.mark.parametrize("restarted", [False, True])
def test_id_series_continues_with_request_times_from_rest(begin, restarted: bool) -> None:
    stage = begin()
    if restarted:
        stage = stage.restarted()
    venue, pipeline = stage.venue, stage.rig.pipeline
    for _ in range(5):
        venue.trade()
    pipeline.resets.mark_outage([SYMBOL], 60)
    stage.come(venue.trade())
    now_us = venue.time_us + 3_600_000_000
    pipeline._clock.measure(now_us, stage.clock[0])
    venue.rows = [replace(row, trade_time_us=now_us) for row in venue.rows]
    for _ in range(MAX_RESPONSES):
        stage.check()
        asyncio.run(stage.watch.check_after_outages())
    flow = pipeline.flows[SYMBOL]
    pipeline.flush(flow)
    assert flow.sequence.missing() == [IdRange(1010, 1014)]
    pipeline.fetched.publish(flow, asyncio.run(venue.trades(SYMBOL, IdRange(1010, 1014), 0)))
    assert stage.published() == OLD + series(0, 1015, *range(1010, 1015))
    assert stage.rig.counters.series_begun.total() == 0


def test_id_series_continues_after_a_rejected_newest_trade(begin) -> None:
    """The row of the rejected id is later than the newest valid trade, and was taken for a new series."""
    stage = begin()
    flow = stage.rig.pipeline.flows[SYMBOL]
    rejected = stage.venue.trade()
    flow.reject(rejected.trade_id, "impossible_time", 1)
    assert flow.sequence.newest == rejected.trade_id
    stage.venue.trade()
    stage.come(stage.venue.trade(1005, price="77"))
    stage.check()
    assert stage.rig.counters.series_begun.total() == 0
    assert stage.published() == OLD + series(0, 1005)
    stage.rig.pipeline.fetched.publish(flow, asyncio.run(stage.venue.trades(SYMBOL, IdRange(1010, 1011), 0)))
    assert stage.published() == OLD + series(0, 1005, 1010, 1011)


@pytest.mark.parametrize("rest_responds", [True, False])
@pytest.mark.parametrize("comes", [True, False], ids=["with a trade", "quiet symbol"])
def test_id_series_continues_after_an_outage_with_missed_trades(
    begin, comes: bool, rest_responds: bool
) -> None:
    stage = begin()
    for _ in range(90):
        stage.venue.trade()
    stage.venue.responds = rest_responds
    stage.rig.pipeline.resets.mark_outage([SYMBOL], 60)
    if not comes:
        asyncio.run(stage.watch.check_after_outages())
    stage.come(stage.venue.trade())
    stage.check()
    stage.come(stage.venue.trade())
    stage.rig.pipeline.flush(stage.rig.pipeline.flows[SYMBOL])
    assert stage.published() == OLD + series(0, 1100, 1101)
    assert stage.rig.pipeline.flows[SYMBOL].sequence.missing() == [IdRange(1010, 1099)]
    assert stage.rig.counters.series_begun.total() == 0


@pytest.mark.parametrize(
    ("update_id", "responds"),
    [(8, True), (None, True), (0, False)],
    ids=["REST shows it", "the venue does not say", "REST is away"],
)
def test_id_series_of_quotes_is_reset_on_its_own(begin, update_id: int | None, responds: bool) -> None:
    stage = begin()
    stage.venue.update_id, stage.venue.responds = update_id, responds
    stage.quotes(*range(100, 110))
    stage.quotes(5, 6, 7, 8)
    stage.look_for(QUOTES_SECONDS)
    stage.quotes(9)
    stage.check()
    found = [decode_book_ticker(value) for value in stage.rig.stored(stage.rig.quotes)]
    expected = [(0, u) for u in range(100, 110)] + [(1, u) for u in range(5, 10)]
    assert [(one.id_series, one.update_id) for one in found] == expected


def test_id_series_of_quotes_is_recorded_early(begin) -> None:
    """The first checkpoint of quotes came with the thirtieth of trades: an earlier id reset was not detected."""
    stage = begin()
    stage.rig.teller.publish()
    stage.quotes(*range(100, 110))
    stage.settle()
    for _ in range(3):
        stage.rig.teller.publish()
    stage.settle()
    memory = RecoveredState()
    for value in stage.rig.stored(stage.rig.progress):
        memory.add_checkpoint("binance_us", value)
    assert memory.quotes[SYMBOL].update_id == 109
    assert sum(b"update_id" in value for value in stage.rig.stored(stage.rig.progress)) == 1


def test_id_series_of_quotes_continues_when_rest_shows_a_lagging_connection(begin) -> None:
    """After the close of the leading connection five seconds of lower quotes began a series."""
    stage = begin()
    stage.quotes(*range(100, 110))
    stage.venue.update_id = 150
    with capture_logs() as lines:
        for first in (50, 60, 70):
            stage.quotes(*range(first, first + 8))
            stage.look_for(QUOTES_SECONDS)
        assert stage.rig.counters.series_begun.total() == 0
        assert stage.rig.counters.quotes.outdated == 24
        stage.quotes(110)
        stage.check()
    assert [line["event"] for line in lines] == ["quotes lagging", "quotes no longer lagging"]
    stage.venue.update_id = 5
    stage.quotes(1, 2, 3, 4, 5)
    stage.look_for(QUOTES_SECONDS)
    stage.settle()
    found = [decode_book_ticker(value) for value in stage.rig.stored(stage.rig.quotes)]
    expected = [(0, u) for u in range(100, 111)] + [(1, u) for u in range(1, 6)]
    assert [(one.id_series, one.update_id) for one in found] == expected
    assert stage.rig.counters.quotes.outdated == 24


@pytest.mark.parametrize("alone", [True, False], ids=["quotes first", "with the trades"])
def test_id_series_of_quotes_begins_once_if_trades_follow(begin, alone: bool) -> None:
    """With overlapping connections the quotes of the lagging one began a series."""
    stage = begin()
    stage.venue.update_id = 8
    stage.quotes(*range(100, 110))
    stage.venue.begin_again(3)
    stage.quotes(5, 6, 7, 8)
    if alone:
        stage.look_for(QUOTES_SECONDS)
        assert stage.rig.pipeline.flows[SYMBOL].quote_series == 1
        stage.quotes(9, 10, 11, 8, 9, 10)
    stage.come(stage.venue.trade())
    stage.check()
    stage.quotes(12)
    stage.check()
    assert stage.rig.pipeline.flows[SYMBOL].id_series == 1
    found = [decode_book_ticker(value) for value in stage.rig.stored(stage.rig.quotes)]
    below = range(5, 13) if alone else (5, 6, 7, 8, 12)
    expected = [(0, u) for u in range(100, 110)] + [(1, u) for u in below]
    assert [(one.id_series, one.update_id) for one in found] == expected


@pytest.mark.parametrize("price", ["1", "1.5"], ids=["duplicates", "lost by the other connection"])
@pytest.mark.parametrize(
    ("update_id", "responds"), [(None, True), (0, False)], ids=["no update id in REST", "REST unavailable"]
)
def test_id_series_of_quotes_continues_after_the_loss_of_overlapping_connections(
    begin, price: str, update_id: int | None, responds: bool
) -> None:
    """The last quotes of the slower of two connections, and the silence after their loss, began a series."""
    stage = begin()
    stage.venue.update_id, stage.venue.responds = update_id, responds
    stage.quotes(*range(100, 110))
    stage.quotes(*range(105, 110), bid_price=price)
    stage.look_for(3 * QUOTES_SECONDS)
    stage.quotes(110)
    stage.check()
    assert stage.rig.counters.series_begun.total() == 0


@pytest.mark.parametrize("with_trades", [False, True], ids=["quotes only", "with the trades"])
@pytest.mark.parametrize("first_id", [5, 102])
@pytest.mark.parametrize("price", ["1", "1.5"], ids=["duplicates", "lost by the other connection"])
def test_id_series_of_quotes_begins_without_quotes_of_the_old_series(
    begin, price: str, first_id: int, with_trades: bool
) -> None:
    """Late quotes, received before the reset and below the newest, became the first of the new series."""
    stage = begin()
    stage.quotes(*range(100, 110))
    stage.quotes(*range(105, 110), bid_price=price)
    stage.venue.update_id = first_id
    if with_trades:
        stage.venue.begin_again(3)
        stage.come(stage.venue.trade())
    stage.look_for(1 if with_trades else 2 * QUOTES_SECONDS)
    for update_id in range(first_id + 1, first_id + 4):
        stage.venue.update_id = update_id
        stage.quotes(update_id, bid_price="2.5")
    stage.look_for(2 * QUOTES_SECONDS)
    found = [decode_book_ticker(value) for value in stage.rig.stored(stage.rig.quotes)]
    expected = [(0, u) for u in range(100, 110)] + [(1, u) for u in range(first_id + 1, first_id + 4)]
    assert [(one.id_series, one.update_id) for one in found] == expected


def test_id_series_of_quotes_continues_after_a_freeze(begin) -> None:
    """The buffered quotes of the second connection are below those of the first."""
    stage = begin()
    stage.venue.responds = False
    stage.quotes(*range(100, 110))
    stage.check()
    stage.quotes(105)
    stage.clock[0] += 40
    stage.quotes(106, 107, 108, 109)
    stage.check()
    stage.quotes(110)
    assert stage.rig.counters.series_begun.total() == 0


def test_id_series_of_quotes_continues_while_a_connection_lags(begin) -> None:
    stage = begin()
    for newest in range(100, 200):
        stage.quotes(newest, newest - 50)
        stage.clock[0] += 1
        stage.check()
    assert stage.rig.counters.quotes.outdated == 100
    assert stage.rig.counters.series_begun.total() == 0


def test_duplicates_that_are_identical_are_not_published(begin) -> None:
    stage = begin()
    held = [replace(row, origin="stream") for row in stage.venue.rows]
    again = [replace(row, price=f"{row.price}0", received_time_us=2) for row in stage.venue.rows]
    stage.come(*held, *again)
    assert stage.published() == OLD
    assert stage.rig.pipeline.flows[SYMBOL].sequence.duplicates == 20


def test_duplicates_are_identified_after_an_id_reset_of_another_symbol(begin) -> None:
    """With overlapping connections the cache of all symbols was cleared, and duplicates were published."""
    stage = begin()
    stage.rig.pipeline.add_symbol("ETHUSDT")
    others = [replace(a_trade(n, trade_time_us=BEGIN_US + n), symbol="ETHUSDT") for n in range(1, 4)]
    stage.come(*others)
    stage.settle()
    stage.venue.begin_again(3)
    stage.come(stage.venue.trade())
    stage.check()
    assert stage.rig.pipeline.flows[SYMBOL].id_series == 1
    stage.come(*(replace(each, received_time_us=2) for each in others))
    assert stage.published() == OLD + series(0, 1, 2, 3) + series(1, 3)
    assert stage.rig.pipeline.flows["ETHUSDT"].sequence.duplicates == 3


@pytest.mark.parametrize("settles", [True, False], ids=["behind Kafka's word", "before it"])
def test_duplicates_of_held_trades_are_identified_in_the_new_series(begin, settles: bool) -> None:
    """The second connection delivers duplicates of the held trades."""
    stage = begin()
    stage.venue.begin_again(3)
    held = [stage.venue.trade() for _ in range(4)]
    stage.come(*held)
    asyncio.run(stage.watch.check())
    if settles:
        stage.settle()
    stage.come(*(replace(each, received_time_us=2) for each in held))
    assert stage.published() == OLD + series(1, *range(3, 7))


CONFLICTS = {
    "price": {"price": "9"},
    "quantity": {"qty": "9"},
    "side": {"buyer_is_maker": False},
    "earlier": None,
}


@pytest.mark.parametrize("fields", CONFLICTS.values(), ids=CONFLICTS)
def test_duplicates_with_other_content_are_published(begin, fields) -> None:
    stage = begin()
    held = stage.venue.rows[3]
    fields = {
        "trade_time_us": held.trade_time_us,
        **(fields or {"trade_time_us": held.trade_time_us - 9_000}),
    }
    stage.come(a_trade(1003, **fields))
    assert stage.published() == [*OLD, (0, 1003)]
    assert stage.rig.pipeline.flows[SYMBOL].conflicts == 1
    assert stage.rig.counters.series_begun.total() == 0


def test_duplicates_from_before_this_process_are_published(begin) -> None:
    stage = begin()
    held = list(stage.venue.rows)
    stage = stage.restarted()
    stage.come(held[4], stage.venue.trade(), held[2], held[3])
    assert stage.published() == [*OLD, (0, 1004), (0, 1010), (0, 1002), (0, 1003)]
    assert stage.rig.pipeline.flows[SYMBOL].last_trade_time_us == stage.venue.time_us


def test_duplicates_memory_is_bounded() -> None:
    recent = RecentTrades(100)
    trades = [a_trade(n, trade_time_us=n) for n in range(1000)]
    for start in range(0, 1000, 10):
        recent.add(trades[start : start + 10])
        assert recent.find(SYMBOL, start) is trades[start]
    assert recent.find(SYMBOL, 899) is None
    assert recent.find(SYMBOL, 900) is trades[900]
    assert len(recent._index) == 100


def test_id_series_held_trades_are_bounded() -> None:
    suspected_reset = SuspectedReset(0, 10_000, 0.0)
    for n in range(2000):
        if suspected_reset.decide() is not SeriesDecision.UNDECIDED:
            break
        suspected_reset.hold(a_trade(5, trade_time_us=n + 1))
    assert suspected_reset.decide() is SeriesDecision.CONTINUES
    assert len(suspected_reset.trades) <= 1000


steps = st.lists(
    st.one_of(
        st.sampled_from(["trade", "trade", "trade", "repeat", "conflict", "look", "restart"]),
        st.integers(0, 40),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_id_series_any_interleaving_publishes_each_trade_in_its_series(begin, drawn: list[str | int]) -> None:
    """The oracle: the venue numbers its series itself; what it traded is in the topic under that number, each once.

    Repeats and conflicting messages of ids before never change that.
    """
    stage = begin(30)
    expected = series(0, *range(30, 40))
    number = 0
    for step in drawn:
        if isinstance(step, int):
            if step >= stage.venue.next_id or not stage.venue.rows:
                continue
            stage.venue.begin_again(step)
            number += 1
            continue
        if step == "trade":
            made = stage.venue.trade()
            stage.come(made)
            expected.append((number, made.trade_id))
            if stage.rig.pipeline.flows[SYMBOL].suspected_reset is not None:
                stage.check()
        elif step == "repeat" and stage.venue.rows:
            stage.come(stage.venue.rows[-1])
        elif step == "conflict" and stage.venue.rows:
            held = stage.venue.rows[0]
            stage.come(a_trade(held.trade_id, price="77", trade_time_us=held.trade_time_us))
        elif step == "look":
            stage.check()
        elif step == "restart":
            stage = stage.restarted()
    assert sorted(set(stage.published())) == sorted(set(expected))


def come_and_look(worker: Stage, trade: Trade) -> None:
    worker.come(trade)
    for _ in range(3):
        if worker.rig.pipeline.flows[SYMBOL].suspected_reset is not None:
            worker.check()
    if worker.rig.pipeline.flows[SYMBOL].id_series:
        worker.publish()


reads = st.tuples(
    st.sampled_from(["trade", "trade", "trade", "restart ids"]),
    st.sampled_from(["both", "both", "first", "second", "nobody"]),
    st.integers(0, 40),
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(reads, min_size=4, max_size=10))
@example(
    [
        ("restart ids", "nobody", 3),
        *[("trade", "first", 0)] * 5,
        ("restart ids", "nobody", 2),
        *[("trade", "first", 0)] * 3,
        ("trade", "second", 0),
    ]
)
def test_id_series_of_two_workers_any_interleaving_publishes_no_id_with_two_contents(
    begin, drawn: list[tuple[str, str, int]]
) -> None:
    """The oracle: of a series no id has two contents, whoever missed how many restarts of ids.

    Whoever misses messages was away, and knows that.
    """
    stage = begin(30)
    workers = {"first": stage, "second": stage.another()}
    away: set[str] = set()
    for step, who, first_id in drawn:
        if step == "restart ids":
            if first_id < stage.venue.next_id and stage.venue.rows:
                stage.venue.begin_again(first_id)
            continue
        made = stage.venue.trade()
        for name, worker in workers.items():
            if who not in ("both", name):
                away.add(name)
                continue
            if name in away:
                worker.rig.pipeline.resets.mark_outage([SYMBOL], 60)
                away.remove(name)
            come_and_look(worker, replace(made))
    for worker in workers.values():
        worker.rig.pipeline.flush(worker.rig.pipeline.flows[SYMBOL])
        worker.settle()
    contents: dict[tuple[int, int], tuple[str, int]] = {}
    for one in map(decode_trade, stage.rig.stored(stage.rig.trades)):
        content = (one.price, one.trade_time_us)
        assert contents.setdefault((one.id_series, one.trade_id), content) == content


def test_id_series_of_a_resumed_symbol_is_checked_at_start(begin) -> None:
    """Checked flows were identified by their address, which a new flow may reuse."""
    stage = begin()
    responses: list[str] = []

    async def check(flow: SymbolFlow) -> None:
        responses.append(flow.symbol)

    stage.watch._check = check
    for n in range(50):
        flow = SymbolFlow(f"S{n}", b"", checkpoint_time_us=1)
        stage.rig.pipeline.flows = {flow.symbol: flow}
        del flow
        for _ in range(2):
            asyncio.run(stage.watch.check_resumed())
        stage.rig.pipeline.flows = {}
    assert responses == [f"S{n}" for n in range(50)]


@pytest.mark.parametrize("responds", [True, False], ids=["REST decides", "held trades decide"])
def test_id_series_reset_clears_cached_ids_of_rest(begin, responds: bool) -> None:
    """After a decision by the held trades `trades` was never requested again."""
    stage = begin()
    stage.venue.begin_again(0)
    stage.venue.responds = responds
    for _ in range(DECISIVE_TRADES):
        stage.come(stage.venue.trade())
        stage.check()
    for _ in range(DECISIVE_TRADES):
        stage.come(stage.venue.trade())
    stage.settle()
    assert stage.rig.pipeline.flows[SYMBOL].id_series == 1
    assert stage.venue.reset_symbols == [SYMBOL]


def test_id_series_reset_decided_by_a_full_buffer_clears_cached_ids_of_rest(begin) -> None:
    stage = begin()
    stage.venue.begin_again(0)
    stage.come(*(stage.venue.trade() for _ in range(MAX_HELD + 1)))
    stage.settle()
    assert stage.rig.pipeline.flows[SYMBOL].id_series == 1
    assert stage.venue.reset_symbols == [SYMBOL]


@pytest.mark.parametrize("begins", [True, False], ids=["id reset", "no reset"])
def test_id_series_after_an_outage_is_decided_without_a_key(begin, begins: bool) -> None:
    """Only the newest rows are available: without a decision the series counted as continued after five responses."""
    stage = begin()
    stage.venue.exact_rows = 100
    stage.rig.pipeline.resets.mark_outage([SYMBOL], 60)
    if begins:
        stage.venue.begin_again(0)
    for _ in range(2_000):
        stage.venue.trade()
    asyncio.run(stage.watch.check_after_outages())
    flow = stage.rig.pipeline.flows[SYMBOL]
    assert flow.id_series == (1 if begins else 0)
    assert not flow.is_gap_unverified
    assert begins or flow.verified_us > 0


@pytest.mark.parametrize("begins", [True, False], ids=["id reset", "no reset"])
def test_id_series_with_a_gap_after_an_outage_is_decided_without_a_key(begin, begins: bool) -> None:
    stage = begin()
    stage.venue.exact_rows = 100
    stage.rig.pipeline.resets.mark_outage([SYMBOL], 60)
    if begins:
        stage.venue.begin_again(0)
    for _ in range(2_000):
        stage.venue.trade()
    came = stage.venue.trade()
    stage.come(came)
    stage.check()
    flow = stage.rig.pipeline.flows[SYMBOL]
    assert (flow.id_series, flow.suspected_reset) == (1 if begins else 0, None)
    assert flow.sequence.missing() == [IdRange(0, 1_999) if begins else IdRange(1_010, 3_009)]
