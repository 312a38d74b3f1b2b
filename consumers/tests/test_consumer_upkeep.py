"""Audit, rebuild and reset-offsets."""

import argparse
import random
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise

import psycopg
import pytest
from consumer_market import BEGIN_US, quote, trade
from consumer_session import Session
from consumer_support import differences, everything, rows
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_consumers.admin import audit, offsets, rebuild, retention
from marketfeed_consumers.admin.commands import time_us
from marketfeed_consumers.admin.resolution import Range, resolved_ranges
from marketfeed_consumers.database import connections as databases
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.dialects import POSTGRESQL
from marketfeed_service.errors import SettingsError

HOUR = audit.HOUR_US
rng = random.Random(3)  # noqa: S311 - jitter


def hourly(trade_id: int, hour: int, **fields: object) -> object:
    return trade(trade_id, trade_time_us=BEGIN_US - BEGIN_US % HOUR + hour * HOUR + trade_id, **fields)


@pytest.fixture
def connected(database: str) -> DatabaseConnection:  # type: ignore[misc]
    connection, _ = databases.connect(database)
    with connection:
        yield connection


spans = st.tuples(st.integers(0, 50), st.integers(0, 10)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(spans, st.lists(spans.map(lambda span: (*span, "proof")), max_size=5))
def test_audit_splits_a_missing_range_into_absent_and_unresolved_ids(
    asked: tuple[int, int], proven: list[tuple[int, int, str]]
) -> None:
    ranges = resolved_ranges(*asked, proven)
    assert [i for one in ranges for i in range(one.first_id, one.last_id + 1)] == list(
        range(asked[0], asked[1] + 1)
    )
    absent = {i for first, last, _ in proven for i in range(first, last + 1)}
    for one in ranges:
        for i in range(one.first_id, one.last_id + 1):
            assert (one.resolution == "absent") == (i in absent)
            assert one.proof == ("proof" if i in absent else "")


def test_audit_reports_stored_and_missing_ids_by_hour(
    session: Callable[..., Session], database: str, connected: DatabaseConnection
) -> None:
    mine = session()
    mine.write(*(hourly(i, 0) for i in [1, 2, 3, 6]), *(hourly(i, 1) for i in [7, 10]))
    mine.write(*(hourly(i, 3) for i in [14, 15]))
    with psycopg.connect(database) as other:
        other.execute(
            "INSERT INTO trade_gaps VALUES "
            "('binance_us', 'BTCUSDT', 4, 5, 'absent', '[]', '[[4, 5]]', 'historicalTrades', 0, 0), "
            "('binance_us', 'BTCUSDT', 8, 9, 'unresolved', '[[9, 9]]', '[[8, 8]]', 'aggTrades', 0, 0)"
        )
    report = audit.audit(connected, POSTGRESQL, audit.Scope())
    assert [(hour.first_id, hour.last_id, hour.stored, hour.unresolved) for hour in report.hours] == [
        (1, 6, 4, 0),
        (7, 10, 2, 1 + 3),
        (14, 15, 2, 0),
    ]
    assert report.hours[0].missing == (Range(4, 5, "absent", "historicalTrades"),)
    assert report.hours[0].completeness_percent == 100.0
    assert report.hours[1].missing == (
        Range(8, 8, "absent", "aggTrades"),
        Range(9, 9, "unresolved", ""),
        Range(11, 13, "unresolved", ""),
    )
    assert report.hours[1].completeness_percent == pytest.approx(100 * 2 / 6)
    assert not report.is_complete
    first_hour = audit.Scope(until_us=report.hours[0].hour_us + 1)
    assert audit.audit(connected, POSTGRESQL, first_hour).is_complete
    assert audit.audit(connected, POSTGRESQL, audit.Scope(symbol="OTHER")).hours == ()


@pytest.mark.parametrize("since", [HOUR, 2 * HOUR, 3 * HOUR, 2 * HOUR + 5])
def test_audit_of_some_hours_includes_ranges_that_begin_before(
    session: Callable[..., Session], connected: DatabaseConnection, since: int
) -> None:
    """Regression: a gap from hour 0 to hour 3 was not reported for the hours in between."""
    session().write(hourly(1, 0), hourly(2, 0), hourly(9, 3), hourly(10, 4))
    begin = BEGIN_US - BEGIN_US % HOUR
    report = audit.audit(connected, POSTGRESQL, audit.Scope(since_us=begin + since))
    assert not report.is_complete
    assert [hour.missing for hour in report.hours if hour.missing] == [(Range(3, 8, "unresolved", ""),)]
    assert report.hours[0].hour_us == begin + since - since % HOUR
    one_hour = audit.Scope(since_us=begin + since, until_us=begin + since + 1)
    assert not audit.audit(connected, POSTGRESQL, one_hour).is_complete
    assert audit.audit(connected, POSTGRESQL, audit.Scope(since_us=begin + 4 * HOUR)).is_complete


def test_audit_deep_finds_uncounted_and_lost_rows(
    session: Callable[..., Session], database: str, connected: DatabaseConnection
) -> None:
    mine = session()
    mine.write(*(hourly(i, 0) for i in range(10)), *(hourly(i, 1) for i in range(10, 20)))
    assert audit.audit(connected, POSTGRESQL, audit.Scope(), deep=True).is_complete
    with psycopg.connect(database) as other:
        other.execute("DELETE FROM trades WHERE trade_id IN (3, 4, 15)")
    assert audit.audit(connected, POSTGRESQL, audit.Scope()).is_complete
    deep = audit.audit(connected, POSTGRESQL, audit.Scope(), deep=True)
    assert [hour.uncounted for hour in deep.hours] == [2, 1]
    assert not deep.is_complete


def test_audit_deep_counts_rows_without_candles(
    session: Callable[..., Session], database: str, connected: DatabaseConnection
) -> None:
    """Regression: it counted between the first and the last candle only, and skipped symbols without any."""
    session().write(*(hourly(i, i // 10) for i in range(30)), *(hourly(i, 0, symbol="B") for i in range(5)))
    with psycopg.connect(database) as other:
        other.execute("DELETE FROM candles_1m WHERE symbol = 'B' OR first_trade_id IN (0, 20)")
    deep = audit.audit(connected, POSTGRESQL, audit.Scope(), deep=True)
    assert [(hour.symbol, hour.uncounted) for hour in deep.hours] == [
        ("B", 5),
        ("BTCUSDT", 10),
        ("BTCUSDT", 0),
        ("BTCUSDT", 10),
    ]


def test_audit_distinguishes_nothing_stored_from_an_idle_hour(
    session: Callable[..., Session], connected: DatabaseConnection
) -> None:
    session().write(*(hourly(i, 0) for i in range(10)))
    long_ago = audit.Scope(until_us=HOUR)
    assert audit.audit(connected, POSTGRESQL, long_ago).is_complete
    misspelt = audit.audit(connected, POSTGRESQL, audit.Scope(symbol="btcusdt"))
    assert (misspelt.hours, misspelt.is_complete) == ((), False)


def test_rebuild_keeps_candles_whose_trades_expire_concurrently(
    session: Callable[..., Session],
    database: str,
    connected: DatabaseConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: it read the limit before it began, and computed candles of the remaining trades."""
    monkeypatch.setattr(rebuild, "CHUNK_IDS", 1)
    session().write(*(trade(i, trade_time_us=BEGIN_US + i * 10_000_000) for i in range(30)))
    candles = rows(database, "SELECT * FROM candles_1m ORDER BY open_time_us")
    retry_conflicts = database_again(connected)
    rebuilding = rebuild.candles(connected, rebuild.Scope(), retry_conflicts)
    next(rebuilding)
    other, _ = databases.connect(database)
    with other:
        list(retention.expire(other, "trades", old(BEGIN_US + 150_000_000), database_again(other)))
    list(rebuilding)
    assert rows(database, "SELECT * FROM candles_1m ORDER BY open_time_us") == candles


def old(before_us: int) -> retention.Limit:
    return retention.Limit(before_us, BEGIN_US + 30 * 24 * HOUR)


def database_again(connection: DatabaseConnection) -> Callable[..., object]:
    return databases.retry_conflicts(connection, rng)


def test_rebuild_gives_the_same_table(
    session: Callable[..., Session],
    database: str,
    connected: DatabaseConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebuild, "CHUNK_IDS", 100)
    mine = session()
    mine.write(
        *(trade(i, s) for i in range(700) if i % 13 for s in ("A", "B")),
        *(quote(i, s) for i in range(9) for s in "AB"),
    )
    before = everything(database)
    with psycopg.connect(database) as other:
        other.execute("UPDATE candles_1m SET volume = 0, trade_count = 1")
        other.execute("DELETE FROM candles_1m WHERE symbol = 'A' AND first_trade_id < 200")
        other.execute("UPDATE top_of_book SET update_id = 1")
    made = list(rebuild.candles(connected, rebuild.Scope(), database_again(connected)))
    assert len(made) > 10
    list(rebuild.tops(connected, rebuild.Scope(), database_again(connected)))
    assert everything(database) == before
    assert differences(database) == {}


def test_rebuild_changes_only_the_selected_scope(
    session: Callable[..., Session], database: str, connected: DatabaseConnection
) -> None:
    mine = session()
    mine.write(*(trade(i, symbol) for i in range(500) for symbol in ("A", "B")))
    with psycopg.connect(database) as other:
        other.execute("UPDATE candles_1m SET volume = 0")
    since = trade(250).trade_time_us
    list(rebuild.candles(connected, rebuild.Scope(symbol="A", since_us=since), database_again(connected)))
    left = rows(
        database, "SELECT symbol, max(last_trade_id) FROM candles_1m WHERE volume = 0 GROUP BY 1 ORDER BY 1"
    )
    assert [symbol for symbol, _ in left] == ["A", "B"]
    assert left[0][1] < 250 <= left[0][1] + 120


@given(st.lists(st.tuples(st.integers(1, 300_000), st.integers(0, 10**9)), max_size=30))
def test_rebuild_chunks_cover_all_trades_within_their_size(counts: list[tuple[int, int]]) -> None:
    minutes = [(number * 60, count, low, low + count) for number, (count, low) in enumerate(counts)]
    found = rebuild.chunks(minutes, -10, 10_000)
    assert found[0].from_us == -10
    assert found[-1].to_us == 10_000
    assert all(first.to_us == second.from_us for first, second in pairwise(found))
    for chunk in found:
        own = [minute for minute in minutes if chunk.from_us <= minute[0] < chunk.to_us]
        assert len(own) <= 1 or sum(count for _, count, _, _ in own) <= rebuild.CHUNK_IDS
        assert all(chunk.first_id <= low <= high <= chunk.last_id for _, _, low, high in own)


def test_rebuild_keeps_concurrent_inserts_of_a_consumer(
    session: Callable[..., Session],
    database: str,
    connected: DatabaseConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a chunk was computed: late trades on both sides of its ids, and in a new minute."""
    monkeypatch.setattr(rebuild, "CHUNK_IDS", 1)
    mine = session()
    times = {i: BEGIN_US - BEGIN_US % 60_000_000 + i * 10_000_000 for i in range(40)}
    late = {12, 17, 18, 19, 20, 21, 22, 23, 24, 29}
    mine.write(*(trade(i, trade_time_us=times[i]) for i in times if i not in late))
    rebuilding = rebuild.candles(connected, rebuild.Scope(), database_again(connected))
    next(rebuilding)
    mine.write(*(trade(i, trade_time_us=times[i]) for i in late))
    list(rebuilding)
    assert differences(database) == {}


@pytest.mark.parametrize(("to", "expected"), [("earliest", 5), ("latest", 9), ("7", 7), ("9", 9), ("5", 5)])
def test_reset_offsets_accepts_a_word_or_number(to: str, expected: int) -> None:
    assert offsets.target(to, "t", 0, 5, 9) == expected


@pytest.mark.parametrize("to", ["4", "10", "-1", "first", ""])
def test_reset_offsets_rejects_an_offset_outside_the_log(to: str) -> None:
    with pytest.raises(SettingsError, match=r"--to .*t\[0\] has: 5 to 9"):
        offsets.target(to, "t", 0, 5, 9)


def test_command_times_are_utc() -> None:
    expected = round(datetime(2026, 1, 31, tzinfo=UTC).timestamp() * 1e6)
    assert (
        time_us("2026-01-31") == time_us("2026-01-31T00:00Z") == time_us("2026-01-31T01:00+01:00") == expected
    )
    with pytest.raises(argparse.ArgumentTypeError, match="yesterday"):
        time_us("yesterday")
