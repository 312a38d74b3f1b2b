"""Deleting what is older than it is kept, little by little and beside writers at full speed.

By bounded deletes and not by dropping partitions: a table can only be partitioned by columns of its key, and no time is
part of a key (a trade repeated with another time must stay one trade). In two steps, for each symbol:

1. many rows expire at once: one transaction says in the symbol's mark that everything below an id has expired. A writer
   that meets it plans again, and from then on stores nothing below that id: a trade that is read again later does not
   come back, nor count twice in a candle.
2. what has expired is deleted, few rows a transaction, with a rest after each: the server's cores are the writers'. The
   mark is not touched any more, so no writer meets that. What a run that was ended left is deleted by the next.

The first step holds the mark's row locked from before it looks at the rows until it commits, and every writer of the
symbol must have that row: so READ COMMITTED is enough, and takes no predicate locks on the rows that it reads.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from marketfeed_consumers.database import Retry
from marketfeed_consumers.knowledge import Key
from marketfeed_consumers.tables import book_tickers, trades
from marketfeed_consumers.transaction import Connection

EXPIRE_ROWS: Final = 100_000
"""How many rows of a symbol expire at once at most: its writer waits some tens of milliseconds, and plans again."""
STEP_ROWS: Final = 5_000
"""How many rows one transaction deletes at most: a few milliseconds."""

_RESTS: Final = 3.0
"""How long the rest after a step is, in times of the step: a quarter of a core is ours at most."""

_COLUMNS: Final = {
    trades.NAME: (trades.ID, "trade_time_us"),
    book_tickers.NAME: (book_tickers.ID, "received_time_us"),
}
"""Table -> its columns of the id and of the time that counts."""


class Expired(NamedTuple):
    """What one transaction deleted."""

    table: str
    venue: str
    symbol: str
    id_series: int
    rows: int


class _Rows:
    """The rows of one symbol in `table`, in the order of its column `id_name`."""

    def __init__(self, table: str, key: Key, id_name: str, time_name: str = "") -> None:
        venue, symbol, id_series = key
        self.where: dict[str, Any] = {
            "table": table,
            "venue": venue,
            "symbol": symbol,
            "id_series": id_series,
        }
        self._names = {
            "table": sql.Identifier(table),
            "id": sql.Identifier(id_name),
            "time": sql.Identifier(time_name or id_name),
            "own": sql.SQL("venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s"),
        }

    def execute(self, connection: Connection, query: str, **values: Any) -> "psycopg.Cursor[tuple[Any, ...]]":
        """Run `query` for these rows; {table}, {id}, {time} are their names, {own} what they have in common."""
        return connection.execute(sql.SQL(query).format(**self._names), {**self.where, **values})


def expire(connection: Connection, table: str, before_us: int, retry: Retry) -> Iterator[Expired]:
    """Delete the rows of `table` that are older than `before_us`, a step at a time, symbol by symbol.

    A symbol's rows go in the order of their ids, up to the first that is young enough. The newest row of a symbol
    always stays: what is stored must be known by something.

    Args:
        connection: in no transaction; READ COMMITTED from then on.
        table: "trades" or "book_tickers".
        retry: see `Retry`.
    """
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    for *key, expired_below_id in retry(partial(_symbols, connection, table)):
        rows = _Rows(table, tuple(key), *_COLUMNS[table])
        yield from _sweep(connection, rows, 0, expired_below_id, retry)
        while (expired := retry(partial(_expire, connection, rows, before_us))) is not None:
            from_id, below_id = expired
            yield from _sweep(connection, rows, from_id, below_id, retry)


def expire_candles(connection: Connection, before_us: int, retry: Retry) -> Iterator[Expired]:
    """Delete the candles that begin before `before_us`; otherwise as `expire`."""
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    for *key, _ in retry(partial(_symbols, connection, trades.NAME)):
        rows = _Rows("candles_1m", tuple(key), "open_time_us")
        yield from _sweep(connection, rows, 0, before_us, retry)


_SYMBOLS: Final = """
SELECT venue, symbol, id_series, expired_below_id FROM high_water_marks
WHERE table_name = %s AND first_id <= last_id ORDER BY venue, symbol, id_series
"""


def _symbols(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    found = connection.execute(_SYMBOLS, [table]).fetchall()
    connection.rollback()
    return found


_LOCK_MARK: Final = """
SELECT expired_below_id FROM high_water_marks
WHERE table_name = %(table)s AND venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s FOR UPDATE
"""

_OLDEST: Final = """
SELECT min({id}), min({id}) FILTER (WHERE {time} >= %(before_us)s), max({id}) FROM (
    SELECT {id}, {time} FROM {table} WHERE {own} AND {id} >= %(from_id)s ORDER BY {id} LIMIT %(limit)s
) AS oldest
"""

_MARK: Final = """
UPDATE high_water_marks AS m SET version = version + 1,
    row_count = row_count - (SELECT count(*) FROM {table} WHERE {own} AND {id} >= m.first_id AND {id} < %(below_id)s),
    first_time_us = CASE WHEN first_id < %(below_id)s
        THEN (SELECT {time} FROM {table} WHERE {own} AND {id} = %(below_id)s) ELSE first_time_us END,
    first_id = greatest(first_id, %(below_id)s), expired_below_id = %(below_id)s
WHERE table_name = %(table)s AND venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
"""
"""The mark begins above what has expired already when the rows were put there by somebody else."""

_MISSING: Final = """
DELETE FROM missing_trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s AND first_trade_id < %(below_id)s
"""


def _expire(connection: Connection, rows: _Rows, before_us: int) -> tuple[int, int] | None:
    """Let the oldest rows expire: those from the first id up to, not including, the second; None when all are young."""
    (from_id,) = rows.execute(connection, _LOCK_MARK).fetchone() or (0,)
    oldest = rows.execute(
        connection, _OLDEST, from_id=from_id, before_us=before_us, limit=EXPIRE_ROWS + 1
    ).fetchone()
    lowest, young, highest = oldest or (None, None, None)
    below_id = highest if young is None else young
    if lowest == below_id:
        connection.rollback()
        return None
    rows.execute(connection, _MARK, below_id=below_id)
    if rows.where["table"] == trades.NAME:
        rows.execute(connection, _MISSING, below_id=below_id)
    connection.commit()
    return from_id, below_id


_STEP: Final = """
SELECT max({id}) FROM (
    SELECT {id} FROM {table} WHERE {own} AND {id} >= %(from_id)s AND {id} < %(below_id)s ORDER BY {id} LIMIT %(limit)s
) AS step
"""
_DELETE: Final = "DELETE FROM {table} WHERE {own} AND {id} >= %(from_id)s AND {id} <= %(last_id)s"


def _sweep(
    connection: Connection, rows: _Rows, from_id: int, below_id: int, retry: Retry
) -> Iterator[Expired]:
    """Delete the rows from `from_id` up to, not including, `below_id`; nobody adds any there.

    Each step begins where the one before ended: what that has deleted stays in the index until it is vacuumed, and to
    pass over it again and again would cost more than the deleting.
    """

    def step() -> tuple[int | None, int]:
        (last_id,) = rows.execute(
            connection, _STEP, from_id=from_id, below_id=below_id, limit=STEP_ROWS
        ).fetchone() or (None,)
        deleted = 0
        if last_id is not None:
            deleted = rows.execute(connection, _DELETE, from_id=from_id, last_id=last_id).rowcount
        connection.commit()
        return last_id, deleted

    while True:
        began = time.monotonic()
        last_id, deleted = retry(step)
        if last_id is None:
            return
        yield Expired(**rows.where, rows=deleted)
        from_id = last_id + 1
        time.sleep(_RESTS * (time.monotonic() - began))


_DEAD_LETTERS: Final = """
DELETE FROM dead_letters WHERE (topic, topic_id, "partition", kafka_offset) IN (
    SELECT topic, topic_id, "partition", kafka_offset FROM dead_letters WHERE stored_time_us < %(before_us)s
    LIMIT %(limit)s
)
"""


def expire_dead_letters(connection: Connection, before_us: int, retry: Retry) -> Iterator[int]:
    """Delete the dead letters that were stored before `before_us`; yields the rows of each step."""

    def step() -> int:
        deleted = connection.execute(_DEAD_LETTERS, {"before_us": before_us, "limit": STEP_ROWS}).rowcount
        connection.commit()
        return deleted

    while deleted := retry(step):
        yield deleted


_TTL_TIMES: Final = {
    **{name: time for name, (_, time) in _COLUMNS.items()},
    "candles_1m": "open_time_us",
    "dead_letters": "stored_time_us",
}


def row_level_ttl(table: str, days: int) -> str:
    """CockroachDB's way: the statement after which the database itself deletes rows older than `days`.

    https://www.cockroachlabs.com/docs/stable/row-level-ttl: `ttl_expiration_expression` is an expression over the
    row's columns that says when it expires. Its default of 100 rows a second and node would never catch up with a busy
    feed; what is deleted yields to everything else by the cluster's admission control, so it has no limit here.
    """
    expires = f"(timestamptz ''epoch'' + {_TTL_TIMES[table]} * interval ''1 microsecond'') + interval ''{days} days''"
    return (
        f"ALTER TABLE {table} SET (ttl_expiration_expression = '{expires}', ttl_job_cron = '@hourly', "
        "ttl_delete_rate_limit = 0)"
    )
