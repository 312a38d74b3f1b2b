"""What the world is told of a gap is true at that moment, whichever topic answers first."""

import random
from collections.abc import Iterator

import msgspec
import pytest
from aiohttp import ClientSession
from pydantic import SecretStr
from workers_broker import Broker
from workers_rig import SYMBOL, Rig, frames
from workers_support import MakeSettings, now_us

from marketfeed_devtools.waiting import until
from marketfeed_wire import Gap, Trade, decode_gap, decode_trade
from marketfeed_workers.backfill import Backfiller
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.rate_limit import WeightBudget
from marketfeed_workers.stream.id_ranges import IdRange
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import Fetched, RestAccess

NOT_ENOUGH_REPLICAS = 19  # error code of the Kafka protocol; the client tries again
MESSAGE_TOO_LARGE = 10  # error code of the Kafka protocol


def fetched(first_id: int, last_id: int, *absent: IdRange) -> Fetched:
    """Trades of REST."""
    ids = range(first_id, last_id + 1)
    rows = [
        Trade("binance_us", SYMBOL, n, "1", "2", True, 1_723_161_600_000_000 + n, None, 1, "backfill")
        for n in ids
    ]
    return Fetched(rows, list(absent), "trades")


def unresolved(first_id: int, last_id: int) -> Gap:
    return Gap(
        venue="binance_us", symbol=SYMBOL, first_id=first_id, last_id=last_id, state="unresolved",
        missing=[(first_id, last_id)], absent=[], proof="trades", detected_time_us=1, updated_time_us=1,
    )  # fmt: skip


@pytest.fixture
def rig(make_settings: MakeSettings, own_broker: Broker) -> Iterator[Rig]:
    made = Rig(make_settings, own_broker)
    yield made
    own_broker.led(made.trades, 1)
    own_broker.led(made.gaps, 1)


@pytest.mark.parametrize("absent_last", [False, True], ids=["filled", "the last of it proven absent"])
def test_a_late_gap_is_not_told_as_settled_before_kafka_has_its_trades(rig: Rig, absent_last: bool) -> None:
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.broker.leaderless(rig.trades, 1)
    if absent_last:
        rig.pipeline.backfill(rig.flow, fetched(10, 18))
        rig.pipeline.backfill(rig.flow, fetched(1, 0, IdRange(19, 19)))
    else:
        rig.pipeline.backfill(rig.flow, fetched(10, 19))
    rig.let(rig.gaps)
    # A worker that is killed now leaves the gap as it was: the next one fetches it.
    assert rig.heard() == {}
    rig.broker.led(rig.trades, 1)
    rig.wait(lambda: bool(rig.counters.gaps.acknowledged), "a word on the gap")
    assert rig.heard()[10].state == ("absent" if absent_last else "filled")
    stored = [decode_trade(value).trade_id for value in rig.stored(rig.trades)]
    assert stored == list(range(10, 19 if absent_last else 20))


def test_a_gap_whose_trades_kafka_refuses_for_good_is_left_to_the_next_worker(
    rig: Rig, make_settings: MakeSettings
) -> None:
    """What waits for their acknowledgement waits in vain, and so does nobody: a refusal ends the worker."""
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.broker.refuse_produce(MESSAGE_TOO_LARGE)
    rig.pipeline.backfill(rig.flow, fetched(10, 19))
    rig.wait(lambda: bool(rig.publisher.fatal_error), "the refusal")
    rig.publisher.replace_producer(20)
    assert (len(rig.flow.unacknowledged), rig.heard()) == (1, {}), (
        "it stays as it was: the trades are not in Kafka"
    )
    rig.publisher = Publisher(make_settings(KAFKA_BROKER=rig.broker.address), rig.clock)
    rig.pipeline = Pipeline(VENUES["binance_us"], rig.publisher, rig.counters, rig.clock)
    rig.flow = rig.pipeline.add_symbol(SYMBOL)
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.pipeline.backfill(rig.flow, fetched(10, 19))
    rig.settle()
    assert (len(rig.flow.unacknowledged), rig.heard()[10].state) == (0, "filled")


def test_a_gap_behind_a_hole_is_not_told_as_filled_while_its_trades_wait(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44, 47))
    rig.pipeline.backfill(rig.flow, fetched(45, 46))
    rig.let(rig.gaps)
    assert rig.heard() == {}
    rig.pipeline.backfill(rig.flow, fetched(42, 43))
    rig.settle()
    assert {gap.first_id: gap.state for gap in rig.heard().values()} == {42: "filled", 45: "filled"}


def test_progress_passes_a_gap_only_after_the_last_word_on_it(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.broker.leaderless(rig.gaps, 1)
    rig.pipeline.process(frames(44))
    rig.pipeline.backfill(rig.flow, fetched(42, 43))
    rig.let(rig.trades)
    assert rig.told_progress() == []
    rig.broker.led(rig.gaps, 1)
    rig.settle()
    assert rig.told_progress() == [44]


def test_the_progress_of_a_symbol_that_left_waits_for_the_word_on_its_gap_too(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.broker.leaderless(rig.gaps, 1)
    rig.pipeline.process(frames(44))
    rig.pipeline.remove_symbol(SYMBOL)
    rig.let(rig.trades)
    assert rig.told_progress() == [], "the next owner would go on after ids that nobody knows to be missing"
    rig.broker.led(rig.gaps, 1)
    rig.settle()
    assert rig.heard()[42].missing == [(42, 43)]
    assert rig.told_progress() == [44]


def test_a_gap_that_was_told_as_unresolved_is_told_as_filled_when_the_stream_brings_it(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.flush(rig.flow)
    rig.settle()
    assert rig.heard()[42].state == "unresolved"
    rig.pipeline.process(frames(42, 43))
    rig.settle()
    assert (rig.heard()[42].state, rig.heard()[42].missing) == ("filled", [])


def test_trades_that_only_came_in_another_order_are_no_gap_to_tell_of(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.process(frames(43, 42))
    rig.settle()
    assert rig.heard() == {}
    assert rig.counters.gap_outcomes == {"reordered": 1}


@pytest.mark.parametrize("from_stream", [False, True], ids=["by repair", "by the stream"])
def test_gaps_beyond_the_progress_of_a_killed_worker_get_their_last_word_from_the_next(
    rig: Rig, from_stream: bool
) -> None:
    """It was killed when Kafka had its words on two gaps, and not yet the progress that passed them."""
    rig.flow.resume(41, [unresolved(42, 43), unresolved(46, 46)])
    rig.pipeline.process(frames(80))
    if from_stream:
        rig.pipeline.process(frames(*range(42, 80)))
    else:
        rig.pipeline.backfill(rig.flow, fetched(42, 79))
    rig.settle()
    assert {first_id: gap.missing for first_id, gap in rig.heard().items()} == {42: [], 46: []}
    assert rig.flow.gaps == []


def test_a_jump_is_counted_and_repaired_whoever_meets_it(rig: Rig) -> None:
    woken: list[str] = []
    rig.pipeline.on_gap = woken.append
    rig.flow.resume(41, [unresolved(42, 43)])
    rig.pipeline.process(frames(80))
    assert (rig.counters.gaps_opened, woken) == (1, [SYMBOL])
    # The newest trade of a mute stream, which the watch has asked for.
    rig.pipeline.backfill(rig.flow, fetched(90, 90))
    assert (rig.counters.gaps_opened, woken) == (2, [SYMBOL] * 2)


def test_a_word_on_a_gap_is_never_older_than_the_one_before_it_wherever_the_clock_goes(rig: Rig) -> None:
    """Of two words consumers take the one with the later time: an older one would leave the gap unresolved for good."""
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.flush(rig.flow)
    rig.clock.set_by_us -= 3_600_000_000
    rig.pipeline.backfill(rig.flow, fetched(42, 43))
    rig.settle()
    first, last = map(decode_gap, rig.stored(rig.gaps))
    assert (first.state, last.state) == ("unresolved", "filled")
    assert first.updated_time_us < last.updated_time_us


@pytest.mark.parametrize(
    ("progress", "missing"),
    [
        pytest.param(41, [(42, 43)], id="of a gap beyond the progress"),
        pytest.param(41, [], id="of one that it had settled when it was killed"),
        pytest.param(80, [(42, 43)], id="of one that is still wanted"),
    ],
)
def test_nor_than_the_word_of_an_earlier_process(
    rig: Rig, progress: int, missing: list[tuple[int, int]]
) -> None:
    told = msgspec.structs.replace(
        unresolved(42, 43), missing=missing, updated_time_us=now_us() + 3_600_000_000
    )
    rig.flow.resume(progress, [told])
    rig.pipeline.process(frames(81))
    rig.pipeline.backfill(rig.flow, fetched(42, 80))
    rig.settle()
    assert rig.heard()[42].state == "filled"
    assert rig.heard()[42].updated_time_us > told.updated_time_us


@pytest.mark.parametrize("set_by_seconds", [-3600, 0, 3600], ids=["set back", "left", "set forward"])
async def test_trades_are_held_for_as_long_as_they_should_whatever_the_clock_says(
    rig: Rig, make_settings: MakeSettings, set_by_seconds: int
) -> None:
    elapsed = [100.0]
    async with ClientSession() as session:
        access = RestAccess(
            "http://127.0.0.1:9", session, WeightBudget(1, lambda: elapsed[0]), SecretStr(""), rig.clock
        )
        rest = VENUES["binance_us"].rest(access)
        rng = random.Random(1)  # noqa: S311
        desk = Backfiller(
            make_settings(), rig.pipeline, rest, rig.counters, rig.clock, rng, monotonic=lambda: elapsed[0]
        )
        rig.flow.resume(41, [])
        rig.pipeline.process(frames(44))
        desk.enforce_limits()
        rig.clock.set_by_us += set_by_seconds * 1_000_000
        elapsed[0] += 9.9
        desk.enforce_limits()
        assert rig.flow.sequence.buffered, "let go before GAP_HOLD_SECONDS=10"
        elapsed[0] += 0.2
        desk.enforce_limits()
        assert not rig.flow.sequence.buffered, "held for longer than GAP_HOLD_SECONDS=10"


def test_gap_record_follows_each_part_that_is_filled(rig: Rig) -> None:
    """F1: a part of an unresolved gap that was filled later stood as missing for ever, and was fetched once more."""
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.broker.leaderless(rig.trades, 1)
    rig.pipeline.backfill(rig.flow, fetched(10, 14))
    rig.teller.publish()
    rig.let(rig.gaps)
    assert rig.heard() == {}, "what Kafka has not acknowledged is missing still"
    rig.broker.led(rig.trades, 1)
    rig.settle()
    rig.teller.publish()
    rig.settle()
    assert (rig.heard()[10].state, rig.heard()[10].missing) == ("unresolved", [(15, 19)])
    rig.pipeline.backfill(rig.flow, fetched(1, 0, IdRange(17, 17)))
    rig.teller.publish()
    rig.settle()
    assert (rig.heard()[10].missing, rig.heard()[10].absent) == ([(15, 16), (18, 19)], [(17, 17)])
    before = len(rig.stored(rig.gaps))
    rig.teller.publish()
    rig.settle()
    assert len(rig.stored(rig.gaps)) == before, "a record without a change"


def test_gap_record_does_not_wait_for_what_fills_other_gaps(rig: Rig) -> None:
    """F2: with trades always on their way no gap was ever reported, and the checkpoint stood still with it."""
    rig.flow.resume(50, [unresolved(10, 19), unresolved(30, 39)])
    rig.pipeline.backfill(rig.flow, fetched(10, 19))
    until(lambda: len(rig.stored(rig.trades)) == 10, "the first ten trades in the topic")
    rig.broker.refuse_produce(*[NOT_ENOUGH_REPLICAS] * 20)
    rig.pipeline.backfill(rig.flow, fetched(30, 38))
    rig.wait(lambda: [entry.ids.first for entry in rig.flow.gaps] == [30], "a record of the first gap")
    assert rig.flow.unacknowledged, "nothing is on its way"


def test_checkpoint_passes_a_gap_that_kafka_knows_while_a_newer_record_is_in_flight(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.flush(rig.flow)
    rig.settle()
    rig.pipeline.backfill(rig.flow, fetched(42, 43))
    rig.pipeline.process(frames(45))
    rig.wait(lambda: not rig.flow.gaps, "the record of its end")
    assert rig.counters.gaps.acknowledged == 1
    # What the topic says of the gap is more than what is missing.
    assert rig.pipeline.checkpoint(SYMBOL, 45) == 45


def test_checkpoint_stops_before_a_gap_and_not_at_where_it_was(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(42, 43, 46))
    rig.pipeline.flush(rig.flow)
    assert rig.pipeline.checkpoint(SYMBOL, 46) == 43
    rig.settle()
    assert rig.told_progress() == [46]


def test_gap_record_of_a_symbol_that_leaves_says_what_was_filled_before(rig: Rig) -> None:
    """The part was acknowledged, and the next record of it due with the next checkpoint, which never came."""
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.pipeline.backfill(rig.flow, fetched(10, 14))
    rig.wait(lambda: not rig.flow.unacknowledged, "acknowledgement of the trades")
    assert rig.heard() == {}
    rig.pipeline.remove_symbol(SYMBOL)
    rig.settle()
    assert (rig.heard()[10].state, rig.heard()[10].missing) == ("unresolved", [(15, 19)])


def test_gap_record_of_a_process_that_ran_on_beside_is_closed(rig: Rig) -> None:
    """Both met the gap, with other bounds: each has a record, and only the newer process goes on."""
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(46))
    rig.pipeline.flush(rig.flow)
    rig.settle()
    rig.pipeline.backfill(rig.flow, fetched(42, 44))
    rig.pipeline.backfill(rig.flow, fetched(1, 0, IdRange(45, 45)))
    rig.settle()
    assert rig.heard()[42].state == "absent"
    other = [unresolved(43, 43), unresolved(45, 45), unresolved(47, 48)]
    rig.pipeline.adopt_gaps(rig.flow, [*rig.heard().values(), *other])
    rig.settle()
    assert {first: rig.heard()[first].state for first in (43, 45)} == {43: "filled", 45: "absent"}
    assert 47 not in rig.heard(), "of ids that this process has not come to nothing is known yet"
    rig.pipeline.process(frames(47, 48))
    rig.settle()
    assert rig.heard()[47].state == "filled"


def test_gap_record_that_another_process_overwrote_is_published_again(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.flush(rig.flow)
    rig.settle()
    overwritten = msgspec.structs.replace(
        rig.heard()[42], missing=[(42, 42)], updated_time_us=rig.heard()[42].updated_time_us + 10**9
    )
    rig.pipeline.adopt_gaps(rig.flow, [overwritten])
    rig.settle()
    newest = rig.heard()[42]
    assert (newest.missing, newest.updated_time_us > overwritten.updated_time_us) == ([(42, 43)], True)
