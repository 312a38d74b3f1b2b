"""Bulk decoding accepts and rejects the same values as decoding one by one."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_wire import DecodeError, decode_book_ticker, decode_trade
from marketfeed_wire.bulk import are_decimals, decode_book_tickers, decode_trades
from marketfeed_wire.codec import is_decimal

eight = st.from_regex(r"\A[0-9]{1,9}\.[0-9]{8}\Z")
odd = st.one_of(
    st.text(alphabet="0123456789.", min_size=1, max_size=14),
    st.sampled_from(
        ["", ".", "1.", ".00000001", "1.2.00000000", "-1.00000000", "1e5", "٣.00000000", "1.0000000٣"]
    ),
)
texts = st.lists(st.one_of(eight, eight, odd), max_size=6)


@given(texts)
def test_decimals_are_checked_in_bulk_as_one_by_one(given_texts: list[str]) -> None:
    assert are_decimals(given_texts) == all(map(is_decimal, given_texts))


names = st.one_of(st.just("binance_us"), st.just("BTCUSDT"), st.text(max_size=3))
decimals = st.one_of(eight, eight, odd)
trades = st.fixed_dictionaries(
    {
        "venue": names, "symbol": names, "trade_id": st.integers(-1, 9), "price": decimals, "qty": decimals,
        "buyer_is_maker": st.booleans(), "trade_time_us": st.just(1), "event_time_us": st.none(),
        "received_time_us": st.just(1),
    }
)  # fmt: skip
quotes = st.fixed_dictionaries(
    {
        "venue": names, "symbol": names, "update_id": st.integers(0, 9), "bid_price": decimals, "bid_qty": decimals,
        "ask_price": decimals, "ask_qty": decimals, "event_time_us": st.none(), "received_time_us": st.just(1),
    }
)  # fmt: skip


def outcome(decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except DecodeError as error:
        return error.field, error.reason


def assert_same(
    many: Callable[[Sequence[bytes]], Any], one: Callable[[bytes], Any], messages: list[dict[str, Any]]
) -> None:
    values = [msgspec.json.encode(message) for message in messages]
    assert outcome(lambda: many(values)) == outcome(lambda: [one(value) for value in values])


@given(st.lists(trades, max_size=4))
def test_bulk_decoding_of_trades_equals_single_decoding(messages: list[dict[str, Any]]) -> None:
    assert_same(decode_trades, decode_trade, messages)


@given(st.lists(quotes, max_size=4))
def test_bulk_decoding_of_quotes_equals_single_decoding(messages: list[dict[str, Any]]) -> None:
    assert_same(decode_book_tickers, decode_book_ticker, messages)


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b"{"])
def test_bulk_decoding_rejects_invalid_bytes_among_valid_messages(value: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_trades([value])
