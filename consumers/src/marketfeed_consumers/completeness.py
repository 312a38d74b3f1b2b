"""The audit in a few figures a symbol, cheap enough to be taken every minute: what the metrics show.

Read from the ledger alone: a row of high_water_marks a symbol, the ranges that are missing, and the verdicts that
touch one of them. Rows and candles are not read, so the cost does not grow with the data. `marketfeed audit` tells the
same by the hour, with ranges and proof.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from marketfeed_consumers.audit import Verdict, judged
from marketfeed_consumers.knowledge import Key
from marketfeed_consumers.tables import trades
from marketfeed_consumers.transaction import Connection

MAX_SYMBOLS: Final = 5_000
"""How many symbols have figures at most, those with the newest trades: each is some time series in Prometheus."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One symbol, all its id series together.

    Attributes:
        stored: trades in the table.
        missing: verdict -> ids between the first and the last trade stored that are not stored.
        open_gaps: ranges of ids that are missing and not proven absent.
        newest_trade_time_us: when the trade with the highest id was matched.
        id_series: the newest series of its trade ids.
    """

    venue: str
    symbol: str
    stored: int
    missing: dict[Verdict, int]
    open_gaps: int
    newest_trade_time_us: int
    id_series: int = 0

    @property
    def completeness_ratio(self) -> float:
        """What is stored of what exists, as far as is known: 1 when nothing is unresolved."""
        whole = self.stored + self.missing["unresolved"]
        return 1.0 if whole == 0 else self.stored / whole


_MARKS: Final = """
SELECT venue, symbol, id_series, row_count, last_time_us FROM high_water_marks
WHERE table_name = %s AND first_id <= last_id
ORDER BY last_time_us DESC LIMIT %s
"""

_MISSING: Final = """
SELECT venue, symbol, id_series, first_trade_id, last_trade_id FROM missing_trades
ORDER BY venue, symbol, id_series, first_trade_id
"""

_ABSENT: Final = """
SELECT g.venue, g.symbol, g.id_series, g.absent, g.proof FROM trade_gaps AS g
WHERE g.absent <> '[]'::jsonb AND EXISTS (
    SELECT 1 FROM missing_trades AS m
    WHERE m.venue = g.venue AND m.symbol = g.symbol AND m.id_series = g.id_series AND m.first_trade_id <= g.last_id
        AND m.last_trade_id >= g.first_id
)
"""


def figures(connection: Connection) -> list[Figures]:
    """Every symbol's figures, in one snapshot; the transaction is ended."""
    marks = connection.execute(_MARKS, [trades.NAME, MAX_SYMBOLS]).fetchall()
    missing = connection.execute(_MISSING).fetchall()
    absent = connection.execute(_ABSENT).fetchall() if missing else []
    connection.rollback()
    return assemble(marks, missing, absent)


def assemble(
    marks: Iterable[Sequence[Any]], missing: Iterable[Sequence[Any]], absent: Iterable[Sequence[Any]]
) -> list[Figures]:
    """The figures of what the queries found.

    Args:
        marks: (venue, symbol, id series, rows, newest trade's time in microseconds).
        missing: (venue, symbol, id series, first id, last id).
        absent: (venue, symbol, id series, [[first, last], …], proof).
    """
    proven: defaultdict[Key, list[tuple[int, int, str]]] = defaultdict(list)
    for venue, symbol, id_series, spans, proof in absent:
        proven[venue, symbol, id_series] += [(first, last, proof) for first, last in spans]
    found: dict[tuple[str, str], Figures] = {}
    for venue, symbol, id_series, stored, newest_us in marks:
        one = found.get((venue, symbol))
        if one is None:
            one = found[venue, symbol] = Figures(venue, symbol, 0, {"absent": 0, "unresolved": 0}, 0, 0)
        found[venue, symbol] = replace(
            one,
            stored=one.stored + stored,
            newest_trade_time_us=max(one.newest_trade_time_us, newest_us),
            id_series=max(one.id_series, id_series),
        )
    for venue, symbol, id_series, first, last in missing:
        one = found.get((venue, symbol))
        if one is None:
            continue  # beyond MAX_SYMBOLS
        for span in judged(first, last, proven[venue, symbol, id_series]):
            one.missing[span.verdict] += span.size
            if span.verdict == "unresolved":
                one = found[venue, symbol] = replace(one, open_gaps=one.open_gaps + 1)
    return list(found.values())
