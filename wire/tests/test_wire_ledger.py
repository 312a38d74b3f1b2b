"""Checkpoints and gaps in the ledger topics."""

import json
from collections.abc import Callable
from typing import Any, Literal

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from wire_strategies import ids, names, times

from marketfeed_wire import MAX_ID, MAX_TIME_US, DecodeError, encode
from marketfeed_wire.ledger import (
    Checkpoint,
    Gap,
    checkpoint_key,
    decode_checkpoint,
    decode_gap,
    encode_gap,
    gap_key,
    is_quote_checkpoint_key,
    quote_checkpoint_key,
)

ranges = st.tuples(ids, ids).map(lambda pair: (min(pair), max(pair)))
progresses = st.builds(Checkpoint, venue=names, symbol=names, trade_id=ids, acknowledged_time_us=times)
gaps = st.builds(
    lambda ends, **fields: Gap(first_id=ends[0], last_id=ends[1], **fields),
    ranges,
    venue=names,
    symbol=names,
    state=st.sampled_from(["open", "backfilled", "absent", "unresolved"]),
    missing=st.lists(ranges, max_size=3),
    absent=st.lists(ranges, max_size=3),
    proof=st.text(max_size=64),
    detected_time_us=times,
    updated_time_us=times,
)
GAP: dict[str, Any] = {
    "venue": "binance_us",
    "symbol": "BTCUSDT",
    "first_id": 5,
    "last_id": 9,
    "state": "open",
    "missing": [[5, 6]],
    "absent": [[7, 7]],
    "proof": "historicalTrades",
    "detected_time_us": 1,
    "updated_time_us": 2,
}
PROGRESS: dict[str, Any] = {
    "venue": "binance_us",
    "symbol": "BTCUSDT",
    "trade_id": 9,
    "acknowledged_time_us": 3,
}


def refused(decode: Callable[[bytes], Any], value: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(value)
    return caught.value


@given(progresses)
def test_checkpoint_round_trips(progress: Checkpoint) -> None:
    assert decode_checkpoint(msgspec.json.encode(progress)) == progress


@given(gaps)
def test_gap_round_trips(gap: Gap) -> None:
    assert decode_gap(msgspec.json.encode(gap)) == decode_gap(encode_gap(gap)) == gap


class PreviousGap(Gap, frozen=True, kw_only=True):
    """A gap record as the version before decodes it."""

    state: Literal["open", "filled", "absent", "unresolved"]  # type: ignore[assignment]


@given(gaps)
def test_gap_record_is_read_by_the_version_before(gap: Gap) -> None:
    """Its consumers run beside new workers during a rolling upgrade."""
    read = msgspec.json.decode(encode_gap(gap), type=PreviousGap)
    assert read.state == ("filled" if gap.state == "backfilled" else gap.state)
    assert {**msgspec.structs.asdict(read), "state": gap.state} == msgspec.structs.asdict(gap)


@given(gaps, gaps)
def test_gap_key_is_equal_only_for_the_same_gap(one: Gap, other: Gap) -> None:
    same = (one.venue, one.symbol, one.first_id) == (other.venue, other.symbol, other.first_id)
    if "|" not in one.venue + other.venue + one.symbol + other.symbol:  # no venue writes a symbol so
        assert (gap_key(one) == gap_key(other)) == same


def test_ledger_keys_contain_venue_symbol_and_first_id() -> None:
    gap = decode_gap(json.dumps(GAP).encode())
    assert gap_key(gap) == b"binance_us|BTCUSDT|5"
    assert checkpoint_key("binance_us", "币安人生USDT").decode() == "binance_us|币安人生USDT"


def test_checkpoints_of_each_series_have_a_key_of_their_own() -> None:
    """Compaction kept the newest record of a symbol, also where that was of a series that has ended."""
    keys = [
        key("binance_us", "BTCUSDT", number)
        for key in (checkpoint_key, quote_checkpoint_key)
        for number in (0, 1, 12)
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == b"binance_us|BTCUSDT", "the key that it had before there were series"
    assert [is_quote_checkpoint_key(key) for key in keys] == [False] * 3 + [True] * 3


@given(st.binary())
def test_decoding_of_arbitrary_bytes_raises_only_decode_errors(value: bytes) -> None:
    assert refused(decode_gap, value).reason
    assert refused(decode_checkpoint, value).reason


WRONG_IN_A_GAP = [
    ("venue", "binance us"), ("symbol", "BTC\x00"), ("symbol", ""), ("first_id", -1), ("first_id", MAX_ID + 1),
    ("first_id", 1.0), ("last_id", 4), ("last_id", None), ("state", "lost"), ("missing", [[6, 5]]),
    ("missing", [[1]]), ("missing", [[-1, 5]]), ("absent", [[2, 1]]), ("absent", "none"), ("proof", "x" * 65),
    ("detected_time_us", -1), ("updated_time_us", "now"), ("updated_time_us", MAX_TIME_US + 1),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG_IN_A_GAP, ids=lambda value: ascii(value)[:20])
def test_decode_error_has_the_invalid_field_of_a_gap(field: str, value: object) -> None:
    error = refused(decode_gap, json.dumps({**GAP, field: value}).encode())
    assert error.field.startswith(field)  # for a range also which one: missing[...][0]


@pytest.mark.parametrize(
    ("field", "value"), [("venue", ""), ("symbol", "A B"), ("trade_id", -1), ("acknowledged_time_us", None)]
)
def test_decode_error_has_the_invalid_field_of_a_checkpoint(field: str, value: object) -> None:
    assert refused(decode_checkpoint, json.dumps({**PROGRESS, field: value}).encode()).field == field


def test_ledger_decoding_ignores_unknown_fields_and_rejects_deep_nesting() -> None:
    assert decode_gap(json.dumps({**GAP, "extra": {"tries": 3}}).encode()) == decode_gap(
        json.dumps(GAP).encode()
    )
    for decode, fields in ((decode_gap, GAP), (decode_checkpoint, PROGRESS)):
        deep = json.dumps({**fields, "extra": 1}).replace('"extra": 1', '"extra": ' + "[" * 100_000)
        assert refused(decode, deep.encode()).reason


def test_package_exports_matching_encoders_and_decoders() -> None:
    progress = decode_checkpoint(json.dumps(PROGRESS).encode())
    assert decode_checkpoint(encode(progress)) == progress


def test_gap_state_of_an_earlier_release_is_read() -> None:
    assert decode_gap(json.dumps({**GAP, "state": "filled"}).encode()).state == "backfilled"
