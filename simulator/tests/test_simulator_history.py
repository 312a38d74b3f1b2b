"""Trade history and ledger against simple models."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_simulator.frames import Frame, TradeRow
from marketfeed_simulator.history import TradeHistory, aggregate_json, trade_json
from marketfeed_simulator.ledger import Exchange, without


def row(number: int, price: str = "1.00000000", time_us: int = 0, aggregate_id: int = 0) -> TradeRow:
    return TradeRow(number, price, "2.50000000", time_us, buyer_is_maker=False, aggregate_id=aggregate_id)


def trade(number: int) -> Frame:
    return Frame("btcusdt@trade", "BTCUSDT", "trade", 0, number, b"{}", row(number))


def quote(number: int) -> Frame:
    return Frame("btcusdt@bookTicker", "BTCUSDT", "quote", 0, number, b"{}")


@given(st.lists(st.integers(1, 60)), st.integers(0, 70), st.integers(1, 20))
def test_history_matches_a_sorted_set(numbers: list[int], first: int, limit: int) -> None:
    history = TradeHistory()
    fresh = [history.add(row(number)) for number in numbers]
    kept = sorted(set(numbers))
    assert sum(fresh) == len(kept) == len(history)
    assert [found.id for found in history.since(first, limit)] == [n for n in kept if n >= first][:limit]
    assert [found.id for found in history.recent(limit)] == kept[-limit:]


@given(st.integers(1, 200), st.integers(1, 20))
def test_history_bound_keeps_the_newest(count: int, keep: int) -> None:
    history = TradeHistory(keep)
    for number in range(1, count + 1):
        history.add(row(number, aggregate_id=(number + 1) // 2))
    assert [found.id for found in history.recent(keep)] == list(range(max(1, count - keep + 1), count + 1))
    assert len(history) <= 2 * keep
    assert history.aggregates(1000)[-1].last_id == count


@given(
    st.lists(st.tuples(st.sampled_from(["1.0", "2.0"]), st.integers(0, 2)), max_size=40), st.integers(0, 40)
)
def test_history_aggregates_cover_every_trade_once(fills: list[tuple[str, int]], asked_after: int) -> None:
    history = TradeHistory()
    time_us = 0
    for number, (price, later) in enumerate(fills, 1):
        time_us += later
        history.add(row(number, price, time_us))
        if number == asked_after:
            history.aggregates(10)
    found = history.aggregates(1000)
    covered = [number for aggregate in found for number in range(aggregate.first_id, aggregate.last_id + 1)]
    assert covered == list(range(1, len(fills) + 1))
    assert sum((aggregate.qty for aggregate in found), Decimal(0)) == Decimal("2.5") * len(fills)
    assert [aggregate.id for aggregate in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({"limit": 2}, [4, 5], id="the newest without bounds"),
        pytest.param({"limit": 2, "first_id": 2}, [2, 3], id="from an id"),
        pytest.param({"limit": 9, "start_us": 2000, "end_us": 4000}, [2, 3, 4], id="both ends included"),
        pytest.param({"limit": 2, "start_us": 1000}, [1, 2], id="the oldest after a start"),
        pytest.param({"limit": 2, "end_us": 4000}, [3, 4], id="the newest before an end"),
        pytest.param({"limit": 9, "start_us": 9000}, [], id="none after the last"),
        pytest.param(
            {"limit": 9, "start_us": 4000, "end_us": 2000}, [], id="none when the end is before the start"
        ),
    ],
)
def test_history_aggregates_by_id_and_time(asked: dict[str, int], expected: list[int]) -> None:
    history = TradeHistory()
    for number in range(1, 6):
        history.add(row(number, time_us=number * 1000))
    assert [aggregate.id for aggregate in history.aggregates(**asked)] == expected


def test_history_rows_have_the_venue_s_fields() -> None:
    assert trade_json(TradeRow(7, "0.10000000", "3.00000000", 1_500_999, True), microseconds=False) == {
        "id": 7,
        "price": "0.10000000",
        "qty": "3.00000000",
        "quoteQty": "0.30000000",
        "time": 1500,
        "isBuyerMaker": True,
        "isBestMatch": True,
    }
    assert trade_json(row(1, time_us=5), microseconds=True)["time"] == 5
    history = TradeHistory()
    history.add(row(3, time_us=2_000_000))
    history.add(row(4, time_us=2_000_000))
    assert aggregate_json(history.aggregates(1)[0], microseconds=False) == {
        "a": 1,
        "p": "1.00000000",
        "q": "5.00000000",
        "f": 3,
        "l": 4,
        "T": 2000,
        "m": False,
        "M": True,
    }


@given(st.lists(st.integers(1, 40), min_size=1))
def test_ledger_has_the_absent_ids(numbers: list[int]) -> None:
    exchange = Exchange(0)
    for number in numbers:
        exchange.record(trade(number))
    entry = exchange.symbols["BTCUSDT"]
    kept = set(numbers)
    assert (entry.trades, entry.first_trade_id, entry.last_trade_id) == (len(kept), min(kept), max(kept))
    absent = {number for low, high in entry.absent_trade_ids for number in range(low, high + 1)}
    assert absent == set(range(min(kept), max(kept) + 1)) - kept
    assert entry.repeated_frames == len(numbers) - len(kept)


def test_ledger_counts_only_newer_quotes() -> None:
    exchange = Exchange(0)
    for number in (5, 9, 9, 7, 12):
        exchange.record(quote(number))
    entry = exchange.symbols["BTCUSDT"]
    assert (entry.quotes, entry.first_update_id, entry.last_update_id, entry.repeated_frames) == (3, 5, 12, 2)


def test_ledger_without_removes_a_number_from_ranges() -> None:
    assert without([(1, 3), (7, 7)], 2) == [(1, 1), (3, 3), (7, 7)]
    assert without([(1, 3), (7, 7)], 7) == [(1, 3)]


def test_aggregated_quantities_are_written_without_an_exponent() -> None:
    history = TradeHistory()
    history.add(TradeRow(1, "61685.98000000", "0.00000058", 0, buyer_is_maker=True))
    (aggregate,) = history.aggregates(1)
    assert aggregate_json(aggregate, microseconds=False)["q"] == "0.00000058"
