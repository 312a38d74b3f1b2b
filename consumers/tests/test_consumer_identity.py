"""A message with a stored id is a duplicate only with the same content; otherwise it is a conflict, and stored.

Trades are compared by time, price, quantity and side, numbers by value; quotes by prices and quantities. Ids of another
series are other ids.
"""

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from consumer_market import BEGIN_US, quote, record, trade
from consumer_session import TABLES, Session
from consumer_support import differences, rows
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from marketfeed_consumers.admin import audit
from marketfeed_consumers.database.connections import connect
from marketfeed_consumers.kafka.decode import batch_of
from marketfeed_consumers.planning.conflicts import QUIET_SECONDS, Conflict, ConflictLog
from marketfeed_consumers.planning.plan import RangesKey, plan, ranges_keys
from marketfeed_consumers.planning.recent_trades import RecentTrades
from marketfeed_consumers.planning.stored_ranges import EMPTY_RANGES
from marketfeed_wire import BookTicker, Trade, same_quote, same_trade

OTHER = {
    "another price": {"price": "1"},
    "another quantity": {"qty": "9"},
    "the other side": {"buyer_is_maker": False},
    "another time": {"trade_time_us": BEGIN_US + 77_000_001},
}
SAME = {
    "word for word": {},
    "a backfilled copy": {"origin": "backfill", "event_time_us": None, "received_time_us": BEGIN_US * 2},
    "another number of zeros": {"price": "60010.030", "qty": "0.0000000400"},
    "a time in milliseconds": {"trade_time_us": BEGIN_US + 1_500_000},
}
ONE = trade(3, trade_time_us=BEGIN_US + 1_500_123)


def outcome(result: Any) -> tuple[int, int, int, int]:
    """Return the rows, duplicates, conflicts and unverifiable messages of a result."""
    written = result.written
    return (
        sum(written.inserted.values()),
        sum(written.duplicates.values()),
        len(written.conflicts),
        sum(written.unverifiable.values()),
    )


def one_with(**fields: Any) -> Trade:
    held = {name: getattr(ONE, name) for name in Trade.__struct_fields__}
    return Trade(**{**held, **fields})


@pytest.mark.integration
@pytest.mark.parametrize("fields", SAME.values(), ids=SAME)
def test_identity_copy_with_the_same_content_is_a_duplicate(session: Callable[..., Session], fields) -> None:
    mine = session()
    mine.write(ONE)
    assert outcome(mine.write(one_with(**fields))) == (0, 1, 0, 0)
    assert outcome(mine.write(trade(9), one_with(**fields), trade(9))) == (1, 2, 0, 0)


@pytest.mark.integration
@pytest.mark.parametrize("fields", OTHER.values(), ids=OTHER)
def test_identity_copy_with_other_content_is_a_conflict(
    session: Callable[..., Session], database: str, fields
) -> None:
    """In one batch, in the next, and after a restart; the stored row does not change."""
    mine = session()
    assert outcome(mine.write(ONE, one_with(**fields))) == (1, 0, 1, 0)
    assert outcome(mine.write(one_with(**fields))) == (0, 0, 1, 0)
    mine.acquire_leases()  # with empty stored ranges
    assert outcome(mine.write(one_with(**fields), trade(9), one_with(**fields))) == (1, 0, 2, 0)
    kept = "SELECT price, qty, buyer_is_maker, trade_time_us, messages FROM trade_conflicts"
    ((price, qty, side, time_us, messages),) = rows(database, kept)
    received = one_with(**fields)
    assert (float(price), float(qty)) == (float(received.price), float(received.qty))
    assert (side, time_us, messages) == (received.buyer_is_maker, received.trade_time_us, 4)
    stored = "SELECT stored_trade_time_us, stored_buyer_is_maker FROM trade_conflicts"
    assert rows(database, stored) == [(ONE.trade_time_us, ONE.buyer_is_maker)]
    assert rows(database, "SELECT trade_time_us FROM trades WHERE trade_id = 3") == [(ONE.trade_time_us,)]
    assert differences(database) == {}


@pytest.mark.integration
def test_identity_duplicate_of_an_old_trade_is_looked_up(session: Callable[..., Session]) -> None:
    mine = session()
    mine.write(*(trade(i) for i in range(1000)))
    recent = RecentTrades(100)
    batch = mine.batch([trade(3), trade(4, price="1")])
    known = mine.writer.submit_load(ranges_keys(batch)).result(20)
    made = plan(batch, known, mine.positions, recent=recent)
    result = mine.writer.submit_write(made, mine.owner).result(30)
    assert outcome(result) == (0, 1, 1, 0)


@pytest.mark.integration
def test_identity_duplicate_of_an_expired_row_is_unverifiable(
    session: Callable[..., Session], database: str
) -> None:
    mine = session()
    mine.write(*(trade(i) for i in range(10)))
    with psycopg.connect(database) as other:
        other.execute("DELETE FROM trades WHERE trade_id < 5")
    assert outcome(mine.write(trade(2), trade(3, price="1"), trade(7))) == (0, 1, 0, 2)


@pytest.mark.integration
def test_identity_quote_with_other_prices_is_a_conflict(
    session: Callable[..., Session], database: str
) -> None:
    mine = session()
    mine.write(quote(5), quote(6))
    result = mine.write(quote(5, bid_price="1"), quote(6, bid_qty="1.250"), quote(7), quote(7, ask_qty="3"))
    assert outcome(result) == (1, 1, 2, 0)
    found = "SELECT update_id, bid_price, stored_bid_price FROM quote_conflicts ORDER BY 1"
    assert [row[0] for row in rows(database, found)] == [5, 7]


@pytest.mark.integration
def test_identity_quotes_of_one_batch_are_compared_with_stored_rows(
    session: Callable[..., Session], database: str
) -> None:
    """Regression of a session in virtual time: the first of a batch may differ from the stored row of its id."""
    mine = session()
    mine.write(quote(5), quote(6))
    twice = [quote(5, bid_qty="9"), quote(5, bid_qty="9"), quote(6, bid_qty="9"), quote(6)]
    assert outcome(mine.write(*twice)) == (0, 1, 3, 0)
    found = "SELECT update_id, bid_qty, stored_bid_qty, messages FROM quote_conflicts ORDER BY 1"
    assert [tuple(map(float, row)) for row in rows(database, found)] == [(5, 9, 1.25, 2), (6, 9, 1.25, 1)]


@pytest.mark.integration
def test_identity_includes_the_id_series(session: Callable[..., Session], database: str) -> None:
    """Two series of one symbol in one batch: each has its own rows, high-water mark, missing ranges and candles."""
    mine = session()
    first = [trade(i) for i in range(100, 120) if i != 107]
    second = [trade(i, id_series=1, price="2") for i in range(90, 130) if i != 111]
    result = mine.write(*first, *second, *first, *(quote(i) for i in (5, 6)), quote(2, id_series=1))
    assert outcome(result) == (19 + 39 + 3, 19, 0, 0)
    spans = "SELECT id_series, first_id, last_id FROM high_water_marks WHERE table_name = 'trades' ORDER BY 1"
    assert rows(database, spans) == [(0, 100, 119), (1, 90, 129)]
    missing = "SELECT id_series, first_trade_id, last_trade_id FROM missing_trades ORDER BY 1"
    assert rows(database, missing) == [(0, 107, 107), (1, 111, 111)]
    assert rows(database, "SELECT id_series, update_id FROM top_of_book") == [(1, 2)]
    assert rows(database, "SELECT close, last_trade_id FROM candles_1d") == [(2, 129)]
    assert differences(database) == {}


def test_identity_recent_trades_are_bounded() -> None:
    recent = RecentTrades(100)
    key = ("v", "S", 0)
    for start in range(0, 1000, 10):
        recent.add(key, [trade(i) for i in range(start, start + 10) if i % 10 != 5])
    everything = range(1000)
    held = recent.held(key, everything)
    assert 90 <= len(held) <= 100
    assert held[999] == trade(999)
    assert {3, 995}.isdisjoint(held)
    assert set(recent.held(key, [990])) == set(range(990, 1000)) - {995}
    assert recent.held(("v", "S", 1), everything) == {}
    recent.clear()
    assert recent.held(key, everything) == {}


def test_identity_conflicts_are_logged_once_per_episode() -> None:
    now = [0.0]
    conflicts = ConflictLog(lambda: now[0])
    with capture_logs() as logged:
        for _ in range(50):
            conflicts.note([Conflict(one_with(price="1"), ONE)])
            conflicts.look()
        now[0] = QUIET_SECONDS
        conflicts.look()
        conflicts.look()
    assert [line["event"] for line in logged] == [
        "conflicting messages received",
        "conflicting messages ended",
    ]
    assert logged[1]["occurrences"] == 50


variants = st.sampled_from(
    [{}, {"price": "7"}, {"qty": "7.0"}, {"qty": "7.00"}, {"origin": "backfill"}, {"buyer_is_maker": True}]
)
sent = st.lists(
    st.builds(lambda i, s, f: trade(i, id_series=s, **f), st.integers(0, 12), st.integers(0, 2), variants),
    max_size=40,
)


@given(sent, st.lists(st.integers(1, 9)), st.integers(1, 30))
def test_identity_of_trades_matches_the_definition_in_any_interleaving(
    trades: list[Trade], sizes: list[int], most: int
) -> None:
    """The first message of an id is stored; a later one with the same content is a duplicate, any other a conflict."""
    recent, known, stored = RecentTrades(most), dict[RangesKey, Any](), dict[tuple[int, int], Trade]()
    duplicates, conflicts = 0, 0
    rng = random.Random(len(trades))  # noqa: S311 - when a process starts again
    records = [record(one, offset) for offset, one in enumerate(trades)]
    while records:
        size = sizes.pop() if sizes else 5
        batch = batch_of(records[:size], TABLES)
        records = records[size:]
        if rng.random() < 0.2:
            recent.clear()
        marks = {key: known.get(key, EMPTY_RANGES) for key in ranges_keys(batch)}
        made = plan(batch, marks, {("trades", 0): 0}, recent=recent)
        known |= made.after()
        for key, new in made.trades.new.items():
            for one in new:
                assert stored.setdefault((key[2], one.trade_id), one) is one
        for key, unknown in made.trades.possible_duplicates.items():
            for one in unknown:
                same = same_trade(stored[key[2], one.trade_id], one)
                duplicates, conflicts = duplicates + same, conflicts + (not same)
        assert all(
            stored[c.received.id_series, c.received.trade_id] == c.stored for c in made.trades.conflicts
        )
        duplicates, conflicts = duplicates + made.trades.duplicates, conflicts + len(made.trades.conflicts)
    first: dict[tuple[int, int], Trade] = {}
    expected = [0, 0]
    for one in trades:
        held = first.setdefault((one.id_series, one.trade_id), one)
        if held is not one:
            expected[not same_trade(held, one)] += 1
    assert stored == first
    assert [duplicates, conflicts] == expected


@example([quote(0), quote(0), quote(0, bid_price="2"), quote(0, bid_price="2")], [2], False)
@given(
    st.lists(st.builds(quote, st.integers(0, 5), bid_price=st.sampled_from(["1", "1.0", "2"])), max_size=40),
    st.lists(st.integers(1, 9)),
    st.booleans(),
)
def test_identity_of_quotes_matches_the_definition_in_any_interleaving(
    quotes: list[BookTicker], sizes: list[int], verify_rows: bool
) -> None:
    known, stored = dict[RangesKey, Any](), dict[int, BookTicker]()
    counted = [0, 0]
    records = [record(one, offset, "book") for offset, one in enumerate(quotes)]
    while records:
        size = sizes.pop() if sizes else 5
        batch = batch_of(records[:size], TABLES)
        records = records[size:]
        marks = {key: known.get(key, EMPTY_RANGES) for key in ranges_keys(batch)}
        rows_of = plan(batch, marks, {("book", 0): 0}, verify_rows=verify_rows).quotes
        known |= plan(batch, marks, {("book", 0): 0}, verify_rows=verify_rows).after()
        counted[0] += rows_of.duplicates
        counted[1] += len(rows_of.conflicts)
        new = [one for own in rows_of.new.values() for one in own]
        assert not stored.keys() & {one.update_id for one in new}
        unverified = [one for own in rows_of.unverified.values() for one in own]
        compared = [one for one in unverified if one.update_id in stored]
        stored |= {one.update_id: one for one in [*new, *unverified] if one.update_id not in stored}
        for one in [*compared, *(one for own in rows_of.possible_duplicates.values() for one in own)]:
            counted[not same_quote(stored[one.update_id], one)] += 1
        assert all(stored[c.received.update_id] == c.stored for c in rows_of.conflicts)
    first: dict[int, BookTicker] = {}
    expected = [0, 0]
    for one in quotes:
        held = first.setdefault(one.update_id, one)
        if held is not one:
            expected[not same_quote(held, one)] += 1
    assert stored == first
    assert counted == expected


@pytest.mark.integration
def test_identity_conflicts_are_reported_by_the_audit(session: Callable[..., Session], database: str) -> None:
    mine = session()
    mine.write(
        trade(1), trade(2), trade(2, price="1"), quote(1), quote(1, bid_qty="7"), trade(1, id_series=1)
    )
    connection, dialect = connect(database)
    with connection:
        found = audit.audit(connection, dialect, audit.Scope())
    assert not found.is_complete
    assert [(each.table, each.ids, each.first_id, each.messages) for each in found.conflicts] == [
        ("trades", 1, 2, 1),
        ("book_tickers", 1, 1, 1),
    ]
    assert [hour.id_series for hour in found.hours] == [0, 1]
    assert not any(hour.unresolved for hour in found.hours)
