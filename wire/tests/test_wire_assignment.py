"""The assignment file: round trips, and the rejection of damaged files."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from wire_strategies import names

from marketfeed_wire import DecodeError
from marketfeed_wire.assignment import assignment_of, decode_assignment, encode_assignment, hash_of

symbol_lists = st.lists(names, max_size=30)


@given(symbol_lists, st.none() | st.integers(1, 10_000))
def test_assignment_round_trips(symbols: list[str], budget_share: int | None) -> None:
    assignment = assignment_of(symbols, budget_share)
    assert decode_assignment(encode_assignment(assignment)) == assignment
    assert list(assignment.symbols) == sorted(set(symbols))


@given(symbol_lists, symbol_lists)
def test_assignment_hash_is_equal_only_for_equal_symbols(one: list[str], other: list[str]) -> None:
    assert (hash_of(one) == hash_of(other)) == (set(one) == set(other))


@given(symbol_lists, st.data())
def test_assignment_file_that_is_truncated_is_rejected(symbols: list[str], data: st.DataObject) -> None:
    content = encode_assignment(assignment_of(symbols)).rstrip()
    with pytest.raises(DecodeError):
        decode_assignment(content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "data was truncated"),
        (b"[]", "Expected `object`"),
        (b'{"symbols":["BTCUSDT"]}', "missing required field `hash`"),
        (b'{"symbols":["BTCUSDT"],"hash":"0"}', "is not the hash of the symbols"),
        (b'{"symbols":["A","A"],"hash":"559aead08264d579"}', "listed twice"),
        (b'{"symbols":[],"hash":"0","budget_share":0}', "budget_share"),
        (b'{"symbols":["A B"],"hash":"0"}', "not a symbol"),
        (b'{"symbols":[""],"hash":"0"}', "length >= 1"),
        (b'{"symbols":["\xff"],"hash":"0"}', "utf-8"),
        (b'{"symbols":[],"hash":"","x":' + b"[" * 100_000, "recursion"),
    ],
    ids=[
        "empty",
        "no object",
        "no hash",
        "edited by hand",
        "twice",
        "shared by nobody",
        "a space",
        "no name",
        "no UTF-8",
        "nested without end",
    ],
)
def test_assignment_file_that_is_invalid_is_rejected_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_assignment(content)
