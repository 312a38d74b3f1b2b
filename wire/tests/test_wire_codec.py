"""The codec: messages round trip, and an invalid value is rejected with its invalid field."""

import json
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given
from wire_strategies import book_tickers, trades

from marketfeed_wire import (
    MAX_ID,
    MAX_TIME_US,
    BookTicker,
    DecodeError,
    Trade,
    decode_book_ticker,
    decode_trade,
    encode,
    is_decimal,
    is_name,
)

Fields = dict[str, Any]
Decode = Callable[[bytes], Trade | BookTicker]


@given(trades)
def test_trade_round_trips(trade: Trade) -> None:
    assert decode_trade(encode(trade)) == trade


@given(book_tickers)
def test_quote_round_trips(quote: BookTicker) -> None:
    assert decode_book_ticker(encode(quote)) == quote


@given(trades)
def test_record_value_is_json_with_the_fields_in_declared_order(trade: Trade) -> None:
    assert json.loads(encode(trade)) == msgspec.to_builtins(trade)
    assert list(json.loads(encode(trade))) == list(Trade.__struct_fields__)


def refused(decode: Decode, value: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(value)
    return caught.value


NOT_A_MESSAGE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b" ", id="a space"),
    pytest.param(b"null", id="null"),
    pytest.param(b"7", id="a number"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b'{"venue"', id="cut off"),
    pytest.param(b"\xff\xfe", id="not UTF-8"),
    pytest.param(b'{"venue":"\xff"}', id="not UTF-8 inside a string"),
    pytest.param(b'{"venue":"\\ud800"}', id="half a surrogate pair"),
    pytest.param(b"[" * 100_000, id="a deep list"),
    pytest.param(b'{"later":' + b"[" * 100_000, id="a deep list in an ignored field"),
    pytest.param(b'{"venue":' + b'{"a":' * 100_000, id="deep objects in a field that is read"),
]


@pytest.mark.parametrize("decode", [decode_trade, decode_book_ticker])
@pytest.mark.parametrize("value", NOT_A_MESSAGE)
def test_decoding_rejects_invalid_bytes_with_a_reason(decode: Decode, value: bytes) -> None:
    assert refused(decode, value).reason


@given(st.binary())
@example(b"{}")
def test_decoding_of_arbitrary_bytes_raises_only_decode_errors(value: bytes) -> None:
    for decode in (decode_trade, decode_book_ticker):
        assert refused(decode, value).reason


@given(message=trades.map(encode) | book_tickers.map(encode), data=st.data())
def test_decoding_of_a_damaged_record_fails_or_gives_a_valid_message(
    message: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(message) - 1))
    damaged = message[:place] + data.draw(st.binary(max_size=4)) + message[place + 1 :]
    for decode in (decode_trade, decode_book_ticker):
        try:
            read = decode(damaged)
        except DecodeError as error:
            assert error.reason  # noqa: PT017 - either outcome is right, and each is checked
        else:
            assert decode(encode(read)) == read


@given(
    st.dictionaries(
        st.sampled_from([*Trade.__struct_fields__, *BookTicker.__struct_fields__, "later"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        ),
    )
)
def test_decoding_of_any_json_object_fails_with_a_field_or_gives_a_message(fields: Fields) -> None:
    value = json.dumps(fields).encode("utf-8", "surrogatepass")
    for decode in (decode_trade, decode_book_ticker):
        try:
            decode(value)
        except DecodeError as error:
            if "\\ud" not in value.decode():  # half a surrogate pair makes the whole value unreadable
                assert error.field, value  # noqa: PT017


NOT_A_NAME = [
    "",
    "B" * 65,
    "BTC USDT",
    "BTC\x00USDT",
    "BTC\tUSDT",
    "BTC\nUSDT",
    "BTC\u200bUSDT",
    "\ue000",
    7,
    None,
]
NOT_AN_ID = [-1, MAX_ID + 1, 10**40, 1.0, 1.5, "1", True, None, [1]]
NOT_A_TIME = [*NOT_AN_ID, MAX_TIME_US + 1, MAX_ID]
NOT_A_DECIMAL = [
    "", ".", "..", "1.2.3", "-1", "+1", "1e5", "1E5", "NaN", "nan", "Infinity", "0x10", "1,5", "1_000",
    " 1", "1 ", "1\n", "1\x00", "\u0661\u0662", "\uff11", "\u00b2", "1" * 65, 1.5, 1, None, True,
]  # fmt: skip

WRONG_IN_BOTH = [
    *(("venue", value) for value in NOT_A_NAME),
    *(("symbol", value) for value in NOT_A_NAME),
    *(("received_time_us", value) for value in NOT_A_TIME),
    *(("event_time_us", value) for value in NOT_A_TIME if value is not None),
]
WRONG_IN_A_TRADE = [
    *WRONG_IN_BOTH,
    *(("trade_id", value) for value in NOT_AN_ID),
    *(("trade_time_us", value) for value in NOT_A_TIME),
    *((name, value) for name in ("price", "qty") for value in NOT_A_DECIMAL),
    ("buyer_is_maker", 1),
    ("buyer_is_maker", "true"),
    ("buyer_is_maker", None),
    ("origin", "rest"),
    ("origin", None),
]
WRONG_IN_A_QUOTE = [
    *WRONG_IN_BOTH,
    *(("update_id", value) for value in NOT_AN_ID),
    *((n, value) for n in ("bid_price", "bid_qty", "ask_price", "ask_qty") for value in NOT_A_DECIMAL),
]


def shown(value: object) -> str:
    return ascii(value)[:20]


@pytest.mark.parametrize(("field", "value"), WRONG_IN_A_TRADE, ids=shown)
def test_decode_error_has_the_invalid_field_of_a_trade(
    trade_fields: Fields, field: str, value: object
) -> None:
    record = json.dumps({**trade_fields, field: value}).encode()
    assert refused(decode_trade, record).field == field


@pytest.mark.parametrize(("field", "value"), WRONG_IN_A_QUOTE, ids=shown)
def test_decode_error_has_the_invalid_field_of_a_quote(
    book_ticker_fields: Fields, field: str, value: object
) -> None:
    record = json.dumps({**book_ticker_fields, field: value}).encode()
    assert refused(decode_book_ticker, record).field == field


OPTIONAL = ("origin", "schema_version", "id_series")


@pytest.mark.parametrize("field", [name for name in Trade.__struct_fields__ if name not in OPTIONAL])
def test_decode_error_has_the_missing_field_of_a_trade(trade_fields: Fields, field: str) -> None:
    del trade_fields[field]
    error = refused(decode_trade, json.dumps(trade_fields).encode())
    assert (error.field, "missing" in error.reason) == (field, True)


@pytest.mark.parametrize("field", [name for name in BookTicker.__struct_fields__ if name not in OPTIONAL])
def test_decode_error_has_the_missing_field_of_a_quote(book_ticker_fields: Fields, field: str) -> None:
    del book_ticker_fields[field]
    error = refused(decode_book_ticker, json.dumps(book_ticker_fields).encode())
    assert (error.field, "missing" in error.reason) == (field, True)


def test_trade_without_origin_and_version_is_a_live_one_of_this_version(trade_fields: Fields) -> None:
    del trade_fields["origin"], trade_fields["schema_version"], trade_fields["id_series"]
    trade = decode_trade(json.dumps(trade_fields).encode())
    assert (trade.origin, trade.schema_version, trade.id_series) == ("stream", 1, 0)


def test_decode_error_text_is_one_line_with_field_and_reason(trade_fields: Fields) -> None:
    trade_fields["price"] = "1e5"
    error = refused(decode_trade, json.dumps(trade_fields).encode())
    assert str(error) == "price: '1e5' is not a decimal number"


@pytest.mark.parametrize("fields", ["trade_fields", "book_ticker_fields"])
def test_decoding_ignores_fields_of_a_newer_worker(fields: str, request: pytest.FixtureRequest) -> None:
    known: Fields = request.getfixturevalue(fields)
    decode: Decode = decode_trade if fields == "trade_fields" else decode_book_ticker
    newer = {"aaa": [1, {"b": None}], **known, "venue_sequence": 9, "nested": {"price": 1}}
    assert decode(json.dumps(newer).encode()) == decode(json.dumps(known).encode())


@pytest.mark.parametrize("version", [0, 2, 3, -1, 2**40])
def test_schema_version_is_the_error_even_if_other_fields_differ(
    trade_fields: Fields, book_ticker_fields: Fields, version: int
) -> None:
    for decode, fields in ((decode_trade, trade_fields), (decode_book_ticker, book_ticker_fields)):
        for change in ({}, {"symbol": {"base": "BTC", "quote": "USDT"}}):
            error = refused(decode, json.dumps({**fields, **change, "schema_version": version}).encode())
            assert error.field == "schema_version"
            assert f"version {version}," in error.reason


@pytest.mark.parametrize("version", ["1", None, 1.0, [1]])
def test_schema_version_that_is_not_a_number_is_the_error(trade_fields: Fields, version: object) -> None:
    error = refused(decode_trade, json.dumps({**trade_fields, "schema_version": version}).encode())
    assert error.field == "schema_version"


@pytest.mark.parametrize("text", ["0", "00", "1.", ".5", "0.00000001", "123456789.123456789", "9" * 64])
def test_decimal_accepts_digits_with_at_most_one_point(text: str) -> None:
    assert is_decimal(text)


@pytest.mark.parametrize(
    "text", [value for value in NOT_A_DECIMAL if isinstance(value, str) and len(value) < 65]
)
def test_decimal_rejects_other_texts(text: str) -> None:
    assert not is_decimal(text)


@given(st.text() | st.text("0123456789.-+eE\u0661 "))
def test_decimal_is_ascii_digits_with_at_most_one_point(text: str) -> None:
    whole = set(text) <= set("0123456789.") and text.count(".") <= 1 and any(c.isdigit() for c in text)
    assert is_decimal(text) == whole


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("BTCUSDT", True),
        ("币安人生USDT", True),
        ("BTC/USD", True),
        ("A B", False),
        ("A\x00", False),
        ("A\x7f", False),
    ],
)
def test_name_is_printable_and_without_spaces(text: str, good: bool) -> None:
    assert is_name(text) is good
