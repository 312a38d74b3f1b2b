"""Recovery from the ledger topics, also with foreign records in them."""

from collections.abc import Callable

import msgspec
import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.ports import free_port
from marketfeed_service.errors import StartupError
from marketfeed_service.id_ranges import IdRange, merged, of_ids, within
from marketfeed_wire import (
    Checkpoint,
    Gap,
    Trade,
    checkpoint_key,
    decode_checkpoint,
    encode,
    gap_key,
    key_for,
)
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.checkpoints import CheckpointPublisher
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.kafka.recovery import recover_state
from marketfeed_workers.kafka.topics import MIN_BATCH_BYTES, ensure_topics
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.gaps import GapEntry, max_ranges
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
    return checkpoint_key(venue, symbol), encode(Checkpoint(venue, symbol, trade_id, 1))


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


def test_recovery_from_empty_topics(chosen: WorkerSettings) -> None:
    memory = recover_state(chosen)
    assert (memory.progress, dict(memory.gaps)) == ({}, {})


def test_recovery_uses_the_newest_checkpoint_of_this_venue(chosen: WorkerSettings, store: Store) -> None:
    topic = chosen.market_progress_topic
    for record in (
        progress("BTCUSDT", 41),
        progress("ETHUSDT", 7),
        progress("BTCUSDT", 42),
        progress("BTCUSDT", 9000, venue="binance"),
    ):
        store(topic, *record)
    assert recover_state(chosen).progress == {"BTCUSDT": 42, "ETHUSDT": 7}


def test_recovery_of_gaps_in_their_newest_state(chosen: WorkerSettings, store: Store) -> None:
    for each in (
        gap(10, "unresolved", [(10, 19)]),
        gap(50, "unresolved", [(50, 51)]),
        gap(10, "backfilled", []),
    ):
        store(chosen.market_gaps_topic, gap_key(each), encode(each))
    known = recover_state(chosen).gaps["BTCUSDT"]
    assert {first_id: (each.state, each.missing) for first_id, each in known.items()} == {
        10: ("backfilled", []),
        50: ("unresolved", [(50, 51)]),
    }


def test_recovery_skips_foreign_records(chosen: WorkerSettings, store: Store) -> None:
    topic = chosen.market_progress_topic
    store(topic, b"BTCUSDT", b"not a record of ours")
    store(topic, b"BTCUSDT", b"")
    store(topic, *progress("BTCUSDT", 42))
    store(chosen.market_gaps_topic, b"k", b'{"venue":"binance_us"}')
    assert recover_state(chosen).progress == {"BTCUSDT": 42}


def test_recovery_from_an_unreadable_topic_is_an_error(
    chosen: WorkerSettings,
) -> None:
    with pytest.raises(StartupError, match=r"topic nowhere cannot be read: .*Unknown topic"):
        recover_state(chosen.model_copy(update={"market_progress_topic": "nowhere"}))


def test_topics_that_cannot_be_listed_are_a_startup_error(make_settings: MakeSettings) -> None:
    settings = make_settings(KAFKA_BROKER=f"127.0.0.1:{free_port()}")
    with pytest.raises(StartupError, match=r"topics cannot be listed: .*check KAFKA_BROKER"):
        ensure_topics(settings)
    with pytest.raises(StartupError, match=r"topic market\.progress cannot be read: "):
        recover_state(settings)


class Teller:
    """A checkpoint publisher with a real publisher, and its records."""

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

    def published(self) -> list[tuple[str, int]]:
        self.teller.publish()
        assert self.publisher.flush(20) == 0
        stored = [decode_checkpoint(value) for _, value in self._broker.read(self._topic)]
        return sorted((each.symbol, each.trade_id) for each in stored)


@pytest.fixture
def teller(chosen: WorkerSettings, shared_broker: Broker) -> Teller:
    return Teller(chosen, shared_broker)


def test_checkpoint_is_published_only_after_a_change(teller: Teller) -> None:
    assert teller.published() == []
    teller.publish("BTCUSDT", 5)
    assert teller.published() == [("BTCUSDT", 5)]
    assert teller.published() == [("BTCUSDT", 5)]
    teller.publish("BTCUSDT", 6)
    teller.publish("ETHUSDT", 1)
    assert teller.published() == [("BTCUSDT", 5), ("BTCUSDT", 6), ("ETHUSDT", 1)]


def test_gap_record_of_many_ranges_fits_a_topic() -> None:
    sequence = ReorderBuffer()
    gaps = [IdRange(10 * n, 10 * n + 4) for n in range(1, 5000)]
    sequence.resume_after(60_000, gaps)
    entry = GapEntry(
        IdRange(10, 50_000), 1, None, absent=[IdRange(10 * n + 6, 10 * n + 6) for n in range(1, 5000)]
    )
    entry.update(sequence, [])
    published = entry.message("binance_us", "BTCUSDT", 2, max_ranges(MIN_BATCH_BYTES - 512))
    assert len(encode(published)) < MIN_BATCH_BYTES - 512
    missing = [IdRange(*each) for each in published.missing]
    assert within(missing, IdRange(10, 50_000)) == missing
    assert all(within(missing, gap) == [gap] for gap in gaps), "a missing range is not in the record"
    assert {IdRange(*each) for each in published.absent} < set(entry.absent)


def test_gap_record_of_many_ranges_is_exact_if_it_fits() -> None:
    sequence = ReorderBuffer()
    gaps = [IdRange(10 * n, 10 * n + 4) for n in range(1, 5000)]
    sequence.resume_after(60_000, gaps)
    entry = GapEntry(IdRange(10, 50_000), 1, None)
    entry.update(sequence, [])
    published = entry.message("v", "S", 2, max_ranges(1_000_000))
    assert [IdRange(*each) for each in published.missing] == gaps
    longest = 2**63 - 1
    ids = [(longest, longest)] * max_ranges(1_000_000)
    assert len(encode(msgspec.structs.replace(published, missing=ids, absent=ids))) < 1_000_000


def test_gap_is_searched_at_the_time_of_the_trade_before_it() -> None:
    flow = SymbolFlow("BTCUSDT", b"BTCUSDT")
    assert flow.time_before(1) is None
    left = msgspec.structs.replace(gap(10, "unresolved", [(10, 19)]), after_time_us=700)
    flow.resume(40, [left], acknowledged_time_us=5_000)
    assert (flow.time_before(10), flow.time_before(15), flow.time_before(41)) == (700, 700, 5_000)
    fetched = [
        Trade("binance_us", "BTCUSDT", n, "1", "1", True, 100 * n, None, 1, "backfill") for n in (10, 11)
    ]
    flow.accept_fetched(Fetched(fetched, [], "trades"), 1)
    assert flow.time_before(12) == 1_100, "the rest of a long gap begins later"
    flow.last_trade_time_us = 9_000
    flow.accept(Trade("binance_us", "BTCUSDT", 50, "1", "1", True, 9_500, None, 1), 9_999)
    assert flow.time_before(41) == 9_000, "not the newest published trade before it"
    published = flow.gaps[-1].message("binance_us", "BTCUSDT", 9_999, 10)
    assert published.after_time_us == 9_000, "the next process does not have it"


@given(st.lists(st.sampled_from([0, 1]), min_size=30, max_size=30), st.integers(-1, 29))
def test_recovery_keeps_missing_ids_for_any_checkpoint(held: list[int], checkpoint: int) -> None:
    """Ids of a gap below a checkpoint inside the gap counted as published, and the gap was recorded as filled."""
    missing = of_ids(n for n, is_held in enumerate(held) if not is_held)
    flow = SymbolFlow("BTCUSDT", b"BTCUSDT")
    published = [gap(10 * n, "unresolved", within(missing, IdRange(10 * n, 10 * n + 9))) for n in range(3)]
    flow.resume(checkpoint, [msgspec.structs.replace(each, last_id=each.first_id + 9) for each in published])
    assert flow.sequence.missing() == within(missing, IdRange(0, checkpoint))
    for trade_id in range(checkpoint + 1, 30):
        flow.accept(a_trade_of(trade_id), 1)
    flow.update_gaps()
    left = merged(each for entry in flow.gaps for each in entry.missing)
    assert left == within(missing, IdRange(0, checkpoint))
    assert not left or {entry.state for entry in flow.gaps if entry.missing} == {"unresolved"}


def a_trade_of(trade_id: int) -> Trade:
    return Trade("binance_us", "BTCUSDT", trade_id, "1", "1", True, 1_000, None, 1)
