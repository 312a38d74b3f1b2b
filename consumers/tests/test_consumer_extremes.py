"""Values at the bounds of the wire format are stored unchanged, counted once, audited, rebuilt and shown."""

import random
from collections.abc import Callable

import pytest
from consumer_market import quote, trade
from consumer_session import Session
from consumer_support import differences, everything, rows, stored
from psycopg import sql

from marketfeed_consumers.admin import audit, rebuild, retention
from marketfeed_consumers.database.connections import DatabaseConnection, connect
from marketfeed_consumers.database.connections import retry_conflicts as retrying
from marketfeed_consumers.database.dialects import POSTGRESQL
from marketfeed_consumers.planning.plausible_times import EARLIEST_US
from marketfeed_wire import MAX_ID, MAX_TIME_US

pytestmark = pytest.mark.integration
NAMES = (
    "\\N",
    "\\.",
    "a\\tb",
    "%s",
    "';--",
    '"',
    "BTC|USDT",
    "{1,2}",
    "NULL",
    "币安人生USDT",
    "\u00e9",
    "e\u0301",
    "x" * 64,
)
LONG = "9" * 31 + "." + "9" * 32
rng = random.Random(1)  # noqa: S311 - jitter


def test_extremes_names_of_any_characters_are_stored(session: Callable[..., Session], database: str) -> None:
    mine = session()
    for turn in range(2):
        mine.write(
            *(trade(turn, name, venue=venue) for name in NAMES for venue in ("v", "w", name)),
            *(quote(turn, name, venue=venue) for name in NAMES for venue in ("v", "w", name)),
        )
    assert rows(database, "SELECT DISTINCT symbol FROM trades ORDER BY 1") == [(n,) for n in sorted(NAMES)]
    assert stored(database, "trades") == stored(database, "book_tickers") == 2 * 3 * len(NAMES)
    assert differences(database) == {}


@pytest.mark.parametrize(
    "ids",
    [
        [MAX_ID, MAX_ID - 1, 0],
        [0, MAX_ID],
        [MAX_ID - 2, MAX_ID, MAX_ID - 1],
        [5, MAX_ID - 5, 6, 7, MAX_ID, 8],
    ],
)
@pytest.mark.parametrize("times", [[0], [MAX_ID // 1000, 0, 1], [MAX_TIME_US]])
def test_extremes_ids_times_and_numbers_at_their_bounds_are_stored(
    session: Callable[..., Session], database: str, ids: list[int], times: list[int]
) -> None:
    mine = session()
    made = [
        trade(
            i,
            trade_time_us=times[at % len(times)],
            event_time_us=MAX_TIME_US,
            received_time_us=times[at % len(times)],
            price=(LONG, "0." + "0" * 61 + "1", "1.", ".5", "0")[at % 5],
            qty=(LONG, ".1")[at % 2],
        )
        for at, i in enumerate(ids)
    ]
    for one in made:
        mine.write(one, quote(one.trade_id, received_time_us=one.received_time_us, bid_price=LONG))
    mine.write(*made)
    assert stored(database, "trades") == stored(database, "book_tickers") == len(ids)
    assert differences(database) == {}
    before = everything(database)
    assert len(rows(database, "SELECT * FROM candles_1d")) == len(
        {one.trade_time_us // 86_400_000_000 for one in made}
    )
    with _connected(database) as connection:
        report = audit.audit(connection, POSTGRESQL, audit.Scope(), deep=True)
        assert sum(hour.stored for hour in report.hours) == len(ids)
        assert sum(hour.uncounted for hour in report.hours) == 0
        assert sum(hour.unresolved for hour in report.hours) == max(ids) - min(ids) + 1 - len(ids)
    with _connected(database) as connection:
        for _ in rebuild.candles(connection, rebuild.Scope(), _again(connection)):
            pass
        assert everything(database) == before
        limit = retention.Limit(MAX_TIME_US + 1, MAX_TIME_US)
        for _ in retention.expire(connection, "trades", limit, _again(connection), lambda _: None):
            pass
    kept = sorted(
        (one.trade_id,) for one in made if one.trade_time_us < EARLIEST_US or one.trade_id == max(ids)
    )
    assert rows(database, "SELECT trade_id FROM trades ORDER BY 1") == kept
    mine.writer.submit_load([]).result(20)
    mine.write(*made)
    assert rows(database, "SELECT trade_id FROM trades ORDER BY 1") == kept
    assert rows(database, "SELECT sum(trade_count)::int FROM candles_1m") == [(len(ids),)]


@pytest.mark.parametrize("time_us", [MAX_TIME_US, MAX_TIME_US + 1, 2**62, MAX_ID])
def test_extremes_no_time_breaks_a_view(session: Callable[..., Session], database: str, time_us: int) -> None:
    """The database cannot show the largest number as a time, and Python no time after the year 9999."""
    session().write(trade(1), trade(2, trade_time_us=time_us), quote(1), quote(2, received_time_us=time_us))
    assert stored(database, "dead_letters") == (0 if time_us == MAX_TIME_US else 2)
    views = rows(database, "SELECT table_name FROM information_schema.views WHERE table_schema = 'public'")
    assert len(views) >= 6
    with _connected(database) as connection:
        connection.execute("SET TIME ZONE 'Pacific/Kiritimati'")  # the first time zone of a new year
        for (view,) in views:
            assert connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(view))).fetchall()


def _connected(url: str) -> DatabaseConnection:
    return connect(url)[0]


def _again(connection: DatabaseConnection) -> Callable[..., object]:
    return retrying(connection, rng)
