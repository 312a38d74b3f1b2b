"""Topic names, record keys, and the responses of /status."""

import hypothesis.strategies as st
import msgspec
from hypothesis import given
from wire_strategies import names

from marketfeed_wire import BOOK_TICKER, TRADES, key_for
from marketfeed_wire.status import ConsumerStatus, RetentionStatus, StreamStatus, SymbolStatus, WorkerStatus

# JSON has no infinity, and Hypothesis takes msgspec's marker of an empty dictionary for the default itself.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(
    SymbolStatus, st.builds(SymbolStatus, streams=st.dictionaries(st.text(), st.from_type(StreamStatus)))
)


def test_topic_names_are_part_of_the_contract() -> None:
    assert (TRADES, BOOK_TICKER) == ("market.trades.raw", "market.book_ticker.raw")


@given(names, names)
def test_record_key_is_equal_only_for_the_same_symbol(one: str, other: str) -> None:
    assert key_for(one).decode() == one
    assert (key_for(one) == key_for(other)) == (one == other)


counts = st.dictionaries(st.text(), st.integers())
consumer_statuses = st.builds(
    ConsumerStatus,
    conflicts=counts,
    unverifiable=counts,
    expired=counts,
    retention=st.dictionaries(st.text(), st.from_type(RetentionStatus)),
)


worker_statuses = st.builds(WorkerStatus, rejected=counts)


@given(worker_statuses | consumer_statuses)
def test_status_round_trips(status: WorkerStatus | ConsumerStatus) -> None:
    assert msgspec.json.decode(msgspec.json.encode(status), type=type(status)) == status


def test_status_decoding_ignores_unknown_fields() -> None:
    status = ConsumerStatus(
        version="1", group="marketfeed", ready=True, reason="", partitions=[], inserted={}, duplicates={},
        dead_letters=0, symbols={}, latency_p50_us=None, latency_p99_us=None,
    )  # fmt: skip
    newer = {**msgspec.to_builtins(status), "candles": {"BTCUSDT": 1}}
    assert msgspec.json.decode(msgspec.json.encode(newer), type=ConsumerStatus) == status
