"""The audit's figures for the metrics, by symbol, cheap enough for every minute.

Reads one row of high_water_marks per symbol, the missing ranges, and the gap records and dead letters that overlap
them; no rows or candles, so the cost does not grow with the data. `marketfeed audit` reports the same by hour, with
ranges and proofs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from marketfeed_consumers.admin.resolution import RESOLUTIONS, GapRows, Resolution, resolve
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.tables import dead_letters, trade_gaps, trades
from marketfeed_consumers.planning.stored_ranges import Key

MAX_SYMBOLS: Final = 5_000
"""Maximum number of symbols with figures, those with the newest trades: each has several time series."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one symbol, all its id series together.

    Attributes:
        stored: number of trades in the table.
        missing: resolution -> number of missing ids.
        open_gaps: number of missing ranges, neither confirmed absent nor older than the retention limit.
        newest_trade_time_us: trade time of the highest id.
        id_series: newest series of its trade ids.
    """

    venue: str
    symbol: str
    stored: int
    missing: dict[Resolution, int]
    open_gaps: int
    newest_trade_time_us: int
    id_series: int = 0

    @property
    def completeness_ratio(self) -> float:
        """Ratio of stored to existing trades: 1 if no id is unresolved or rejected."""
        whole = self.stored + self.missing["unresolved"] + self.missing["rejected"]
        return 1.0 if whole == 0 else self.stored / whole


_MARKS: Final = """
SELECT venue, symbol, id_series, row_count, first_id, last_id, last_time_us FROM high_water_marks
WHERE table_name = %s AND first_id <= last_id
ORDER BY last_time_us DESC LIMIT %s
"""

_MISSING: Final = """
SELECT venue, symbol, id_series, first_trade_id, last_trade_id, after_time_us, before_time_us FROM missing_trades
"""

_ABSENT: Final = """
SELECT g.venue, g.symbol, g.id_series, g.absent, g.proof FROM trade_gaps AS g
WHERE g.absent <> '[]'::jsonb AND (EXISTS (
    SELECT 1 FROM missing_trades AS m
    WHERE m.venue = g.venue AND m.symbol = g.symbol AND m.id_series = g.id_series AND m.first_trade_id <= g.last_id
        AND m.last_trade_id >= g.first_id
) OR EXISTS (
    SELECT 1 FROM trade_gaps AS r
    WHERE r.venue = g.venue AND r.symbol = g.symbol AND r.id_series = g.id_series AND r.first_id <= g.last_id
        AND r.last_id >= g.first_id AND r.missing <> '[]'::jsonb
))
"""

_RETAINED: Final = """
SELECT table_name, venue, symbol, id_series, limit_time_us, deleted_rows, impossible_rows, started_time_us,
    finished_time_us
FROM retention_state
"""


@dataclass(frozen=True, slots=True)
class Retained:
    """The state of retention for a table.

    Attributes:
        deleted: number of rows deleted by all runs.
        impossible: (venue, symbol) -> rows that the newest run kept because their times are impossible.
        unfinished: number of symbols that the newest run has not completed.
        finished_time_us: when a run last completed a symbol.
    """

    table: str
    deleted: int
    impossible: Mapping[tuple[str, str], int]
    unfinished: int
    finished_time_us: int


def figures(connection: DatabaseConnection, now_us: int) -> tuple[list[Figures], list[Retained]]:
    """Return every symbol's figures and the state of retention, of one snapshot; ends the transaction."""
    everything = {"venue": None, "symbol": None}
    retained = connection.execute(_RETAINED).fetchall()
    limits: dict[Key, int] = {}
    deleted: dict[Key, int] = {}
    for table, venue, symbol, id_series, limit_us, rows, *_ in retained:
        if table == trades.NAME:
            limits[venue, symbol, id_series], deleted[venue, symbol, id_series] = limit_us, rows
    marks = connection.execute(_MARKS, [trades.NAME, MAX_SYMBOLS]).fetchall()
    missing = connection.execute(_MISSING).fetchall()
    reported = connection.execute(trade_gaps.OUTSIDE, everything).fetchall()
    ledger = GapRows(
        marks=[(*key, first, last) for *key, _, first, last, _ in marks],
        missing=missing,
        absent=connection.execute(_ABSENT).fetchall() if missing or reported else [],
        rejected=connection.execute(dead_letters.REJECTED, everything).fetchall(),
        reported=reported,
        limits=limits,
        now_us=now_us,
    )
    connection.rollback()
    stored = {
        (venue, symbol, id_series): rows - deleted.get((venue, symbol, id_series), 0)
        for venue, symbol, id_series, rows, *_ in marks
    }
    newest = {(*key,): time_us for *key, _, _, _, time_us in marks}
    return assemble(ledger, stored, newest), summed(retained)


def assemble(
    ledger: GapRows, stored: Mapping[Key, int], newest_us: Mapping[tuple[Any, ...], int]
) -> list[Figures]:
    """Return the figures of the queries' results.

    Args:
        ledger: the rows about missing ids.
        stored: number of stored trades.
        newest_us: trade times of the highest ids.
    """
    found: dict[tuple[str, str], Figures] = {}
    for venue, symbol, id_series, *_ in ledger.marks:
        one = found.get((venue, symbol)) or _none(venue, symbol)
        found[venue, symbol] = replace(
            one,
            stored=one.stored + stored[venue, symbol, id_series],
            newest_trade_time_us=max(one.newest_trade_time_us, newest_us[venue, symbol, id_series]),
            id_series=max(one.id_series, id_series),
        )
    for (venue, symbol, _), span, *_ in resolve(ledger):
        if (venue, symbol) not in found and len(found) >= MAX_SYMBOLS:
            continue
        one = found.get((venue, symbol)) or _none(venue, symbol)
        one.missing[span.resolution] += span.size
        found[venue, symbol] = replace(one, open_gaps=one.open_gaps + span.is_open)
    return list(found.values())


def _none(venue: str, symbol: str) -> Figures:
    return Figures(venue, symbol, 0, dict.fromkeys(RESOLUTIONS, 0), 0, 0)


def summed(rows: Iterable[Sequence[Any]]) -> list[Retained]:
    """Return the state of retention by table; `rows` are those of _RETAINED."""
    found: dict[str, Retained] = {}
    for table, venue, symbol, _, _, deleted, impossible, started_us, finished_us in rows:
        one = found.get(table) or Retained(table, 0, {}, 0, 0)
        kept = dict(one.impossible)
        if impossible:
            kept[venue, symbol] = kept.get((venue, symbol), 0) + impossible
        found[table] = Retained(
            table,
            one.deleted + deleted,
            kept,
            one.unfinished + (finished_us < started_us),
            max(one.finished_time_us, finished_us),
        )
    return [found[table] for table in sorted(found)]
