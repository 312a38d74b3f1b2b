"""Deleting what is older than it is kept, little by little.

By bounded deletes and not by dropping partitions: a table can only be partitioned by columns of its key, and no time is
part of a key (a trade repeated with another time must stay one trade). Each step deletes a stretch of one symbol's ids
in one SERIALIZABLE transaction with the symbol's mark, so a writer that meets it plans again, and remembers below which
id everything has expired: a trade that is read again later does not come back, nor count twice in a candle.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from psycopg import sql

from marketfeed_consumers.tables import book_tickers, trades
from marketfeed_consumers.transaction import Connection

STEP_ROWS: Final = 5_000
"""How many rows one transaction deletes at most: a few milliseconds, so that writers hardly wait."""

_SYMBOLS: Final = """
SELECT venue, symbol FROM high_water_marks WHERE table_name = %s AND first_id <= last_id ORDER BY venue, symbol
"""

_TIMES: Final = {trades.NAME: "trade_time_us", book_tickers.NAME: "received_time_us"}
_IDS: Final = {trades.NAME: trades.ID, book_tickers.NAME: book_tickers.ID}

_MARK: Final = """
UPDATE high_water_marks SET version = version + 1, row_count = row_count - %(deleted)s,
    first_time_us = CASE WHEN first_id < %(next_id)s THEN %(next_time_us)s ELSE first_time_us END,
    first_id = greatest(first_id, %(next_id)s), expired_below_id = greatest(expired_below_id, %(next_id)s)
WHERE table_name = %(table)s AND venue = %(venue)s AND symbol = %(symbol)s
"""
"""The mark begins above what was deleted already when the rows were put there by somebody else."""

_MISSING: Final = """
DELETE FROM missing_trades WHERE venue = %(venue)s AND symbol = %(symbol)s AND first_trade_id < %(next_id)s
"""


class Expired(NamedTuple):
    """What one transaction deleted."""

    table: str
    venue: str
    symbol: str
    rows: int


def expire(
    connection: Connection,
    table: str,
    before_us: int,
    retry: Callable[[Callable[[], Any]], Any],
) -> Iterator[Expired]:
    """Delete the rows of `table` that are older than `before_us`, a step at a time, symbol by symbol.

    A symbol's rows go in the order of their ids, up to the first that is young enough.

    The newest row of a symbol always stays: what is stored must be known by something.

    Args:
        table: "trades" or "book_tickers"; the others by `expire_by_time`.
        retry: runs a step, again when it met a writer.
    """
    for venue, symbol in retry(partial(_symbols, connection, table)):
        step = partial(_step, connection, table, venue, symbol, before_us)
        while (done := retry(step)).rows:
            yield done


def _symbols(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    found = connection.execute(_SYMBOLS, [table]).fetchall()
    connection.rollback()
    return found


def _step(connection: Connection, table: str, venue: str, symbol: str, before_us: int) -> Expired:
    names = {
        "table": sql.Identifier(table),
        "id": sql.Identifier(_IDS[table]),
        "time": sql.Identifier(_TIMES[table]),
    }
    where: dict[str, Any] = {"table": table, "venue": venue, "symbol": symbol, "limit": STEP_ROWS + 1}
    oldest = connection.execute(
        sql.SQL(
            "SELECT {id}, {time} FROM {table} WHERE venue = %(venue)s AND symbol = %(symbol)s "
            "ORDER BY {id} LIMIT %(limit)s"
        ).format(**names),
        where,
    ).fetchall()
    kept = next(
        ((row_id, time_us) for row_id, time_us in oldest if time_us >= before_us),
        oldest[-1] if oldest else None,
    )
    if kept is None or kept == oldest[0]:
        connection.rollback()
        return Expired(table, venue, symbol, 0)
    where |= {"next_id": kept[0], "next_time_us": kept[1]}
    deleted = connection.execute(
        sql.SQL(
            "DELETE FROM {table} WHERE venue = %(venue)s AND symbol = %(symbol)s AND {id} < %(next_id)s"
        ).format(**names),
        where,
    ).rowcount
    connection.execute(_MARK, {**where, "deleted": deleted})
    if table == trades.NAME:
        connection.execute(_MISSING, where)
    connection.commit()
    return Expired(table, venue, symbol, deleted)


_CANDLES: Final = """
DELETE FROM candles_1m WHERE (venue, symbol, open_time_us) IN (
    SELECT venue, symbol, open_time_us FROM candles_1m WHERE open_time_us < %(before_us)s LIMIT %(limit)s
)
"""
_DEAD_LETTERS: Final = """
DELETE FROM dead_letters WHERE (topic, topic_id, "partition", kafka_offset) IN (
    SELECT topic, topic_id, "partition", kafka_offset FROM dead_letters WHERE stored_time_us < %(before_us)s
    LIMIT %(limit)s
)
"""
_BY_TIME: Final = {"candles_1m": _CANDLES, "dead_letters": _DEAD_LETTERS}


def expire_by_time(
    connection: Connection, table: str, before_us: int, retry: Callable[[Callable[[], int]], int]
) -> Iterator[int]:
    """Delete the rows of candles_1m or dead_letters that are older than `before_us`; yields the rows of each step."""

    def step() -> int:
        deleted = connection.execute(_BY_TIME[table], {"before_us": before_us, "limit": STEP_ROWS}).rowcount
        connection.commit()
        return deleted

    while deleted := retry(step):
        yield deleted


_TTL_TIMES: Final = {**_TIMES, "candles_1m": "open_time_us", "dead_letters": "stored_time_us"}


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
