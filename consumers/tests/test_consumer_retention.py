"""Retention: rows that it deletes and keeps, the stored ranges of deleted rows, and its reports.

That no interleaving of it with anything else loses a young trade is in test_consumer_interleavings.py.
"""

import random
import re
from argparse import Namespace
from collections.abc import Callable

import psycopg
import pytest
from consumer_market import BEGIN_US, quote, record, trade
from consumer_session import Session
from consumer_support import differences, rows, stored
from msgspec import structs

from marketfeed_consumers.admin import audit, commands, completeness, retention
from marketfeed_consumers.admin.audit_report import Report
from marketfeed_consumers.admin.retention import Clocks, Limit, RetentionStep
from marketfeed_consumers.admin.row_level_ttl import row_level_ttl
from marketfeed_consumers.database import connections as databases
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.dialects import POSTGRESQL
from marketfeed_consumers.database.tables import dead_letters
from marketfeed_consumers.kafka.decode import batch_of
from marketfeed_consumers.planning.plausible_times import AHEAD_US, EARLIEST_US
from marketfeed_service import logs
from marketfeed_wire import RejectedMessage, encode

pytestmark = pytest.mark.integration
DAY = 86_400_000_000
NOW = BEGIN_US + 100 * DAY
WEEK = Limit(NOW - 7 * DAY, NOW)


def dated(days: float, *ids: int, symbol: str = "BTCUSDT") -> list[object]:
    """Return trades of the given age in days."""
    return [trade(i, symbol, trade_time_us=int(NOW - days * DAY) + i, received_time_us=NOW) for i in ids]


@pytest.fixture
def connected(database: str) -> DatabaseConnection:  # type: ignore[misc]
    connection, _ = databases.connect(database)
    with connection:
        yield connection


@pytest.fixture
def retain(connected: DatabaseConnection) -> Callable[..., list[RetentionStep]]:
    def run(limit: Limit = WEEK, table: str = "trades") -> list[RetentionStep]:
        retry_conflicts = databases.retry_conflicts(connected, random.Random(3))  # noqa: S311 - jitter
        if table == dead_letters.NAME:
            return list(retention.expire_dead_letters(connected, limit, retry_conflicts))
        if table in retention.CONFLICTS.values():
            return list(retention.expire_conflicts(connected, table, limit, retry_conflicts))
        return list(retention.expire(connected, table, limit, retry_conflicts, lambda _: None))

    return run


@pytest.fixture
def audited(database: str) -> Callable[..., Report]:
    def run(**options: object) -> Report:
        connection, _ = databases.connect(database)
        with connection:
            scope = audit.Scope(since_us=options.pop("since_us", None))  # type: ignore[arg-type]
            return audit.audit(connection, POSTGRESQL, scope, now_us=NOW, **options)  # type: ignore[arg-type]

    return run


def ranges(report: Report, *verdicts: str) -> list[tuple[int, int]]:
    return [
        (span.first_id, span.last_id)
        for hour in report.hours
        for span in hour.missing
        if span.resolution in (verdicts or ("unresolved", "rejected"))
    ]


def ids(url: str, symbol: str = "BTCUSDT") -> list[int]:
    return [i for own, i in rows(url, "SELECT symbol, trade_id FROM trades ORDER BY 2") if own == symbol]


def test_retention_keeps_a_gap_unresolved_whose_trades_may_not_have_expired(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    audited: Callable[..., Report],
) -> None:
    """Regression: ids 100 to 4,999 expired with the old ones below; the backfill was skipped as duplicates."""
    mine = session()
    mine.write(*dated(10, *range(100)), *dated(0.001, *range(5000, 5010)))
    assert ranges(audited()) == [(100, 4999)]
    retain()
    assert ids(database) == list(range(5000, 5010))
    for options in ({}, {"deep": True}, {"since_us": NOW - 2 * DAY}):
        report = audited(**options)
        assert (report.is_complete, ranges(report)) == (False, [(100, 4999)])
    mine.write(*dated(1, *range(100, 3000)))
    retain()
    mine.write(*dated(1, *range(3000, 5000)))
    assert ids(database) == list(range(100, 5010))
    assert audited().is_complete
    assert audited(deep=True).is_complete
    assert differences(database).keys() <= {"candles"}


def test_retention_expires_a_gap_between_old_trades_and_stores_late_young_ones(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    audited: Callable[..., Report],
) -> None:
    mine = session()
    mine.write(*dated(10, *range(100), *range(200, 300)), *dated(0, 300))
    assert not audited().is_complete
    retain()
    report = audited()
    assert (report.is_complete, ranges(report, "expired")) == (True, [(100, 199)])
    written = mine.write(*dated(1, *range(100, 150)), *dated(10, *range(150, 200), *range(50))).written
    assert (written.inserted["trades"], written.unverifiable["trades"]) == (100, 50)
    retain()
    assert ids(database) == [*range(100, 150), 300]
    assert audited(deep=True).is_complete


@pytest.mark.parametrize("impossible", [NOW + 3650 * DAY, NOW + 2 * AHEAD_US, 0, NOW // 1000, NOW // 10**6])
def test_retention_ignores_one_row_with_an_impossible_time(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    impossible: int,
) -> None:
    """Regression: a row ten years ahead at a low id silently disabled retention of its symbol."""
    mine = session()
    for symbol in ("GOOD", "ODD"):
        mine.write(*dated(100, *range(1, 50), symbol=symbol), *dated(0, 50, symbol=symbol))
        mine.write(
            *(quote(i, symbol, received_time_us=NOW - 100 * DAY + i) for i in range(1, 50)), quote(50, symbol)
        )
    mine.write(trade(0, "ODD", trade_time_us=impossible), trade(25, "NEW", trade_time_us=impossible))
    mine.write(quote(0, "ODD", received_time_us=impossible))
    steps = [*retain(), *retain(table="book_tickers")]
    assert {(step.table, step.symbol): (step.deleted, step.impossible) for step in steps} == {
        ("trades", "GOOD"): (49, 0),
        ("trades", "NEW"): (0, 1),
        ("trades", "ODD"): (49, 1),
        ("book_tickers", "GOOD"): (49, 0),
        ("book_tickers", "ODD"): (49, 1),
    }
    assert (ids(database, "GOOD"), ids(database, "ODD"), ids(database, "NEW")) == ([50], [0, 50], [25])
    assert stored(database, "book_tickers") == 3


def test_retention_finds_old_rows_behind_many_with_impossible_times(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 5)
    monkeypatch.setattr(retention, "YOUNG_ROWS", 20)
    session().write(
        *(trade(i, trade_time_us=i) for i in range(100)),
        *dated(1, *range(100, 115)),
        *dated(9, *range(115, 200)),
        *dated(1, *range(200, 300)),
        *dated(9, 300, 301),
    )
    steps = retain()
    assert (sum(step.deleted for step in steps), sum(step.impossible for step in steps)) == (85, 100)
    # More young rows than YOUNG_ROWS before it: retention stops there until those are old.
    assert ids(database) == [*range(115), *range(200, 302)]


def test_retention_state_follows_repeated_runs_and_other_limits(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    audited: Callable[..., Report],
) -> None:
    mine = session()
    mine.write(*dated(40, 0, 1), *dated(20, 5, 6), *dated(10, 10, 11), *dated(0, 12))
    month = Limit(NOW - 30 * DAY, NOW)
    assert [step.deleted for step in retain(month)] == [2]
    assert retain(month) == []
    assert ranges(audited()) == [(2, 4), (7, 9)]
    assert [step.deleted for step in retain()] == [4]
    assert (ranges(audited()), ranges(audited(), "expired")) == ([], [(2, 4), (7, 9)])
    retain(month)  # a longer limit: deleted rows stay deleted, missing ids are missing again
    assert ranges(audited()) == [(2, 4), (7, 9)]
    written = mine.write(*dated(20, 5, 6, 7), *dated(10, 8)).written
    assert (written.inserted["trades"], written.unverifiable["trades"]) == (2, 2)
    assert ids(database) == [7, 8, 12]
    assert differences(database).keys() <= {"candles"}


def test_retention_of_everything_keeps_the_newest_row_of_each_symbol(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 7)
    mine = session()
    mine.write(*(trade(i, symbol) for i in range(50) for symbol in ("A", "B")), *(quote(i) for i in range(9)))
    done = retain()
    assert max(one.deleted for one in done) == 7
    assert rows(database, "SELECT symbol, trade_id FROM trades ORDER BY 1") == [("A", 49), ("B", 49)]
    retain(table="book_tickers")
    assert rows(database, "SELECT update_id FROM book_tickers") == [(8,)]
    mine.write(trade(10, "A"), trade(50, "A"))
    assert stored(database, "trades") == 3


def test_retention_that_was_interrupted_continues(
    session: Callable[..., Session],
    database: str,
    connected: DatabaseConnection,
    retain: Callable[..., list[RetentionStep]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 4)
    session().write(*(trade(i) for i in range(0, 60, 2)), *(quote(i) for i in range(50)))
    retry_conflicts = databases.retry_conflicts(connected, random.Random(3))  # noqa: S311 - jitter
    for table in ("trades", "book_tickers"):
        assert next(retention.expire(connected, table, WEEK, retry_conflicts, lambda _: None)).deleted == 4
    state = (
        "SELECT table_name, deleted_rows, finished_time_us >= started_time_us FROM retention_state ORDER BY 1"
    )
    assert rows(database, state) == [("book_tickers", 4, False), ("trades", 4, False)]
    _, retained = completeness.figures(connected, NOW)
    assert [(one.table, one.unfinished) for one in retained] == [("book_tickers", 1), ("trades", 1)]
    for table in ("trades", "book_tickers"):
        retain(table=table)
    assert rows(database, state) == [("book_tickers", 49, True), ("trades", 29, True)]
    assert (stored(database, "trades"), stored(database, "book_tickers")) == (1, 1)


def test_retention_late_quotes_are_stored_or_counted_as_expired(
    session: Callable[..., Session], database: str, retain: Callable[..., list[RetentionStep]]
) -> None:
    """Regression: every quote below the last deleted one counted as a duplicate."""
    mine = session()
    old, young = NOW - 10 * DAY, NOW - DAY
    mine.write(*(quote(i, received_time_us=old) for i in range(0, 40, 2)), quote(50, received_time_us=NOW))
    retain(table="book_tickers")
    written = mine.write(
        *(quote(i, received_time_us=young) for i in (1, 3)), *(quote(i, received_time_us=old) for i in (0, 5)),
        quote(50, received_time_us=NOW),
    ).written  # fmt: skip
    counts = (written.inserted, written.expired, written.duplicates)
    assert [count["book_tickers"] for count in counts] == [2, 2, 1]
    assert rows(database, "SELECT update_id FROM book_tickers ORDER BY 1") == [(1,), (3,), (50,)]


def test_audit_reports_deleted_rows_as_expired_and_not_uncounted(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    audited: Callable[..., Report],
) -> None:
    """Regression: the deep audit counted every expired trade as lost."""
    hour = audit.HOUR_US
    begin = WEEK.before_us - WEEK.before_us % hour
    mine = session()
    for number in range(4):
        mine.write(
            *(
                trade(i, trade_time_us=begin + number * hour + i)
                for i in range(number * 10, number * 10 + 10)
                if i != 24
            )
        )
    retain(Limit(begin + hour + 15, NOW))
    deep = audited(deep=True)
    assert [(one.expired, one.stored, one.uncounted) for one in deep.hours] == [
        (True, 10, 0),
        (True, 10, 0),
        (False, 9, 0),
        (False, 10, 0),
    ]
    assert [one.unresolved for one in deep.hours] == [0, 0, 1, 0]
    with psycopg.connect(database) as other:
        other.execute("DELETE FROM trades WHERE trade_id IN (16, 21, 22)")
    assert [one.uncounted for one in audited(deep=True).hours] == [0, 0, 2, 0]
    retain(Limit(begin + 3 * hour, NOW), "candles_1m")
    assert [one.uncounted for one in audited(deep=True).hours if one.uncounted] == []


def unreadable(trade_id: int) -> bytes:
    """Return an invalid trade with a valid identity."""
    return encode(trade(trade_id)).replace(b'"qty":"', b'"qty":"-')


def test_audit_never_reports_a_rejected_range_as_complete(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    audited: Callable[..., Report],
) -> None:
    """Regression: rejected ids after the stored span were not reported, or were reported as absent."""
    now = [NOW - 3 * DAY]
    mine = session(clock_us=lambda: now[0])
    mine.write(
        *dated(4, *range(20, 30)), unreadable(30), b"{", *(one for i in (31, 33) for one in dated(4, i))
    )
    mine.write(unreadable(34), unreadable(7))
    with psycopg.connect(database) as other:
        other.execute(
            "INSERT INTO trade_gaps (venue, symbol, first_id, last_id, state, missing, absent, proof, "
            "detected_time_us, updated_time_us) VALUES "
            "('binance_us', 'BTCUSDT', 30, 32, 'absent', '[]', '[[30, 32]]', 'aggTrades', 0, 0)"
        )
    for options in ({}, {"deep": True}, {"since_us": NOW - 5 * DAY}):
        report = audited(**options)
        assert ranges(report, "rejected") == [(30, 30), (7, 7), (34, 34)]
        assert (ranges(report, "absent"), report.is_complete) == ([(32, 32)], False)
    # Dead letters of trades that are not stored and may not have expired are kept.
    assert [step.deleted for step in retain(Limit(NOW - DAY, NOW), "dead_letters")] == [1]
    assert ranges(audited(), "rejected") == [(30, 30), (7, 7), (34, 34)]
    # Read again by a release that can decode it: stored, and the dead letter has no effect.
    mine.write(*dated(4, 7, 30, 34))
    assert ranges(audited()) == [(8, 19)]
    assert [step.deleted for step in retain(Limit(NOW - DAY, NOW), "dead_letters")] == [3]


def test_audit_reports_rejected_ids_of_the_newest_id_series(
    database: str, audited: Callable[..., Report]
) -> None:
    """Messages of the rejected topic are stored as dead letters; their ids are missing until they are stored."""
    rejected = RejectedMessage(
        venue="binance_us", symbol="BTCUSDT", stream="trade", trade_id=7, reason="impossible_time", details="1970",
        raw=b"{", received_time_us=NOW, id_series=2,
    )  # fmt: skip
    batch = batch_of([record(encode(rejected), 0, "rejected")], {"rejected": "dead_letters"})
    assert [one.trade for one in batch.dead_letters] == [("binance_us", "BTCUSDT", 2, 7)]
    unknown = structs.replace(rejected, trade_id=None)
    assert (
        batch_of([record(encode(unknown), 0, "rejected")], {"rejected": "dead_letters"}).dead_letters[0].trade
        is None
    )
    with psycopg.connect(database) as other:
        other.execute(
            dead_letters.ADD,
            ["rejected", "", 0, 0, None, b"", "rejected by the worker", NOW, "binance_us", "BTCUSDT", 2, 7],
        )
    report = audited()
    assert (report.is_complete, ranges(report, "rejected")) == (False, [(7, 7)])


def test_retention_of_dead_letters_waits_for_their_trades_to_expire(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    audited: Callable[..., Report],
) -> None:
    mine = session(clock_us=lambda: NOW - 9 * DAY)
    mine.write(*dated(10, 1, 2), unreadable(3))
    assert retain(table="dead_letters") == []
    retain()
    assert audited().is_complete
    assert [step.deleted for step in retain(table="dead_letters")] == [1]


def test_retention_of_dead_letters_keeps_a_young_one_at_the_offset_of_an_old_one(
    session: Callable[..., Session], database: str, retain: Callable[..., list[RetentionStep]]
) -> None:
    session(clock_us=lambda: NOW - 9 * DAY).write(b"junk")
    session(clock_us=lambda: NOW, group="another").write(b"other junk")
    assert [step.deleted for step in retain(table="dead_letters")] == [1]
    assert rows(database, "SELECT kafka_offset, value FROM dead_letters") == [(0, b"other junk")]


def test_retention_of_conflicts_requires_that_all_times_are_old(
    session: Callable[..., Session],
    database: str,
    retain: Callable[..., list[RetentionStep]],
    audited: Callable[..., Report],
) -> None:
    """Regression: they were never deleted: one conflict kept an audit incomplete forever."""
    early = session(clock_us=lambda: NOW - 9 * DAY)
    early.write(*dated(10, 1, 2, 3, 4), *dated(0, 5), trade(6, trade_time_us=7), quote(1), quote(2))
    old, young = NOW - 10 * DAY, NOW
    early.write(
        trade(1, trade_time_us=old, price="1"),  # goes
        trade(2, trade_time_us=young, price="1"),  # the message is young
        trade(5, trade_time_us=old, price="1"),  # the row is young
        trade(6, trade_time_us=old, price="1"),  # the row's time is impossible: the row is kept, too
        quote(1, bid_qty="7", received_time_us=old),  # goes
        quote(2, bid_qty="7", received_time_us=young),
    )
    session(clock_us=lambda: NOW).write(trade(3, trade_time_us=old, price="1"))  # detected only now
    retain()
    assert [step.deleted for step in retain(table="trade_conflicts")] == [1]
    assert [step.deleted for step in retain(table="quote_conflicts")] == [1]
    assert rows(database, "SELECT trade_id FROM trade_conflicts ORDER BY 1") == [(2,), (3,), (5,), (6,)]
    assert rows(database, "SELECT update_id FROM quote_conflicts") == [(2,)]
    assert not audited().is_complete
    assert sum(step.deleted for step in retain(Limit(NOW + DAY // 2, NOW + 7 * DAY), "trade_conflicts")) == 3
    assert sum(step.deleted for step in retain(Limit(NOW + DAY // 2, NOW + 7 * DAY), "quote_conflicts")) == 1
    assert retain(table="trade_conflicts") == []
    assert [(one.table, one.ids) for one in audited().conflicts] == [("trades", 1)]


def test_retention_limit_is_by_the_clock_that_deletes_less() -> None:
    assert Clocks(100 * DAY, 90 * DAY).limit(7 * DAY) == Limit(83 * DAY, 100 * DAY)
    assert Clocks(90 * DAY, 100 * DAY).limit(7 * DAY) == Limit(83 * DAY, 100 * DAY)


def test_retention_command_lists_rows_with_impossible_times_and_returns_3(
    session: Callable[..., Session],
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = session()
    mine.write(*(trade(i, symbol) for i in range(10) for symbol in ("A", "B")))
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # keep the test's logging
    options = dict.fromkeys(
        ("trades_days", "book_tickers_days", "candles_1m_days", "dead_letters_days"), 1000
    )
    assert commands.retain(Namespace(**options)) == 0
    mine.write(trade(10, "B", trade_time_us=5), trade(11, "B", trade_time_us=2**50 * 10), trade(12, "B"))
    assert commands.retain(Namespace(**options)) == commands.IMPOSSIBLE_TIMES
    shown = capsys.readouterr()
    assert "trades: 2 rows of binance_us B have an impossible time and were kept" in shown.err
    assert shown.out.count("trades: rows deleted: 0") == 2
    assert shown.out.count("trade_conflicts: rows deleted: 0") == 2
    assert shown.out.count("quote_conflicts: rows deleted: 0") == 2


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("trades", "trade_time_us"),
        ("book_tickers", "received_time_us"),
        ("candles_1m", "open_time_us"),
        ("dead_letters", "stored_time_us"),
        ("trade_conflicts", "trade_time_us, stored_trade_time_us, noticed_time_us"),
        ("quote_conflicts", "received_time_us, noticed_time_us"),
    ],
)
def test_retention_ttl_expires_a_row_by_its_own_time(database: str, table: str, column: str) -> None:
    """The expression is evaluated by PostgreSQL here, by CockroachDB in production."""
    (quoted,) = re.findall(r"ttl_expiration_expression = '((?:[^']|'')*)'", row_level_ttl(table, 7))
    expires, columns = quoted.replace("''", "'"), column.count(",") + 1
    query = (  # of 2009, and of an impossible time, which never expires
        f"SELECT extract(epoch FROM {expires})::bigint FROM (VALUES ({', '.join([str(EARLIEST_US)] * columns)}), "  # noqa: S608
        f"({', '.join(['5'] * columns)})) AS t ({column})"
    )
    assert rows(database, query) == [(EARLIEST_US // 10**6 + 7 * 86_400,), (None,)]
