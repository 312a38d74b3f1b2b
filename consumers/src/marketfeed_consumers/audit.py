"""Is everything there? Per symbol and hour, from the ledger; no row of `trades` is read unless asked for.

candles_1m holds how many trades each minute has, between which ids; missing_trades holds, exactly, the ranges of ids
inside what is stored that are not; trade_gaps what workers proved of them. The three are written in the transaction
that writes the rows, so the answer costs the same for a thousand rows and for a billion an hour. With `deep`, the rows
themselves are counted and compared.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from marketfeed_consumers import database
from marketfeed_consumers.dialects import Dialect
from marketfeed_consumers.knowledge import Key
from marketfeed_consumers.tables import trades
from marketfeed_consumers.transaction import Connection

HOUR_US: Final = 3_600_000_000
Verdict: TypeAlias = Literal["absent", "unresolved"]
Where: TypeAlias = tuple[str, str, int, int]
"""(venue, symbol, id series, hour_us)."""


class Range(NamedTuple):
    """Trade ids that are not stored, and what is known of them.

    Attributes:
        verdict: "absent" when the venue proved that they do not exist; "unresolved" otherwise.
        proof: where a verdict comes from, "" where there is none.
    """

    first_id: int
    last_id: int
    verdict: Verdict
    proof: str

    @property
    def size(self) -> int:
        """How many ids."""
        return self.last_id - self.first_id + 1


@dataclass(frozen=True, slots=True)
class HourReport:
    """One symbol and id series in one hour of trade time.

    Attributes:
        hour_us: when the hour begins, microseconds since the Unix epoch.
        first_id, last_id: None in an hour that holds nothing but missing trades.
        stored: distinct trades in the table.
        missing: ranges not stored; each stands in the hour of the trade before it, or in the first hour looked at
            where that trade is older.
        duplicates: rows beyond one per id: 0 by the table's key, measured with `deep`.
        uncounted: with `deep`, rows that candles_1m does not count (or counts and are not there): 0 when all is well.
        expired: retention has deleted trades of this hour: `stored` is what was, what was missing is not known any
            more, and `deep` does not compare the rows that are left.
    """

    venue: str
    symbol: str
    hour_us: int
    first_id: int | None
    last_id: int | None
    stored: int
    missing: tuple[Range, ...]
    duplicates: int = 0
    uncounted: int = 0
    expired: bool = False
    id_series: int = 0

    @property
    def unresolved(self) -> int:
        """Ids that are missing and not proven absent."""
        return sum(span.size for span in self.missing if span.verdict == "unresolved")

    @property
    def completeness_percent(self) -> float:
        """What is stored of what exists, as far as is known: ids proven absent do not exist."""
        whole = self.stored + self.unresolved
        return 100.0 if whole == 0 else 100.0 * self.stored / whole


@dataclass(frozen=True, slots=True)
class Report:
    """The whole answer.

    Attributes:
        any_stored: whether trades of the venue and symbol asked for are stored at all, at whatever time.
    """

    hours: tuple[HourReport, ...]
    deep: bool
    any_stored: bool = True

    @property
    def is_complete(self) -> bool:
        """Whether something is stored and nothing unresolved, doubled or uncounted."""
        return self.any_stored and not any(
            hour.unresolved or hour.duplicates or hour.uncounted for hour in self.hours
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at; None is everything. Times are microseconds since the Unix epoch, `until_us` excluded."""

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
SELECT venue, symbol, id_series, greatest(after_time_us - after_time_us %% {HOUR_US}, %(since_us)s) AS hour_us,
    first_trade_id, last_trade_id
FROM missing_trades
WHERE {_WHERE} AND before_time_us >= %(since_us)s AND after_time_us < %(until_us)s
ORDER BY 1, 2, 3, 5
"""  # noqa: S608 - constants

_ABSENT: Final = f"""
SELECT venue, symbol, id_series, absent, proof FROM trade_gaps
WHERE {_WHERE} AND absent <> '[]'::jsonb ORDER BY 1, 2, 3, first_id
"""  # noqa: S608 - constants

_MARKS: Final = f"""
SELECT venue, symbol, id_series, first_id, last_id, first_time_us, expired_below_id FROM high_water_marks
WHERE {_WHERE} AND table_name = '{trades.NAME}' AND first_id <= last_id
"""  # noqa: S608 - constants

_COUNT: Final = f"""
SELECT trade_time_us - trade_time_us %% {HOUR_US} AS hour_us, count(*), count(DISTINCT trade_id) FROM trades
WHERE venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
    AND trade_id BETWEEN %(first_id)s AND %(last_id)s
    AND trade_time_us >= %(since_us)s AND trade_time_us < %(until_us)s
GROUP BY 1
"""  # noqa: S608 - constants


def audit(connection: Connection, dialect: Dialect, scope: Scope, *, deep: bool = False) -> Report:
    """Look at what is stored, in one snapshot; on CockroachDB at what was some seconds ago, see `Dialect.snapshot`.

    Args:
        connection: its transaction is ended, and it only reads from then on.
        scope: the hours that `since_us` and `until_us` touch are looked at whole.
        deep: count the rows themselves, by ranges of their key.
    """
    parameters = _parameters(scope)
    connection.rollback()
    database.begin_reading(connection, dialect)
    hours = connection.execute(_HOURS, parameters).fetchall()
    missing = connection.execute(_MISSING, parameters).fetchall()
    absent = connection.execute(_ABSENT, parameters).fetchall()
    marks = connection.execute(_MARKS, parameters).fetchall()
    counted = _deep_counts(connection, _spans(hours, marks, scope), parameters) if deep else None
    connection.rollback()
    expired = [(*mark[:3], mark[5]) for mark in marks if mark[6] > 0]
    return Report(tuple(assemble(hours, missing, absent, expired, counted)), deep, bool(marks or hours))


def _parameters(scope: Scope) -> dict[str, Any]:
    since = 0 if scope.since_us is None else scope.since_us - scope.since_us % HOUR_US
    until = 2**63 - 1 if scope.until_us is None else -(-scope.until_us // HOUR_US) * HOUR_US
    return {"venue": scope.venue, "symbol": scope.symbol, "since_us": since, "until_us": until}


def assemble(
    hours: Iterable[Sequence[Any]],
    missing: Iterable[Sequence[Any]],
    absent: Iterable[Sequence[Any]],
    expired: Iterable[Sequence[Any]],
    counted: Mapping[Where, tuple[int, int]] | None,
) -> list[HourReport]:
    """The report of what the queries found.

    Args:
        hours: (venue, symbol, id series, hour_us, first id, last id, count).
        missing: (venue, symbol, id series, hour_us, first id, last id).
        absent: (venue, symbol, id series, [[first, last], …], proof).
        expired: (venue, symbol, id series, time of the first trade left), where retention has deleted trades.
        counted: (venue, symbol, id series, hour_us) -> rows and distinct ids, where they were counted.
    """
    proven: defaultdict[Key, list[tuple[int, int, str]]] = defaultdict(list)
    for venue, symbol, id_series, spans, proof in absent:
        proven[venue, symbol, id_series] += [(first, last, proof) for first, last in spans]
    ranges: defaultdict[Where, list[Range]] = defaultdict(list)
    for venue, symbol, id_series, hour_us, first, last in missing:
        ranges[venue, symbol, id_series, hour_us] += judged(first, last, proven[venue, symbol, id_series])
    held = {(venue, symbol, id_series, hour_us): rest for venue, symbol, id_series, hour_us, *rest in hours}
    kept_from_us = {(venue, symbol, id_series): time_us for venue, symbol, id_series, time_us in expired}
    reports = []
    for where in sorted({*held, *ranges, *(counted or {})}):
        first_id, last_id, stored = held.get(where, (None, None, 0))
        venue, symbol, id_series, hour_us = where
        is_expired = hour_us <= kept_from_us.get((venue, symbol, id_series), -1)
        rows, distinct = (stored, stored)
        if counted is not None and not is_expired:
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
                is_expired,
                id_series,
            )
        )
    return reports


def judged(first: int, last: int, proven: Iterable[tuple[int, int, str]]) -> list[Range]:
    """The ids `first`..`last` as ranges: those that were proven absent, and the rest."""
    found, at = [], first
    for start, end, proof in sorted(proven):
        start, end = max(start, at), min(end, last)
        if start > end:
            continue
        if at < start:
            found.append(Range(at, start - 1, "unresolved", ""))
        found.append(Range(start, end, "absent", proof))
        at = end + 1
    if at <= last:
        found.append(Range(at, last, "unresolved", ""))
    return found


def _spans(
    hours: Iterable[Sequence[Any]], marks: Iterable[Sequence[Any]], scope: Scope
) -> dict[Key, tuple[int, int]]:
    """Which ids to count: all that the marks tell of, as candles may be lost; between times those of the candles."""
    spans: dict[Key, tuple[int, int]] = {
        (venue, symbol, id_series): (first, last) for venue, symbol, id_series, first, last, *_ in marks
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
    connection: Connection, spans: Mapping[Key, tuple[int, int]], parameters: Mapping[str, Any]
) -> dict[Where, tuple[int, int]]:
    counted: dict[Where, tuple[int, int]] = {}
    for key, (first, last) in spans.items():
        names = dict(zip(("venue", "symbol", "id_series"), key, strict=True))
        own = {**parameters, **names, "first_id": first, "last_id": last}
        for hour_us, rows, distinct in connection.execute(_COUNT, own):
            counted[*key, hour_us] = (rows, distinct)
    return counted
