"""Rebuild of derived tables from the rows, while consumers write.

One chunk of a symbol at a time: its derived rows are deleted and computed again in one SERIALIZABLE transaction, so a
concurrent consumer's update of the same candle is either before or after it.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from marketfeed_consumers.database.connections import DatabaseConnection, Retry
from marketfeed_consumers.database.tables import book_tickers, candles_1m, top_of_book, trades
from marketfeed_consumers.planning.candles import MINUTE_US
from marketfeed_wire import MAX_ID

CHUNK_IDS: Final = 100_000
"""Approximate number of trades read by one transaction."""

_MARKS: Final = """
SELECT venue, symbol, id_series FROM high_water_marks
WHERE table_name = %(table)s AND first_id <= last_id
    AND (%(venue)s::text IS NULL OR venue = %(venue)s) AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s)
ORDER BY venue, symbol, id_series
"""

_WHOLE_FROM: Final = f"""
SELECT expired_before_time_us + {MINUTE_US - 1} - (expired_before_time_us + {MINUTE_US - 1}) %% {MINUTE_US}
FROM retention_state WHERE table_name = '{trades.NAME}' AND venue = %(venue)s AND symbol = %(symbol)s
    AND id_series = %(id_series)s
"""  # noqa: S608 - constants
"""Begin of the first minute of which retention has deleted no trade."""

_MINUTES: Final = f"""
SELECT trade_time_us - trade_time_us %% {MINUTE_US} AS minute_us, count(*), min(trade_id), max(trade_id) FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
    AND trade_time_us >= %(since_us)s AND trade_time_us < %(until_us)s
GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - constants

_DELETE: Final = """
DELETE FROM candles_1m WHERE venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
    AND open_time_us >= %(from_us)s AND open_time_us < %(to_us)s
RETURNING first_trade_id, last_trade_id
"""

_AGGREGATE: Final = f"""
INSERT INTO candles_1m ({", ".join(candles_1m.COLUMNS)})
SELECT venue, symbol, id_series, trade_time_us - trade_time_us %% {MINUTE_US},
    (array_agg(price ORDER BY trade_id))[1], max(price), min(price),
    (array_agg(price ORDER BY trade_id DESC))[1], sum(qty), sum(price * qty),
    sum(CASE WHEN buyer_is_maker THEN 0 ELSE qty END), count(*), min(trade_id), max(trade_id)
FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
    AND trade_id BETWEEN %(first_id)s AND %(last_id)s
    AND trade_time_us >= %(from_us)s AND trade_time_us < %(to_us)s
GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - constants

_DELETE_TOP: Final = "DELETE FROM top_of_book WHERE venue = %(venue)s AND symbol = %(symbol)s"
_NEWEST: Final = f"""
INSERT INTO top_of_book ({", ".join(top_of_book.COLUMNS)})
SELECT {", ".join(book_tickers.COLUMNS)} FROM book_tickers
WHERE venue = %(venue)s AND symbol = %(symbol)s ORDER BY id_series DESC, update_id DESC LIMIT 1
"""  # noqa: S608 - constants


class Rebuilt(NamedTuple):
    """A rebuilt chunk and its number of derived rows."""

    venue: str
    symbol: str
    rows: int


class IdChunk(NamedTuple):
    """A part of a symbol's trades: those matched from `from_us` until before `to_us`, and their id range.

    Without trades `first_id` is above `last_id`.
    """

    from_us: int
    to_us: int
    first_id: int
    last_id: int


class Scope(NamedTuple):
    """The selected symbols and trade times; minutes are included as a whole."""

    venue: str | None = None
    symbol: str | None = None
    since_us: int | None = None
    until_us: int | None = None


def candles(connection: DatabaseConnection, scope: Scope, retry: Retry) -> Iterator[Rebuilt]:
    """Rebuild candles_1m in chunks; yields each.

    Minutes of which retention has deleted trades are not changed, as their trades are incomplete.

    Args:
        connection: an idle connection.
        scope: the selected symbols and times.
        retry: see `Retry`.
    """
    for venue, symbol, id_series in retry(partial(_read, connection, _MARKS, _scope(trades.NAME, scope))):
        since = (scope.since_us or 0) // MINUTE_US * MINUTE_US
        until = 2**62 if scope.until_us is None else -(-scope.until_us // MINUTE_US) * MINUTE_US
        where = {"venue": venue, "symbol": symbol, "id_series": id_series}
        minutes = retry(partial(_read, connection, _MINUTES, {**where, "since_us": since, "until_us": until}))
        for chunk in chunks(minutes, since, until):
            rows = retry(partial(_rebuild_candles, connection, chunk, where))
            yield Rebuilt(venue, symbol, rows)


def _rebuild_candles(connection: DatabaseConnection, chunk: IdChunk, symbol: dict[str, Any]) -> int:
    # Retention may run concurrently: its limit is read in the transaction that reads the trades.
    (whole_from_us,) = connection.execute(_WHOLE_FROM, symbol).fetchone() or (0,)
    bounds = {**symbol, **chunk._asdict(), "from_us": max(chunk.from_us, whole_from_us)}
    # So may a consumer: the deleted candles' id ranges include the trades inserted since the chunk was computed.
    for first_id, last_id in connection.execute(_DELETE, bounds):
        bounds |= {"first_id": min(bounds["first_id"], first_id), "last_id": max(bounds["last_id"], last_id)}
    rows = connection.execute(_AGGREGATE, bounds).rowcount
    connection.commit()
    return rows


def chunks(minutes: Iterable[tuple[int, int, int, int]], since_us: int, until_us: int) -> list[IdChunk]:
    """Split `since_us`..`until_us` into chunks of about CHUNK_IDS trades each, without gaps.

    Args:
        minutes: (begin of a minute, number of trades, lowest and highest id), ascending.
        since_us, until_us: the whole time range.
    """
    parts, held = [IdChunk(since_us, until_us, MAX_ID, -1)], 0
    for minute_us, count, first_id, last_id in minutes:
        if held and held + count > CHUNK_IDS:
            parts[-1] = parts[-1]._replace(to_us=minute_us)
            parts.append(IdChunk(minute_us, until_us, MAX_ID, -1))
            held = 0
        last = parts[-1]
        parts[-1] = last._replace(first_id=min(last.first_id, first_id), last_id=max(last.last_id, last_id))
        held += count
    return parts


def tops(connection: DatabaseConnection, scope: Scope, retry: Retry) -> Iterator[Rebuilt]:
    """Rebuild top_of_book from the newest quote of each symbol; yields each symbol.

    Args:
        connection: an idle connection.
        scope: the selected symbols.
        retry: see `Retry`.
    """
    marks = retry(partial(_read, connection, _MARKS, _scope(book_tickers.NAME, scope)))
    for venue, symbol in dict.fromkeys((venue, symbol) for venue, symbol, _ in marks):
        where = {"venue": venue, "symbol": symbol}
        rows = retry(partial(_rebuild_top, connection, where))
        yield Rebuilt(venue, symbol, rows)


def _scope(table: str, scope: Scope) -> dict[str, Any]:
    return {"table": table, "venue": scope.venue, "symbol": scope.symbol}


def _read(connection: DatabaseConnection, query: str, where: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = connection.execute(query, where).fetchall()
    connection.rollback()
    return found


def _rebuild_top(connection: DatabaseConnection, symbol: dict[str, Any]) -> int:
    connection.execute(_DELETE_TOP, symbol)
    rows = connection.execute(_NEWEST, symbol).rowcount
    connection.commit()
    return rows
