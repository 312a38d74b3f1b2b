"""The rows that `retain` may delete, and must delete: compared with each deleted row, and each row that a run keeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from marketfeed_simtest.consumers.store import Key, Row

_EARLIEST_US: Final = 1_230_768_000_000_000
_DELETED_BY_RETENTION: Final = (
    "trades", "book_tickers", "dead_letters", "trade_conflicts", "quote_conflicts"
)  # fmt: skip
"""Tables from which nothing else deletes; `rebuild` deletes candles and recomputes them."""


def time_of(table: str, row: Row) -> int:
    """Return the time of a row by which retention deletes it."""
    names = {"trades": "trade_time_us", "book_tickers": "received_time_us", "candles_1m": "open_time_us"}
    return int(row[names.get(table, "stored_time_us")])


@dataclass(slots=True)
class RetentionRun:
    """A run of `retain`.

    Attributes:
        old: keys of rows that were old when it began, without the newest of each symbol and rows written since.
        rebuilds: number of earlier rebuilds when it began.
    """

    table: str
    limit_us: int
    old: set[Key] = field(default_factory=set)
    rebuilds: int = 0


class RetentionJudge:
    """Checks retention.

    Attributes:
        runs: all runs that have begun.
        rebuilds, rebuilding: number of rebuilds of candles that have begun, and of running ones.
    """

    def __init__(
        self,
        tables: Mapping[str, Mapping[Key, Row]],
        ever: Mapping[str, Mapping[Key, Row]],
        violate: Callable[[str, str], None],
    ) -> None:
        """Keep references to the current rows, and to trades and quotes ever stored."""
        self.runs: list[RetentionRun] = []
        self.rebuilds = 0
        self.rebuilding = 0
        self._tables = tables
        self._ever = ever
        self._violate = violate

    def limit(self, table: str) -> int:
        """Return the highest limit of a table so far."""
        return max((run.limit_us for run in self.runs if run.table == table), default=0)

    def begin(self, table: str, limit_us: int) -> RetentionRun:
        """A run of `retain`, before it does anything."""
        run = RetentionRun(table, limit_us, rebuilds=self.rebuilds)
        self.runs.append(run)
        newest = self._newest(table)
        run.old = {
            key
            for key, row in self._tables[table].items()
            if self._is_old(table, row, limit_us, 0) and newest.get(key[:3]) != key[3]
        }
        return run

    def end(self, run: RetentionRun) -> None:
        """It has come to its end."""
        if run.table == "candles_1m" and (self.rebuilding or self.rebuilds != run.rebuilds):
            return  # recomputed candles are equal to the previous ones
        for key in run.old & self._tables[run.table].keys():
            self._violate("retention_left", f"{run.table} {key}, limit {run.limit_us}")

    def changed(self, table: str, key: Key, old: Row | None, row: Row | None) -> None:
        """Check a row that a transaction has written or deleted.

        Args:
            table: name of the table.
            key: key of the row.
            old: previous row, if any.
            row: new row; None where it was deleted.
        """
        if row is not None:
            for run in self.runs:
                if run.table == table:
                    run.old.discard(key)
        elif old is not None and table in _DELETED_BY_RETENTION:
            limit, is_newest = self.limit(table), self._newest(table).get(key[:3]) == key[3]
            if is_newest or not self._is_old(table, old, limit, self.limit("trades")):
                self._violate("deleted_young", f"{table} {key}: {old}, limit {limit}, newest: {is_newest}")

    def _newest(self, table: str) -> dict[Key, int]:
        """Return the newest id ever stored of each symbol and series of trades and quotes."""
        newest: dict[Key, int] = {}
        for key in self._ever.get(table, ()):
            newest[key[:3]] = max(newest.get(key[:3], -1), key[3])
        return newest

    def _is_old(self, table: str, row: Row, limit_us: int, trades_limit_us: int) -> bool:
        """Return whether a limit allows a row to be deleted."""
        match table:
            case "dead_letters":
                return bool(row["stored_time_us"] < limit_us) and self._is_dispensable(row, trades_limit_us)
            case "trade_conflicts":
                times = [row["trade_time_us"], row["stored_trade_time_us"]]
            case "quote_conflicts":
                times = [row["received_time_us"]]
            case _:
                times = [time_of(table, row)]
        latest = max([*times, row.get("noticed_time_us", 0)])
        return bool(min(times) >= _EARLIEST_US and latest < limit_us)

    def _is_dispensable(self, letter: Row, trades_limit_us: int) -> bool:
        """Return whether a dead letter is not the only record of a trade that may be recent."""
        key = (letter["venue"], letter["symbol"], letter["id_series"], letter["trade_id"])
        is_stored = letter["trade_id"] is None or key in self._ever["trades"]
        return is_stored or bool(letter["stored_time_us"] < trades_limit_us)
