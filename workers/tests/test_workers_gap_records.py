"""Gap records contain only acknowledged facts, in any order of acknowledgements."""

import random
from collections.abc import Iterator

import msgspec
import pytest
from aiohttp import ClientSession
from pydantic import SecretStr
from workers_rig import SYMBOL, Rig, frames
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until
from marketfeed_service.id_ranges import IdRange
from marketfeed_wire import Gap, Trade, decode_gap, decode_trade
from marketfeed_workers.backfill import Backfiller
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.rate_limit import WeightBudget
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import Fetched, RestAccess

NOT_ENOUGH_REPLICAS = 19  # error code of the Kafka protocol; the client retries
MESSAGE_TOO_LARGE = 10  # error code of the Kafka protocol


def fetched(first_id: int, last_id: int, *absent: IdRange) -> Fetched:
    """Return trades of REST."""
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


@pytest.mark.parametrize("absent_last", [False, True], ids=["backfilled", "the last of it proven absent"])
def test_gap_record_waits_for_the_acknowledgement_of_its_trades(rig: Rig, absent_last: bool) -> None:
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.broker.leaderless(rig.trades, 1)
    if absent_last:
        rig.pipeline.fetched.publish(rig.flow, fetched(10, 18))
        rig.pipeline.fetched.publish(rig.flow, fetched(1, 0, IdRange(19, 19)))
    else:
        rig.pipeline.fetched.publish(rig.flow, fetched(10, 19))
    rig.let(rig.gaps)
    # After a kill now the next worker backfills the gap.
    assert rig.gap_records() == {}
    rig.broker.led(rig.trades, 1)
    rig.wait(lambda: bool(rig.counters.gaps.acknowledged), "a record of the gap")
    assert rig.gap_records()[10].state == ("absent" if absent_last else "backfilled")
    stored = [decode_trade(value).trade_id for value in rig.stored(rig.trades)]
    assert stored == list(range(10, 19 if absent_last else 20))


def test_gap_record_of_trades_that_kafka_rejects_is_left_to_the_next_worker(
    rig: Rig, make_settings: MakeSettings
) -> None:
    """The acknowledgement never arrives: the worker exits."""
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.broker.refuse_produce(MESSAGE_TOO_LARGE)
    rig.pipeline.fetched.publish(rig.flow, fetched(10, 19))
    rig.wait(lambda: bool(rig.publisher.fatal_error), "the refusal")
    rig.publisher.replace_producer(20)
    assert (len(rig.flow.unacknowledged), rig.gap_records()) == (1, {}), (
        "it stays as it was: the trades are not in Kafka"
    )
    rig.publisher = Publisher(make_settings(KAFKA_BROKER=rig.broker.address), rig.clock)
    rig.pipeline = Pipeline(VENUES["binance_us"], rig.publisher, rig.counters, rig.clock)
    rig.flow = rig.pipeline.add_symbol(SYMBOL)
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.pipeline.fetched.publish(rig.flow, fetched(10, 19))
    rig.settle()
    assert (len(rig.flow.unacknowledged), rig.gap_records()[10].state) == (0, "backfilled")


def test_gap_record_waits_for_buffered_trades(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44, 47))
    rig.pipeline.fetched.publish(rig.flow, fetched(45, 46))
    rig.let(rig.gaps)
    assert rig.gap_records() == {}
    rig.pipeline.fetched.publish(rig.flow, fetched(42, 43))
    rig.settle()
    assert {gap.first_id: gap.state for gap in rig.gap_records().values()} == {
        42: "backfilled",
        45: "backfilled",
    }


def test_checkpoint_passes_a_gap_only_after_its_record(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.broker.leaderless(rig.gaps, 1)
    rig.pipeline.process(frames(44))
    rig.pipeline.fetched.publish(rig.flow, fetched(42, 43))
    rig.let(rig.trades)
    assert rig.published_checkpoints() == []
    rig.broker.led(rig.gaps, 1)
    rig.settle()
    assert rig.published_checkpoints() == [44]


def test_checkpoint_of_a_removed_symbol_waits_for_the_record_of_its_gap(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.broker.leaderless(rig.gaps, 1)
    rig.pipeline.process(frames(44))
    rig.pipeline.remove_symbol(SYMBOL)
    rig.let(rig.trades)
    assert rig.published_checkpoints() == [], "the next worker would resume after unrecorded missing ids"
    rig.broker.led(rig.gaps, 1)
    rig.settle()
    assert rig.gap_records()[42].missing == [(42, 43)]
    assert rig.published_checkpoints() == [44]


def test_gap_record_unresolved_becomes_filled_by_the_stream(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.flush(rig.flow)
    rig.settle()
    assert rig.gap_records()[42].state == "unresolved"
    rig.pipeline.process(frames(42, 43))
    rig.settle()
    assert (rig.gap_records()[42].state, rig.gap_records()[42].missing) == ("backfilled", [])


def test_gap_record_is_not_published_for_reordered_trades(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.process(frames(43, 42))
    rig.settle()
    assert rig.gap_records() == {}
    assert rig.counters.gap_outcomes == {"reordered": 1}


@pytest.mark.parametrize("from_stream", [False, True], ids=["by backfill", "by the stream"])
def test_gap_record_beyond_the_checkpoint_is_completed_by_the_next_worker(
    rig: Rig, from_stream: bool
) -> None:
    """It was killed after the acknowledgement of two gap records and before that of the checkpoint above them."""
    rig.flow.resume(41, [unresolved(42, 43), unresolved(46, 46)])
    rig.pipeline.process(frames(80))
    if from_stream:
        rig.pipeline.process(frames(*range(42, 80)))
    else:
        rig.pipeline.fetched.publish(rig.flow, fetched(42, 79))
    rig.settle()
    assert {first_id: gap.missing for first_id, gap in rig.gap_records().items()} == {42: [], 46: []}
    assert rig.flow.gaps == []


def test_gap_is_counted_and_backfilled_from_stream_and_rest(rig: Rig) -> None:
    woken: list[str] = []
    rig.pipeline.on_gap = woken.append
    rig.flow.resume(41, [unresolved(42, 43)])
    rig.pipeline.process(frames(80))
    assert (rig.counters.gaps_opened, woken) == (1, [SYMBOL])
    # The newest trade of a stalled stream, fetched by the stall detector.
    rig.pipeline.fetched.publish(rig.flow, fetched(90, 90))
    assert (rig.counters.gaps_opened, woken) == (2, [SYMBOL] * 2)


def test_gap_record_times_increase_when_the_clock_is_set_back(rig: Rig) -> None:
    """Consumers keep the record with the later time: an older one would leave the gap unresolved."""
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.flush(rig.flow)
    rig.clock.set_by_us -= 3_600_000_000
    rig.pipeline.fetched.publish(rig.flow, fetched(42, 43))
    rig.settle()
    first, last = map(decode_gap, rig.stored(rig.gaps))
    assert (first.state, last.state) == ("unresolved", "backfilled")
    assert first.updated_time_us < last.updated_time_us


@pytest.mark.parametrize(
    ("progress", "missing"),
    [
        pytest.param(41, [(42, 43)], id="of a gap above the checkpoint"),
        pytest.param(41, [], id="of a closed gap"),
        pytest.param(80, [(42, 43)], id="of a gap that is still missing"),
    ],
)
def test_gap_record_times_increase_over_processes(
    rig: Rig, progress: int, missing: list[tuple[int, int]]
) -> None:
    published = msgspec.structs.replace(
        unresolved(42, 43), missing=missing, updated_time_us=now_us() + 3_600_000_000
    )
    rig.flow.resume(progress, [published])
    rig.pipeline.process(frames(81))
    rig.pipeline.fetched.publish(rig.flow, fetched(42, 80))
    rig.settle()
    assert rig.gap_records()[42].state == "backfilled"
    assert rig.gap_records()[42].updated_time_us > published.updated_time_us


@pytest.mark.parametrize("set_by_seconds", [-3600, 0, 3600], ids=["set back", "left", "set forward"])
async def test_reorder_buffer_hold_time_is_independent_of_the_wall_clock(
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
        assert rig.flow.sequence.buffered, "flushed before GAP_HOLD_SECONDS=10"
        elapsed[0] += 0.2
        desk.enforce_limits()
        assert not rig.flow.sequence.buffered, "buffered for longer than GAP_HOLD_SECONDS=10"


def test_gap_record_is_updated_for_each_filled_part(rig: Rig) -> None:
    """F1: a part of an unresolved gap that was filled later stayed missing in the record, and was fetched again."""
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.broker.leaderless(rig.trades, 1)
    rig.pipeline.fetched.publish(rig.flow, fetched(10, 14))
    rig.teller.publish()
    rig.let(rig.gaps)
    assert rig.gap_records() == {}, "trades in flight count as acknowledged"
    rig.broker.led(rig.trades, 1)
    rig.settle()
    rig.teller.publish()
    rig.settle()
    assert (rig.gap_records()[10].state, rig.gap_records()[10].missing) == ("unresolved", [(15, 19)])
    rig.pipeline.fetched.publish(rig.flow, fetched(1, 0, IdRange(17, 17)))
    rig.teller.publish()
    rig.settle()
    assert (rig.gap_records()[10].missing, rig.gap_records()[10].absent) == ([(15, 16), (18, 19)], [(17, 17)])
    before = len(rig.stored(rig.gaps))
    rig.teller.publish()
    rig.settle()
    assert len(rig.stored(rig.gaps)) == before, "a record without a change"


def test_gap_record_does_not_wait_for_trades_of_other_gaps(rig: Rig) -> None:
    """F2: with trades always in flight no gap was recorded, and the checkpoint did not advance."""
    rig.flow.resume(50, [unresolved(10, 19), unresolved(30, 39)])
    rig.pipeline.fetched.publish(rig.flow, fetched(10, 19))
    until(lambda: len(rig.stored(rig.trades)) == 10, "the first ten trades in the topic")
    rig.broker.refuse_produce(*[NOT_ENOUGH_REPLICAS] * 20)
    rig.pipeline.fetched.publish(rig.flow, fetched(30, 38))
    rig.wait(lambda: [entry.ids.first for entry in rig.flow.gaps] == [30], "a record of the first gap")
    assert rig.flow.unacknowledged, "nothing is in flight"


def test_checkpoint_passes_a_recorded_gap_while_a_newer_record_is_in_flight(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.flush(rig.flow)
    rig.settle()
    rig.pipeline.fetched.publish(rig.flow, fetched(42, 43))
    rig.pipeline.process(frames(45))
    rig.wait(lambda: not rig.flow.gaps, "the record of its end")
    assert rig.counters.gaps.acknowledged == 1
    # The record in the topic has more missing ids than there are.
    assert rig.pipeline.gaps.checkpoint(SYMBOL, 45) == 45


def test_checkpoint_advances_up_to_an_unrecorded_gap(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(42, 43, 46))
    rig.pipeline.flush(rig.flow)
    assert rig.pipeline.gaps.checkpoint(SYMBOL, 46) == 43
    rig.settle()
    assert rig.published_checkpoints() == [46]


def test_gap_record_of_a_removed_symbol_has_what_was_filled_before(rig: Rig) -> None:
    """The part was acknowledged, and the next record of it due with the next checkpoint, which never came."""
    rig.flow.resume(50, [unresolved(10, 19)])
    rig.pipeline.fetched.publish(rig.flow, fetched(10, 14))
    rig.wait(lambda: not rig.flow.unacknowledged, "acknowledgement of the trades")
    assert rig.gap_records() == {}
    rig.pipeline.remove_symbol(SYMBOL)
    rig.settle()
    assert (rig.gap_records()[10].state, rig.gap_records()[10].missing) == ("unresolved", [(15, 19)])


def test_gap_record_of_an_overlapping_process_is_closed(rig: Rig) -> None:
    """Both detected the gap, with other bounds: each has a record, and only the newer process continues."""
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(46))
    rig.pipeline.flush(rig.flow)
    rig.settle()
    rig.pipeline.fetched.publish(rig.flow, fetched(42, 44))
    rig.pipeline.fetched.publish(rig.flow, fetched(1, 0, IdRange(45, 45)))
    rig.settle()
    assert rig.gap_records()[42].state == "absent"
    other = [unresolved(43, 43), unresolved(45, 45), unresolved(47, 48)]
    rig.pipeline.gaps.adopt(rig.flow, [*rig.gap_records().values(), *other])
    rig.settle()
    assert {first: rig.gap_records()[first].state for first in (43, 45)} == {43: "backfilled", 45: "absent"}
    assert 47 not in rig.gap_records(), "of ids that this process has not come to nothing is known yet"
    rig.pipeline.process(frames(47, 48))
    rig.settle()
    assert rig.gap_records()[47].state == "backfilled"


def test_gap_record_overwritten_by_another_process_is_published_again(rig: Rig) -> None:
    rig.flow.resume(41, [])
    rig.pipeline.process(frames(44))
    rig.pipeline.flush(rig.flow)
    rig.settle()
    overwritten = msgspec.structs.replace(
        rig.gap_records()[42],
        missing=[(42, 42)],
        updated_time_us=rig.gap_records()[42].updated_time_us + 10**9,
    )
    rig.pipeline.gaps.adopt(rig.flow, [overwritten])
    rig.settle()
    newest = rig.gap_records()[42]
    assert (newest.missing, newest.updated_time_us > overwritten.updated_time_us) == ([(42, 43)], True)
