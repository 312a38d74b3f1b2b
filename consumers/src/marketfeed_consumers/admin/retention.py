"""Retention: deletion of old rows in small steps, concurrently with writers.

By bounded deletes and not by dropping partitions: a table can only be partitioned by columns of its key, and no time is
part of a key (a duplicate with another time must have the same key).

A row expires by its own time, never by its id or adjacent rows: a row with an impossible time is kept and counted, and
does not affect others. The stored ranges (high_water_marks, missing_trades) do not change: a deleted trade is a
duplicate when it is read again, and a missing one is still missing and stored whenever it arrives. So writers are not
affected, and READ COMMITTED is sufficient; the state is in retention_state, for the audit, `rebuild` and the metrics.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from marketfeed_consumers.database.connections import DatabaseConnection, Retry
from marketfeed_consumers.database.tables import (
    book_tickers,
    candles_1m,
    dead_letters,
    quote_conflicts,
    retention_state,
    trade_conflicts,
    trades,
)
from marketfeed_consumers.planning.plausible_times import AHEAD_US, EARLIEST_US
from marketfeed_consumers.planning.stored_ranges import Key

STEP_ROWS: Final = 5_000
"""Maximum rows that one transaction reads and deletes: a few milliseconds."""
YOUNG_ROWS: Final = 50_000
"""After this many consecutive rows that have not expired, a symbol is assumed to have no further old rows."""

END: Final = -1
"""Instead of an id: no more rows."""

_RESTS: Final = 3.0
"""Pause after a step, as a multiple of its duration: at most a quarter of a core is used."""

COLUMNS: Final = {
    trades.NAME: (trades.ID, "trade_time_us"),
    book_tickers.NAME: (book_tickers.ID, "received_time_us"),
    candles_1m.NAME: ("open_time_us", "open_time_us"),
}
"""Table -> its id column and the time column by which rows expire."""


class Limit(NamedTuple):
    """The retention limit.

    Attributes:
        before_us: older rows are deleted.
        now_us: time of the run: a row time far ahead of it is impossible.
    """

    before_us: int
    now_us: int


class RetentionStep(NamedTuple):
    """The result of one transaction: deleted rows, and rows kept because their times are impossible."""

    table: str
    venue: str
    symbol: str
    id_series: int
    deleted: int
    impossible: int = 0


class Clocks(NamedTuple):
    """The clocks of this machine and of the database, in microseconds since the Unix epoch."""

    here_us: int
    there_us: int

    def limit(self, kept_us: int) -> Limit:
        """Return the limit for rows kept for `kept_us`, by the clock that deletes less."""
        return Limit(min(self) - kept_us, max(self))


def clocks(connection: DatabaseConnection, here_us: int) -> Clocks:
    """Return `here_us` and the database's clock; ends the transaction."""
    row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
    connection.rollback()
    return Clocks(here_us, row[0] if row else here_us)


class _Rows:
    """The rows of one symbol and id series in `table`, in the order of its id column."""

    def __init__(self, table: str, key: Key) -> None:
        venue, symbol, id_series = key
        self.where: dict[str, Any] = {
            "table": table, "venue": venue, "symbol": symbol, "id_series": id_series
        }  # fmt: skip
        id_name, time_name = COLUMNS[table]
        self._names = {
            "table": sql.Identifier(table),
            "id": sql.Identifier(id_name),
            "time": sql.Identifier(time_name),
            "own": sql.SQL("venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s"),
        }

    def execute(
        self, connection: DatabaseConnection, query: str, **values: Any
    ) -> "psycopg.Cursor[tuple[Any, ...]]":
        """Execute `query` with {table}, {id} and {time} replaced by names, {own} by the condition of these rows."""
        return connection.execute(sql.SQL(query).format(**self._names), {**self.where, **values})


_SYMBOLS: Final = """
SELECT venue, symbol, id_series, last_id FROM high_water_marks
WHERE table_name = %s AND first_id <= last_id ORDER BY venue, symbol, id_series
"""


def expire(
    connection: DatabaseConnection,
    table: str,
    limit: Limit,
    retry: Retry,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[RetentionStep]:
    """Delete the rows of `table` that are older than the limit, symbol by symbol; yields each step.

    The newest row of a symbol is kept, for the top of the book.

    Args:
        connection: an idle connection; set to READ COMMITTED.
        table: "trades", "book_tickers" or "candles_1m".
        limit: the retention limit.
        retry: see `Retry`.
        sleep: pauses between the steps.
    """
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    marked = trades.NAME if table == candles_1m.NAME else table
    for *key, last_id in retry(partial(_symbols, connection, marked)):
        rows = _Rows(table, (key[0], key[1], key[2]))
        if table == candles_1m.NAME:
            last_id = limit.before_us  # a candle's id is its time; no newest candle is kept
        retry(partial(_note, connection, rows, retention_state.BEGIN, limit))
        yield from _sweep(connection, rows, last_id, limit, retry, sleep)
        retry(partial(_note, connection, rows, retention_state.END, limit))


def _symbols(connection: DatabaseConnection, table: str) -> list[tuple[Any, ...]]:
    found = connection.execute(_SYMBOLS, [table]).fetchall()
    connection.rollback()
    return found


def _note(connection: DatabaseConnection, rows: _Rows, statement: str, limit: Limit) -> None:
    connection.execute(statement, {**rows.where, **limit._asdict()})
    connection.commit()


_WINDOW: Final = """
SELECT max(id), count(*), count(*) FILTER (WHERE time_us >= %(earliest_us)s AND time_us < %(before_us)s),
    count(*) FILTER (WHERE time_us < %(earliest_us)s OR time_us > %(latest_us)s)
FROM (
    SELECT {id} AS id, {time} AS time_us FROM {table} WHERE {own} AND {id} >= %(from_id)s ORDER BY {id} LIMIT %(limit)s
) AS rows
"""
_DELETE: Final = """
DELETE FROM {table} WHERE {own} AND {id} >= %(from_id)s AND {id} <= %(to_id)s AND {id} < %(below_id)s
    AND {time} >= %(earliest_us)s AND {time} < %(before_us)s
"""


def _sweep(
    connection: DatabaseConnection,
    rows: _Rows,
    below_id: int,
    limit: Limit,
    retry: Retry,
    sleep: Callable[[float], None],
) -> Iterator[RetentionStep]:
    """Delete the old rows below `below_id`, until only rows within the limit follow.

    Each step begins where the previous one ended: index entries of deleted rows remain until vacuum, and scanning them
    in each step would cost more than the deletes.
    """
    bounds = {
        "earliest_us": EARLIEST_US, "before_us": limit.before_us, "latest_us": limit.now_us + AHEAD_US
    }  # fmt: skip

    def step(from_id: int) -> tuple[int, int, int, int, int]:
        window = rows.execute(connection, _WINDOW, from_id=from_id, limit=STEP_ROWS, **bounds).fetchone()
        last_id, count, old, impossible = window or (0, 0, 0, 0)
        deleted = 0
        if old:
            deleted = rows.execute(
                connection, _DELETE, from_id=from_id, to_id=last_id, below_id=below_id, **bounds
            ).rowcount
        if deleted or impossible:
            rows.execute(connection, retention_state.ADD, deleted=deleted, impossible=impossible)
        connection.commit()
        return last_id if count == STEP_ROWS else END, deleted, impossible, old, count - old - impossible

    from_id, young_rows = 0, 0
    while young_rows < YOUNG_ROWS:
        began = time.monotonic()
        last_id, deleted, impossible, old, young = retry(partial(step, from_id))
        if deleted or impossible:
            yield RetentionStep(**rows.where, deleted=deleted, impossible=impossible)
        if last_id == END:
            return
        young_rows = 0 if old else young_rows + young
        from_id = last_id + 1
        sleep(_RESTS * (time.monotonic() - began))


def expire_dead_letters(
    connection: DatabaseConnection, limit: Limit, retry: Retry
) -> Iterator[RetentionStep]:
    """Delete the dead letters that were stored before the limit; yields each step.

    A dead letter of a trade that is not stored is kept until that trade has certainly expired: it is the audit's reason
    for an incomplete symbol.

    Args:
        connection: an idle connection; set to READ COMMITTED.
        limit: the retention limit.
        retry: see `Retry`.
    """
    return _expire_whole(connection, dead_letters.NAME, dead_letters.EXPIRE, limit, retry)


def expire_conflicts(
    connection: DatabaseConnection, table: str, limit: Limit, retry: Retry
) -> Iterator[RetentionStep]:
    """Delete the conflicts that are older than the limit; yields each step.

    A conflict with an impossible time is kept, as is the row with that time.

    Args:
        connection: an idle connection; set to READ COMMITTED.
        table: one of `CONFLICTS`.
        limit: the retention limit.
        retry: see `Retry`.
    """
    return _expire_whole(connection, table, _EXPIRE_CONFLICTS[table], limit, retry)


CONFLICTS: Final = {trades.NAME: trade_conflicts.NAME, book_tickers.NAME: quote_conflicts.NAME}
"""Table -> the table of its conflicts, which are kept for as long as its rows."""
_EXPIRE_CONFLICTS: Final = {
    trade_conflicts.NAME: trade_conflicts.EXPIRE,
    quote_conflicts.NAME: quote_conflicts.EXPIRE,
}


def _expire_whole(
    connection: DatabaseConnection, table: str, statement: str, limit: Limit, retry: Retry
) -> Iterator[RetentionStep]:
    """Delete the old rows of a small table, not symbol by symbol; yields each step."""
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    where: dict[str, Any] = {"table": table, "venue": "", "symbol": "", "id_series": 0}
    values = {**where, **limit._asdict(), "earliest_us": EARLIEST_US, "limit": STEP_ROWS}

    def note(noted: str) -> None:
        connection.execute(noted, values)
        connection.commit()

    def step() -> int:
        deleted = connection.execute(statement, values).rowcount
        connection.execute(retention_state.ADD, {**values, "deleted": deleted, "impossible": 0})
        connection.commit()
        return deleted

    retry(partial(note, retention_state.BEGIN))
    while deleted := retry(step):
        yield RetentionStep(**where, deleted=deleted)
    retry(partial(note, retention_state.END))


def note_limit(connection: DatabaseConnection, table: str, limit: Limit, retry: Retry) -> None:
    """Store the limit of `table` in retention_state, if the database itself deletes the rows.

    Args:
        connection: an idle connection.
        table: the table.
        limit: the retention limit.
        retry: see `Retry`.
    """
    of_quotes = table in (book_tickers.NAME, quote_conflicts.NAME)
    marked = book_tickers.NAME if of_quotes else trades.NAME
    for venue, symbol, id_series, _ in retry(partial(_symbols, connection, marked)):
        rows = _Rows(table, (venue, symbol, id_series))
        for statement in (retention_state.BEGIN, retention_state.END):
            retry(partial(_note, connection, rows, statement, limit))
