"""Topic names, the key rule, and the answers of /status."""

import hypothesis.strategies as st
import msgspec
from hypothesis import given
from wire_strategies import names

from marketfeed_wire import BOOK_TICKER, TRADES, key_for
from marketfeed_wire.status import ConsumerStatus, RetentionStatus, StreamStatus, SymbolStatus, WorkerStatus

# JSON has no infinity, and Hypothesis takes msgspec's mark of an empty dictionary for the default itself.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(
    SymbolStatus, st.builds(SymbolStatus, streams=st.dictionaries(st.text(), st.from_type(StreamStatus)))
)


def test_the_topic_names_are_part_of_the_contract() -> None:
    assert (TRADES, BOOK_TICKER) == ("market.trades.raw", "market.book_ticker.raw")


@given(names, names)
def test_two_symbols_share_a_key_only_when_they_are_the_same(one: str, other: str) -> None:
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
def test_a_status_comes_back_as_it_was_sent(status: WorkerStatus | ConsumerStatus) -> None:
    assert msgspec.json.decode(msgspec.json.encode(status), type=type(status)) == status


def test_a_reader_passes_over_what_a_newer_service_adds() -> None:
    status = ConsumerStatus(
        version="1", group="marketfeed", ready=True, reason="", partitions=[], inserted={}, duplicates={},
        dead_letters=0, symbols={}, latency_p50_us=None, latency_p99_us=None,
    )  # fmt: skip
    newer = {**msgspec.to_builtins(status), "candles": {"BTCUSDT": 1}}
    assert msgspec.json.decode(msgspec.json.encode(newer), type=ConsumerStatus) == status
