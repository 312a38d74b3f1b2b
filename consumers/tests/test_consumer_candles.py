"""Candles and their arithmetic are exact."""

from collections import defaultdict
from decimal import Context, Decimal
from typing import NamedTuple

import pytest
from consumer_market import BEGIN_US, trade
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_consumers.planning import decimals
from marketfeed_consumers.planning.candles import MINUTE_US, Candle, candles
from marketfeed_wire import Trade

exact = Context(prec=400)
plain = st.from_regex(r"\A[0-9]{1,12}(\.[0-9]{1,10})?\Z")
eight = st.from_regex(r"\A[0-9]{1,9}\.[0-9]{8}\Z")
numbers = st.one_of(st.lists(plain, min_size=1), st.lists(eight, min_size=1))


@given(numbers)
def test_decimals_scaled_numbers_are_equal(texts: list[str]) -> None:
    values, scale = decimals.scaled(texts)
    assert [exact.scaleb(Decimal(value), -scale) for value in values] == [Decimal(text) for text in texts]
    assert [Decimal(decimals.text(value, scale)) for value in values] == [Decimal(text) for text in texts]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1.5", "2"], ([15, 20], 1)),
        ([".5", "5."], ([5, 50], 1)),
        (["0"], ([0], 0)),
        (["1.00000000", "20.00000001"], ([100000000, 2000000001], 8)),
        (["12345678", "1.5"], ([123456780, 15], 1)),
    ],
)
def test_decimals_scaled_cases(texts: list[str], expected: tuple[list[int], int]) -> None:
    assert decimals.scaled(texts) == expected


@st.composite
def trades(draw: st.DrawFn) -> list[Trade]:
    """Return trades of one symbol over some minutes, ascending by id but not by time."""
    strategy = draw(st.sampled_from([plain, eight]))
    return [
        trade(
            trade_id,
            price=draw(strategy),
            qty=draw(strategy),
            buyer_is_maker=draw(st.booleans()),
            trade_time_us=BEGIN_US + draw(st.integers(0, 3 * MINUTE_US)),
        )
        for trade_id in sorted(draw(st.sets(st.integers(0, 1000), min_size=1, max_size=30)))
    ]


class Plain(NamedTuple):
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    count: int
    first: int
    last: int


def by_definition(group: list[Trade]) -> Plain:
    prices, quantities = [Decimal(t.price) for t in group], [Decimal(t.qty) for t in group]
    total = Decimal(0)
    volume, quote, bought = total, total, total
    for one, price, qty in zip(group, prices, quantities, strict=True):
        volume = exact.add(volume, qty)
        quote = exact.add(quote, exact.multiply(price, qty))
        bought = bought if one.buyer_is_maker else exact.add(bought, qty)
    return Plain(
        prices[0], max(prices), min(prices), prices[-1], volume, quote, bought, len(group),
        group[0].trade_id, group[-1].trade_id,
    )  # fmt: skip


def as_plain(candle: Candle) -> Plain:
    return Plain(*map(Decimal, candle[4:11]), *candle[11:])  # type: ignore[arg-type]


@given(trades())
def test_candle_equals_its_definition_exactly(group: list[Trade]) -> None:
    minutes: defaultdict[int, list[Trade]] = defaultdict(list)
    for one in group:
        minutes[one.trade_time_us // MINUTE_US * MINUTE_US].append(one)
    made = {candle.open_time_us: as_plain(candle) for candle in candles(("v", "s", 0), group)}
    assert made == {minute: by_definition(own) for minute, own in minutes.items()}
