"""Verification of completeness by symbol and hour; reads rows of `trades` only with `deep`.

candles_1m has the number of trades of each minute and their id range; missing_trades the exact missing ranges inside
the stored span; trade_gaps the ids confirmed absent, and gaps outside that span; dead_letters the rejected ids. All are
written in the transaction of the rows, so the cost does not depend on the number of rows per hour. With `deep`, the
rows themselves are counted and compared.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from marketfeed_consumers.admin.audit_report import ConflictReport, HourReport, Report
from marketfeed_consumers.admin.resolution import GapRows, Range, ResolvedRange, resolve
from marketfeed_consumers.database import connections
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.dialects import Dialect
from marketfeed_consumers.database.tables import candles_1m, dead_letters, trade_gaps, trades
from marketfeed_consumers.planning.plausible_times import EARLIEST_US
from marketfeed_consumers.planning.stored_ranges import Key

HOUR_US: Final = 3_600_000_000
Where: TypeAlias = tuple[str, str, int, int]
"""(venue, symbol, id series, hour_us)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The selection of the audit; None selects all. Times are microseconds since the epoch, `until_us` exclusive."""

    venue: str | None = None
    symbol: str | None = None
    since_us: int | None = None
    until_us: int | None = None


_WHERE: Final = (
    "(%(venue)s::text IS NULL OR venue = %(venue)s) AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s)"
)

_HOURS: Final = f"""
SELECT venue, symbol, id_series, open_time_us - open_time_us %% {HOUR_US} AS hour_us,
    min(first_trade_id), max(last_trade_id), sum(trade_count)::bigint
FROM candles_1m
WHERE {_WHERE} AND open_time_us >= %(since_us)s AND open_time_us < %(until_us)s
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""  # noqa: S608 - constants

_MISSING: Final = f"""
SELECT venue, symbol, id_series, first_trade_id, last_trade_id, after_time_us, before_time_us
FROM missing_trades WHERE {_WHERE}
"""  # noqa: S608 - constants

_ABSENT: Final = f"""
SELECT venue, symbol, id_series, absent, proof FROM trade_gaps
WHERE {_WHERE} AND absent <> '[]'::jsonb
"""  # noqa: S608 - constants

_MARKS: Final = f"""
SELECT venue, symbol, id_series, first_id, last_id FROM high_water_marks
WHERE {_WHERE} AND table_name = '{trades.NAME}' AND first_id <= last_id
"""  # noqa: S608 - constants

_RETAINED: Final = f"""
SELECT venue, symbol, id_series, table_name, limit_time_us, expired_before_time_us FROM retention_state
WHERE {_WHERE} AND table_name IN ('{trades.NAME}', '{candles_1m.NAME}')
"""  # noqa: S608 - constants

_TRADE_CONFLICTS: Final = f"""
SELECT 'trades', venue, symbol, id_series, count(DISTINCT trade_id), min(trade_id), max(trade_id), sum(messages)::bigint
FROM trade_conflicts
WHERE {_WHERE} AND greatest(trade_time_us, stored_trade_time_us) >= %(since_us)s
    AND least(trade_time_us, stored_trade_time_us) < %(until_us)s
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""  # noqa: S608 - constants

_QUOTE_CONFLICTS: Final = f"""
SELECT 'book_tickers', venue, symbol, id_series, count(DISTINCT update_id), min(update_id), max(update_id),
    sum(messages)::bigint
FROM quote_conflicts
WHERE {_WHERE} AND received_time_us >= %(since_us)s AND received_time_us < %(until_us)s
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""  # noqa: S608 - constants

_COUNT: Final = f"""
SELECT trade_time_us - trade_time_us %% {HOUR_US} AS hour_us, count(*), count(DISTINCT trade_id) FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
    AND trade_id BETWEEN %(first_id)s AND %(last_id)s
    AND trade_time_us >= %(since_us)s AND trade_time_us < %(until_us)s
GROUP BY 1
"""  # noqa: S608 - constants


def audit(
    connection: DatabaseConnection,
    dialect: Dialect,
    scope: Scope,
    *,
    deep: bool = False,
    now_us: int | None = None,
) -> Report:
    """Audit the stored trades in one snapshot; on CockroachDB of some seconds ago, see `Dialect.snapshot`.

    Args:
        connection: its transaction is ended, and it is set to read-only.
        dialect: the database's dialect.
        scope: the selection; the hours of `since_us` and `until_us` are included as a whole.
        deep: count the rows themselves, by ranges of their key.
        now_us: the current time; None reads this machine's clock.
    """
    parameters = _parameters(scope)
    connection.rollback()
    connections.begin_read_only(connection, dialect)
    hours = connection.execute(_HOURS, parameters).fetchall()
    retained = connection.execute(_RETAINED, parameters).fetchall()
    ledger = GapRows(
        marks=connection.execute(_MARKS, parameters).fetchall(),
        missing=connection.execute(_MISSING, parameters).fetchall(),
        absent=connection.execute(_ABSENT, parameters).fetchall(),
        rejected=connection.execute(dead_letters.REJECTED, parameters).fetchall(),
        reported=connection.execute(trade_gaps.OUTSIDE, parameters).fetchall(),
        limits={(*key,): limit for *key, table, limit, _ in retained if table == trades.NAME},
        now_us=time.time_ns() // 1000 if now_us is None else now_us,
    )
    conflicts = [
        ConflictReport(*row)
        for query in (_TRADE_CONFLICTS, _QUOTE_CONFLICTS)
        for row in connection.execute(query, parameters)
    ]
    counted = _deep_counts(connection, _spans(hours, ledger.marks, scope), parameters) if deep else None
    connection.rollback()
    ranges = located(resolve(ledger), parameters["since_us"], parameters["until_us"])
    return Report(
        tuple(assemble(hours, ranges, retained, counted)),
        deep,
        bool(ledger.marks or hours or ledger.rejected or ledger.reported),
        tuple(conflicts),
    )


def _parameters(scope: Scope) -> dict[str, Any]:
    since = 0 if scope.since_us is None else scope.since_us - scope.since_us % HOUR_US
    until = 2**63 - 1 if scope.until_us is None else -(-scope.until_us // HOUR_US) * HOUR_US
    return {"venue": scope.venue, "symbol": scope.symbol, "since_us": since, "until_us": until}


def located(ranges: Iterable[ResolvedRange], since_us: int, until_us: int) -> dict[Where, list[Range]]:
    """Return by hour the ranges that may be between the times; a range without known times may be anywhere.

    Args:
        ranges: missing ranges with the bounds of their times.
        since_us, until_us: the times of the report, `until_us` exclusive.
    """
    found: defaultdict[Where, list[Range]] = defaultdict(list)
    for key, span, lower_us, upper_us in ranges:
        if (upper_us is None or upper_us >= since_us) and (lower_us is None or lower_us < until_us):
            at = next((time_us for time_us in (lower_us, upper_us) if time_us is not None), since_us)
            at = min(max(at, since_us), until_us - 1)
            found[*key, at - at % HOUR_US].append(span)
    return found


def assemble(
    hours: Iterable[Sequence[Any]],
    ranges: Mapping[Where, Sequence[Range]],
    retained: Iterable[Sequence[Any]],
    counted: Mapping[Where, tuple[int, int]] | None,
) -> list[HourReport]:
    """Return the reports of the queries' results.

    Args:
        hours: (venue, symbol, id series, hour_us, first id, last id, count).
        ranges: the missing ranges by hour.
        retained: (venue, symbol, id series, table, limit, highest limit of all runs) of retention.
        counted: rows and distinct ids by hour; None if they were not counted.
    """
    held = {(venue, symbol, id_series, hour_us): rest for venue, symbol, id_series, hour_us, *rest in hours}
    expired_before: dict[tuple[Any, ...], int] = {(*key, table): most for *key, table, _, most in retained}
    reports = []
    for where in sorted({*held, *ranges, *(counted or {})}):
        first_id, last_id, stored = held.get(where, (None, None, 0))
        venue, symbol, id_series, hour_us = where

        def is_before(table: str, where: Where = where) -> bool:
            return EARLIEST_US <= where[3] < expired_before.get((*where[:3], table), 0)

        rows, distinct = (stored, stored)
        if counted is not None and not is_before(trades.NAME) and not is_before(candles_1m.NAME):
            rows, distinct = counted.get(where, (0, 0))
        reports.append(
            HourReport(
                venue,
                symbol,
                hour_us,
                first_id,
                last_id,
                stored,
                tuple(ranges.get(where, ())),
                rows - distinct,
                abs(distinct - stored),
                is_before(trades.NAME),
                id_series,
            )
        )
    return reports


def _spans(
    hours: Iterable[Sequence[Any]], marks: Iterable[Sequence[Any]], scope: Scope
) -> dict[Key, tuple[int, int]]:
    """Return the ids to count: the stored span, as candles may be lost; with times given, the ids of the candles."""
    spans: dict[Key, tuple[int, int]] = {
        (venue, symbol, id_series): (first, last) for venue, symbol, id_series, first, last in marks
    }
    bounds: dict[Key, tuple[int, int]] = {}
    for venue, symbol, id_series, _, first, last, _ in hours:
        low, high = bounds.get((venue, symbol, id_series), (first, last))
        bounds[venue, symbol, id_series] = (min(low, first), max(high, last))
    for key, (low, high) in bounds.items():
        first, last = spans.get(key, (low, high))
        spans[key] = (first if scope.since_us is None else low, last if scope.until_us is None else high)
    return spans


def _deep_counts(
    connection: DatabaseConnection, spans: Mapping[Key, tuple[int, int]], parameters: Mapping[str, Any]
) -> dict[Where, tuple[int, int]]:
    counted: dict[Where, tuple[int, int]] = {}
    for key, (first, last) in spans.items():
        names = dict(zip(("venue", "symbol", "id_series"), key, strict=True))
        own = {**parameters, **names, "first_id": first, "last_id": last}
        for hour_us, rows, distinct in connection.execute(_COUNT, own):
            counted[*key, hour_us] = (rows, distinct)
    return counted
