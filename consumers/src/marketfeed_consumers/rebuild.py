"""Making derived tables again from the rows, while consumers go on writing.

A stretch of one symbol at a time: what is derived is deleted and made anew in one SERIALIZABLE transaction, so a
consumer that adds to the same candle meanwhile either comes before it or after it, never between.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from marketfeed_consumers.candles import MINUTE_US
from marketfeed_consumers.tables import book_tickers, candles_1m, top_of_book, trades
from marketfeed_consumers.transaction import Connection

Retry = Callable[[Callable[[], Any]], Any]
"""Runs a transaction, again when it met another one: one that only reads can meet one too."""

STRETCH_IDS: Final = 100_000
"""About how many trades one transaction reads."""

_MARKS: Final = """
SELECT venue, symbol FROM high_water_marks
WHERE table_name = %(table)s AND first_id <= last_id
    AND (%(venue)s::text IS NULL OR venue = %(venue)s) AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s)
ORDER BY venue, symbol
"""

_WHOLE_FROM: Final = f"""
SELECT CASE WHEN expired_below_id = 0 THEN 0 ELSE first_time_us - first_time_us %% {MINUTE_US} + {MINUTE_US} END
FROM high_water_marks WHERE table_name = '{trades.NAME}' AND venue = %(venue)s AND symbol = %(symbol)s
"""  # noqa: S608 - constants
"""When the first minute begins of which retention has not deleted any trade."""

_MINUTES: Final = f"""
SELECT trade_time_us - trade_time_us %% {MINUTE_US} AS minute_us, count(*) FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND trade_time_us >= %(since_us)s AND trade_time_us < %(until_us)s
GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - constants

_DELETE: Final = """
DELETE FROM candles_1m WHERE venue = %(venue)s AND symbol = %(symbol)s
    AND open_time_us >= %(from_us)s AND open_time_us < %(to_us)s
"""

_AGGREGATE: Final = f"""
INSERT INTO candles_1m ({", ".join(candles_1m.COLUMNS)})
SELECT venue, symbol, trade_time_us - trade_time_us %% {MINUTE_US}, (array_agg(price ORDER BY trade_id))[1], max(price),
    min(price), (array_agg(price ORDER BY trade_id DESC))[1], sum(qty), sum(price * qty),
    sum(CASE WHEN buyer_is_maker THEN 0 ELSE qty END), count(*), min(trade_id), max(trade_id)
FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND trade_time_us >= %(from_us)s AND trade_time_us < %(to_us)s
GROUP BY 1, 2, 3
"""  # noqa: S608 - constants

_DELETE_TOP: Final = "DELETE FROM top_of_book WHERE venue = %(venue)s AND symbol = %(symbol)s"
_NEWEST: Final = f"""
INSERT INTO top_of_book ({", ".join(top_of_book.COLUMNS)})
SELECT {", ".join(book_tickers.COLUMNS)} FROM book_tickers
WHERE venue = %(venue)s AND symbol = %(symbol)s ORDER BY update_id DESC LIMIT 1
"""  # noqa: S608 - constants


class Rebuilt(NamedTuple):
    """One stretch that was made anew: how many derived rows it has now."""

    venue: str
    symbol: str
    rows: int


class Scope(NamedTuple):
    """Which symbols, and from when until when by trade time; minutes are made whole."""

    venue: str | None = None
    symbol: str | None = None
    since_us: int | None = None
    until_us: int | None = None


def candles(connection: Connection, scope: Scope, retry: Retry) -> Iterator[Rebuilt]:
    """Make candles_1m anew, stretch by stretch.

    Minutes of which retention has deleted trades are left as they are: there is nothing left to make them of.
    """
    for venue, symbol in retry(partial(_read, connection, _MARKS, _scope(trades.NAME, scope))):
        since = (scope.since_us or 0) // MINUTE_US * MINUTE_US
        until = 2**62 if scope.until_us is None else -(-scope.until_us // MINUTE_US) * MINUTE_US
        where = {"venue": venue, "symbol": symbol, "since_us": since, "until_us": until}
        minutes = retry(partial(_read, connection, _MINUTES, where))
        for from_us, to_us in stretches(minutes, since, until):
            bounds = {**where, "from_us": from_us, "to_us": to_us}
            rows = retry(partial(_stretch, connection, bounds))
            yield Rebuilt(venue, symbol, rows)


def _stretch(connection: Connection, bounds: dict[str, Any]) -> int:
    # Retention may be at work: from when on all trades are there is read in the transaction that reads them.
    (whole_from_us,) = connection.execute(_WHOLE_FROM, bounds).fetchone() or (0,)
    return _anew(
        connection, _DELETE, _AGGREGATE, {**bounds, "from_us": max(bounds["from_us"], whole_from_us)}
    )


def stretches(minutes: list[tuple[int, int]], since_us: int, until_us: int) -> list[tuple[int, int]]:
    """Times that part `since_us`..`until_us` into stretches of about STRETCH_IDS trades.

    Args:
        minutes: (begin of a minute, trades in it), ascending.
    """
    edges, held = [since_us], 0
    for minute_us, count in minutes:
        if held and held + count > STRETCH_IDS:
            edges.append(minute_us)
            held = 0
        held += count
    return list(zip(edges, [*edges[1:], until_us], strict=True))


def tops(connection: Connection, scope: Scope, retry: Retry) -> Iterator[Rebuilt]:
    """Make top_of_book anew from the newest quote of each symbol."""
    for venue, symbol in retry(partial(_read, connection, _MARKS, _scope(book_tickers.NAME, scope))):
        where = {"venue": venue, "symbol": symbol}
        rows = retry(partial(_anew, connection, _DELETE_TOP, _NEWEST, where))
        yield Rebuilt(venue, symbol, rows)


def _scope(table: str, scope: Scope) -> dict[str, Any]:
    return {"table": table, "venue": scope.venue, "symbol": scope.symbol}


def _read(connection: Connection, query: str, where: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = connection.execute(query, where).fetchall()
    connection.rollback()
    return found


def _anew(connection: Connection, delete: str, insert: str, where: dict[str, Any]) -> int:
    connection.execute(delete, where)
    rows = connection.execute(insert, where).rowcount
    connection.commit()
    return rows
