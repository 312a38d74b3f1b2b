"""Deleting what is older than it is kept, little by little and beside writers at full speed.

By bounded deletes and not by dropping partitions: a table can only be partitioned by columns of its key, and no time is
part of a key (a trade repeated with another time must stay one trade).

Each row is judged by its own time, never by its id or by its neighbours: one with an impossible time is kept and
counted, and decides nothing for the others. What is known to have been stored (high_water_marks, missing_trades) is not
touched: a trade that was deleted is a duplicate when it is read again, and one that was missing is still missing, and
stored whenever it comes. So writers need not hear of a run, and READ COMMITTED is enough; what the run did is in
retention_state, for the audit, for `rebuild` and for the metrics.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from marketfeed_consumers.database.connections import Retry
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
from marketfeed_consumers.storage.transaction import Connection

STEP_ROWS: Final = 5_000
"""How many rows one transaction looks at, and deletes at most: a few milliseconds."""
YOUNG_ROWS: Final = 50_000
"""After so many young rows in a row of their ids, none of them old, a symbol has no old ones behind them."""

END: Final = -1
"""In the place of an id: there are no more rows."""

_RESTS: Final = 3.0
"""How long the rest after a step is, in times of the step: a quarter of a core is ours at most."""

_COLUMNS: Final = {
    trades.NAME: (trades.ID, "trade_time_us"),
    book_tickers.NAME: (book_tickers.ID, "received_time_us"),
    candles_1m.NAME: ("open_time_us", "open_time_us"),
}
"""Table -> its columns of the id and of the time that counts."""


class Limit(NamedTuple):
    """What is old.

    Attributes:
        before_us: rows older than this are deleted.
        now_us: the time of the run: a row whose time is far ahead of it has an impossible one.
    """

    before_us: int
    now_us: int


class RetentionStep(NamedTuple):
    """What one transaction did: rows that it deleted, and rows that it kept because their times are impossible."""

    table: str
    venue: str
    symbol: str
    id_series: int
    deleted: int
    impossible: int = 0


class Clocks(NamedTuple):
    """This machine's and the database's, in microseconds since the Unix epoch."""

    here_us: int
    there_us: int

    def limit(self, kept_us: int) -> Limit:
        """The limit of rows that are kept for `kept_us`; where the clocks differ, by that which deletes less."""
        return Limit(min(self) - kept_us, max(self))


def clocks(connection: Connection, here_us: int) -> Clocks:
    """Read the database's clock beside `here_us`; the transaction is ended."""
    row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
    connection.rollback()
    return Clocks(here_us, row[0] if row else here_us)


class _Rows:
    """The rows of one symbol and id series in `table`, in the order of its column of the id."""

    def __init__(self, table: str, key: Key) -> None:
        venue, symbol, id_series = key
        self.where: dict[str, Any] = {
            "table": table, "venue": venue, "symbol": symbol, "id_series": id_series
        }  # fmt: skip
        id_name, time_name = _COLUMNS[table]
        self._names = {
            "table": sql.Identifier(table),
            "id": sql.Identifier(id_name),
            "time": sql.Identifier(time_name),
            "own": sql.SQL("venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s"),
        }

    def execute(self, connection: Connection, query: str, **values: Any) -> "psycopg.Cursor[tuple[Any, ...]]":
        """Run `query` for these rows; {table}, {id}, {time} are their names, {own} what they have in common."""
        return connection.execute(sql.SQL(query).format(**self._names), {**self.where, **values})


_SYMBOLS: Final = """
SELECT venue, symbol, id_series, last_id FROM high_water_marks
WHERE table_name = %s AND first_id <= last_id ORDER BY venue, symbol, id_series
"""


def expire(
    connection: Connection,
    table: str,
    limit: Limit,
    retry: Retry,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[RetentionStep]:
    """Delete the rows of `table` that are older than the limit, a step at a time, symbol by symbol.

    The newest row of a symbol always stays, so that there is something to look at and to make the top of the book of.

    Args:
        connection: in no transaction; READ COMMITTED from then on.
        table: "trades", "book_tickers" or "candles_1m".
        retry: see `Retry`.
        sleep: rests between the steps.
    """
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    marked = trades.NAME if table == candles_1m.NAME else table
    for *key, last_id in retry(partial(_symbols, connection, marked)):
        rows = _Rows(table, (key[0], key[1], key[2]))
        if table == candles_1m.NAME:
            last_id = limit.before_us  # a candle's id is its time, and there are no newest ones to keep
        retry(partial(_note, connection, rows, retention_state.BEGIN, limit))
        yield from _sweep(connection, rows, last_id, limit, retry, sleep)
        retry(partial(_note, connection, rows, retention_state.END, limit))


def _symbols(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    found = connection.execute(_SYMBOLS, [table]).fetchall()
    connection.rollback()
    return found


def _note(connection: Connection, rows: _Rows, statement: str, limit: Limit) -> None:
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
    connection: Connection,
    rows: _Rows,
    below_id: int,
    limit: Limit,
    retry: Retry,
    sleep: Callable[[float], None],
) -> Iterator[RetentionStep]:
    """Delete the old rows below `below_id`, up to where there are only young ones.

    Each step begins where the one before ended: what that has deleted stays in the index until it is vacuumed, and to
    pass over it again and again would cost more than the deleting.
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


def expire_dead_letters(connection: Connection, limit: Limit, retry: Retry) -> Iterator[RetentionStep]:
    """Delete the dead letters that were stored before the limit, a step at a time.

    One that is all that is known of a trade which is not stored stays for as long as that trade may be young: it is why
    the audit does not call the symbol complete.
    """
    return _expire_whole(connection, dead_letters.NAME, dead_letters.EXPIRE, limit, retry)


def expire_conflicts(
    connection: Connection, table: str, limit: Limit, retry: Retry
) -> Iterator[RetentionStep]:
    """Delete the conflicts that are older than the limit, a step at a time.

    One with an impossible time stays, as the row does that has it.

    Args:
        table: one of `CONFLICTS`.
    """
    return _expire_whole(connection, table, _EXPIRE_CONFLICTS[table], limit, retry)


CONFLICTS: Final = {trades.NAME: trade_conflicts.NAME, book_tickers.NAME: quote_conflicts.NAME}
"""Table -> the one of what contradicts its rows, and is kept for as long as they are."""
_EXPIRE_CONFLICTS: Final = {
    trade_conflicts.NAME: trade_conflicts.EXPIRE,
    quote_conflicts.NAME: quote_conflicts.EXPIRE,
}


def _expire_whole(
    connection: Connection, table: str, statement: str, limit: Limit, retry: Retry
) -> Iterator[RetentionStep]:
    """Delete what is old of a table that is small, and so is not gone through symbol by symbol."""
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


_TTL_TIMES: Final = {
    **{name: (time, time) for name, (_, time) in _COLUMNS.items()},
    dead_letters.NAME: ("stored_time_us", "stored_time_us"),
    trade_conflicts.NAME: (trade_conflicts.OLDEST, trade_conflicts.NEWEST),
    quote_conflicts.NAME: (quote_conflicts.OLDEST, quote_conflicts.NEWEST),
}
"""Table -> the time by which a row must be possible, and the time from which it is kept for so many days."""


def note_limit(connection: Connection, table: str, limit: Limit, retry: Retry) -> None:
    """Note that rows of `table` older than the limit are deleted, where the database itself does it."""
    of_quotes = table in (book_tickers.NAME, quote_conflicts.NAME)
    marked = book_tickers.NAME if of_quotes else trades.NAME
    for venue, symbol, id_series, _ in retry(partial(_symbols, connection, marked)):
        rows = _Rows(table, (venue, symbol, id_series))
        for statement in (retention_state.BEGIN, retention_state.END):
            retry(partial(_note, connection, rows, statement, limit))


def row_level_ttl(table: str, days: int) -> str:
    """CockroachDB's way: the statement after which the database itself deletes rows older than `days`.

    https://www.cockroachlabs.com/docs/stable/row-level-ttl: `ttl_expiration_expression` is an expression over the
    row's columns that says when it expires; of one with an impossible time it is NULL, and the row stays. Its default
    of 100 rows a second and node would never catch up with a busy feed; what is deleted yields to everything else by
    the cluster's admission control, so it has no limit here.
    """
    oldest, newest = _TTL_TIMES[table]
    expires = (
        f"CASE WHEN {oldest} >= {EARLIEST_US} THEN "
        f"(timestamptz ''epoch'' + {newest} * interval ''1 microsecond'') + interval ''{days} days'' END"
    )
    return (
        f"ALTER TABLE {table} SET (ttl_expiration_expression = '{expires}', ttl_job_cron = '@hourly', "
        "ttl_delete_rate_limit = 0)"
    )
