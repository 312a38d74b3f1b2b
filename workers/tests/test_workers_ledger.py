"""What the worker remembers in Kafka: read back as it was told, whatever else stands in the topics."""

from collections.abc import Callable

import msgspec
import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st
from workers_broker import Broker
from workers_support import MakeSettings, now_us

from marketfeed_devtools.ports import free_port
from marketfeed_service.errors import StartupError
from marketfeed_wire import (
    Gap,
    Progress,
    Trade,
    decode_progress,
    encode,
    gap_key,
    key_for,
    progress_key,
)
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.checkpoints import CheckpointPublisher
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.kafka.recovery import recover_state
from marketfeed_workers.kafka.topics import MIN_BATCH_BYTES, ensure_topics
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.gaps import GapEntry, max_ranges
from marketfeed_workers.stream.id_ranges import IdRange, merged, of_ids, within
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.reorder_buffer import ReorderBuffer
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import Fetched

Store = Callable[[str, bytes, bytes], None]


@pytest.fixture
def chosen(make_settings: MakeSettings, shared_broker: Broker) -> WorkerSettings:
    return make_settings(
        KAFKA_BROKER=shared_broker.address,
        MARKET_TRADES_TOPIC=shared_broker.new_topic("trades"),
        MARKET_BOOK_TOPIC=shared_broker.new_topic("quotes"),
        MARKET_PROGRESS_TOPIC=shared_broker.new_topic("progress"),
        MARKET_GAPS_TOPIC=shared_broker.new_topic("gaps"),
    )


@pytest.fixture
def store(shared_broker: Broker) -> Store:
    producer = Producer({"bootstrap.servers": shared_broker.address, "linger.ms": 0})

    def put(topic: str, key: bytes, value: bytes) -> None:
        producer.produce(topic, value, key)
        assert producer.flush(20) == 0

    return put


def progress(symbol: str, trade_id: int, venue: str = "binance_us") -> tuple[bytes, bytes]:
    return progress_key(venue, symbol), encode(Progress(venue, symbol, trade_id, 1))


def gap(first_id: int, state: str, missing: list[tuple[int, int]]) -> Gap:
    return Gap(
        venue="binance_us",
        symbol="BTCUSDT",
        first_id=first_id,
        last_id=first_id + 9,
        state=state,  # type: ignore[arg-type]
        missing=missing,
        absent=[],
        proof="trades",
        detected_time_us=1,
        updated_time_us=2,
    )


def test_nothing_is_remembered_at_first(chosen: WorkerSettings) -> None:
    memory = recover_state(chosen)
    assert (memory.progress, dict(memory.gaps)) == ({}, {})


def test_the_newest_word_counts_and_only_of_this_venue(chosen: WorkerSettings, store: Store) -> None:
    topic = chosen.market_progress_topic
    for record in (
        progress("BTCUSDT", 41),
        progress("ETHUSDT", 7),
        progress("BTCUSDT", 42),
        progress("BTCUSDT", 9000, venue="binance"),
    ):
        store(topic, *record)
    assert recover_state(chosen).progress == {"BTCUSDT": 42, "ETHUSDT": 7}


def test_gaps_come_back_in_their_newest_state(chosen: WorkerSettings, store: Store) -> None:
    for each in (gap(10, "unresolved", [(10, 19)]), gap(50, "unresolved", [(50, 51)]), gap(10, "filled", [])):
        store(chosen.market_gaps_topic, gap_key(each), encode(each))
    known = recover_state(chosen).gaps["BTCUSDT"]
    assert {first_id: (each.state, each.missing) for first_id, each in known.items()} == {
        10: ("filled", []),
        50: ("unresolved", [(50, 51)]),
    }


def test_a_record_that_is_not_ours_does_not_keep_a_worker_from_starting(
    chosen: WorkerSettings, store: Store
) -> None:
    topic = chosen.market_progress_topic
    store(topic, b"BTCUSDT", b"not a record of ours")
    store(topic, b"BTCUSDT", b"")
    store(topic, *progress("BTCUSDT", 42))
    store(chosen.market_gaps_topic, b"k", b'{"venue":"binance_us"}')
    assert recover_state(chosen).progress == {"BTCUSDT": 42}


def test_a_topic_that_cannot_be_read_is_not_taken_for_one_without_records(
    chosen: WorkerSettings,
) -> None:
    with pytest.raises(StartupError, match=r"topic nowhere cannot be read: .*Unknown topic"):
        recover_state(chosen.model_copy(update={"market_progress_topic": "nowhere"}))


def test_topics_that_cannot_be_listed_end_the_start_with_a_reason(make_settings: MakeSettings) -> None:
    settings = make_settings(KAFKA_BROKER=f"127.0.0.1:{free_port()}")
    with pytest.raises(StartupError, match=r"topics cannot be listed: .*check KAFKA_BROKER"):
        ensure_topics(settings)
    with pytest.raises(StartupError, match=r"topic market\.progress cannot be read: "):
        recover_state(settings)


class Teller:
    """A teller over a real publisher, and what it has told."""

    def __init__(self, chosen: WorkerSettings, broker: Broker) -> None:
        self._topic = chosen.market_progress_topic
        self._broker = broker
        self.counters = Counters(
            StreamCounters("trade", chosen.market_trades_topic),
            StreamCounters("book_ticker", chosen.market_book_topic),
            StreamCounters("gaps", chosen.market_gaps_topic),
            StreamCounters("progress", chosen.market_progress_topic),
        )
        self.publisher = Publisher(chosen, now_us)
        self.pipeline = Pipeline(VENUES["binance_us"], self.publisher, self.counters, now_us)
        self.teller = CheckpointPublisher(chosen, self.pipeline, self.publisher, self.counters, now_us)

    def publish(self, symbol: str, trade_id: int) -> None:
        trade = Trade("binance_us", symbol, trade_id, "1.0", "2.0", True, 1, 1, 1)
        record = {"value": encode(trade), "key": key_for(symbol)}
        self.publisher.publish(self.counters.trades, [record], now_us(), {symbol: trade_id})
        assert self.publisher.flush(20) == 0

    def told(self) -> list[tuple[str, int]]:
        self.teller.publish()
        assert self.publisher.flush(20) == 0
        stored = [decode_progress(value) for _, value in self._broker.read(self._topic)]
        return sorted((each.symbol, each.trade_id) for each in stored)


@pytest.fixture
def teller(chosen: WorkerSettings, shared_broker: Broker) -> Teller:
    return Teller(chosen, shared_broker)


def test_only_what_has_changed_is_told(teller: Teller) -> None:
    assert teller.told() == []
    teller.publish("BTCUSDT", 5)
    assert teller.told() == [("BTCUSDT", 5)]
    assert teller.told() == [("BTCUSDT", 5)]
    teller.publish("BTCUSDT", 6)
    teller.publish("ETHUSDT", 1)
    assert teller.told() == [("BTCUSDT", 5), ("BTCUSDT", 6), ("ETHUSDT", 1)]


def test_a_gap_of_very_many_holes_is_told_in_a_message_that_a_topic_takes() -> None:
    sequence = ReorderBuffer()
    holes = [IdRange(10 * n, 10 * n + 4) for n in range(1, 5000)]
    sequence.resume_after(60_000, holes)
    entry = GapEntry(
        IdRange(10, 50_000), 1, None, absent=[IdRange(10 * n + 6, 10 * n + 6) for n in range(1, 5000)]
    )
    entry.update(sequence, [])
    told = entry.message("binance_us", "BTCUSDT", 2, max_ranges(MIN_BATCH_BYTES - 512))
    assert len(encode(told)) < MIN_BATCH_BYTES - 512
    missing = [IdRange(*each) for each in told.missing]
    assert within(missing, IdRange(10, 50_000)) == missing
    assert all(within(missing, hole) == [hole] for hole in holes), "nothing that is missing is left out"
    assert {IdRange(*each) for each in told.absent} < set(entry.absent)


def test_a_gap_of_many_holes_is_told_exactly_where_the_topics_take_it() -> None:
    sequence = ReorderBuffer()
    holes = [IdRange(10 * n, 10 * n + 4) for n in range(1, 5000)]
    sequence.resume_after(60_000, holes)
    entry = GapEntry(IdRange(10, 50_000), 1, None)
    entry.update(sequence, [])
    told = entry.message("v", "S", 2, max_ranges(1_000_000))
    assert [IdRange(*each) for each in told.missing] == holes
    longest = 2**63 - 1
    ids = [(longest, longest)] * max_ranges(1_000_000)
    assert len(encode(msgspec.structs.replace(told, missing=ids, absent=ids))) < 1_000_000


def test_a_hole_is_looked_for_at_the_time_of_what_came_before_it() -> None:
    flow = SymbolFlow("BTCUSDT", b"BTCUSDT")
    assert flow.time_before(1) is None
    left = msgspec.structs.replace(gap(10, "unresolved", [(10, 19)]), after_time_us=700)
    flow.resume(40, [left], acknowledged_time_us=5_000)
    assert (flow.time_before(10), flow.time_before(15), flow.time_before(41)) == (700, 700, 5_000)
    fetched = [
        Trade("binance_us", "BTCUSDT", n, "1", "1", True, 100 * n, None, 1, "backfill") for n in (10, 11)
    ]
    flow.accept_fetched(Fetched(fetched, [], "trades"), 1)
    assert flow.time_before(12) == 1_100, "the rest of a long hole begins later"
    flow.last_trade_time_us = 9_000
    flow.accept(Trade("binance_us", "BTCUSDT", 50, "1", "1", True, 9_500, None, 1), 9_999)
    assert flow.time_before(41) == 9_000, "the newest trade that was published came before it"
    told = flow.gaps[-1].message("binance_us", "BTCUSDT", 9_999, 10)
    assert told.after_time_us == 9_000, "so that the next process knows it, too"


@given(st.lists(st.sampled_from([0, 1]), min_size=30, max_size=30), st.integers(-1, 29))
def test_start_forgets_no_id_that_is_missing_wherever_the_checkpoint_lies(
    held: list[int], checkpoint: int
) -> None:
    """Of a gap that the checkpoint lay in the ids before it counted as published, and the gap ended as filled."""
    missing = of_ids(n for n, is_held in enumerate(held) if not is_held)
    flow = SymbolFlow("BTCUSDT", b"BTCUSDT")
    told = [gap(10 * n, "unresolved", within(missing, IdRange(10 * n, 10 * n + 9))) for n in range(3)]
    flow.resume(checkpoint, [msgspec.structs.replace(each, last_id=each.first_id + 9) for each in told])
    assert flow.sequence.missing() == within(missing, IdRange(0, checkpoint))
    for trade_id in range(checkpoint + 1, 30):
        flow.accept(a_trade_of(trade_id), 1)
    flow.update_gaps()
    left = merged(each for entry in flow.gaps for each in entry.missing)
    assert left == within(missing, IdRange(0, checkpoint))
    assert not left or {entry.state for entry in flow.gaps if entry.missing} == {"unresolved"}


def a_trade_of(trade_id: int) -> Trade:
    return Trade("binance_us", "BTCUSDT", trade_id, "1", "1", True, 1_000, None, 1)
