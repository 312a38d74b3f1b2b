"""What `retain` may delete, and what it must: held against each row that is deleted, and each that a run leaves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from marketfeed_simtest.consumers.store import Key, Row

_EARLIEST_US: Final = 1_230_768_000_000_000
_DELETED_BY_RETENTION: Final = (
    "trades", "book_tickers", "dead_letters", "trade_conflicts", "quote_conflicts"
)  # fmt: skip
"""Tables of which nothing else deletes; `rebuild` deletes candles and makes them again."""


def time_of(table: str, row: Row) -> int:
    """The time of a row that retention goes by."""
    names = {"trades": "trade_time_us", "book_tickers": "received_time_us", "candles_1m": "open_time_us"}
    return int(row[names.get(table, "stored_time_us")])


@dataclass(slots=True)
class RetentionRun:
    """A run of `retain`.

    Attributes:
        old: keys of what was old when it began, but for the newest of each symbol; without what was written since.
        rebuilds: how many rebuilds there had been when it began.
    """

    table: str
    limit_us: int
    old: set[Key] = field(default_factory=set)
    rebuilds: int = 0


class RetentionJudge:
    """Judges retention.

    Attributes:
        runs: all runs that have begun.
        rebuilds, rebuilding: how many rebuilds of candles have begun, and how many have not ended.
    """

    def __init__(
        self,
        tables: Mapping[str, Mapping[Key, Row]],
        ever: Mapping[str, Mapping[Key, Row]],
        violate: Callable[[str, str], None],
    ) -> None:
        """Take the rows as they stand, and trades and quotes that were ever stored."""
        self.runs: list[RetentionRun] = []
        self.rebuilds = 0
        self.rebuilding = 0
        self._tables = tables
        self._ever = ever
        self._violate = violate

    def limit(self, table: str) -> int:
        """The highest limit of a table that there ever was."""
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
            return  # candles that are made again look as they did before
        for key in run.old & self._tables[run.table].keys():
            self._violate("retention_left", f"{run.table} {key}, limit {run.limit_us}")

    def changed(self, table: str, key: Key, old: Row | None, row: Row | None) -> None:
        """A transaction has written or deleted a row."""
        if row is not None:
            for run in self.runs:
                if run.table == table:
                    run.old.discard(key)
        elif old is not None and table in _DELETED_BY_RETENTION:
            limit, is_newest = self.limit(table), self._newest(table).get(key[:3]) == key[3]
            if is_newest or not self._is_old(table, old, limit, self.limit("trades")):
                self._violate("deleted_young", f"{table} {key}: {old}, limit {limit}, newest: {is_newest}")

    def _newest(self, table: str) -> dict[Key, int]:
        """Of trades and quotes the newest id of each symbol and series that was ever stored."""
        newest: dict[Key, int] = {}
        for key in self._ever.get(table, ()):
            newest[key[:3]] = max(newest.get(key[:3], -1), key[3])
        return newest

    def _is_old(self, table: str, row: Row, limit_us: int, trades_limit_us: int) -> bool:
        """Whether a limit lets a row be deleted."""
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
        """Whether a dead letter is not all that is known of a trade that may be young."""
        key = (letter["venue"], letter["symbol"], letter["id_series"], letter["trade_id"])
        is_stored = letter["trade_id"] is None or key in self._ever["trades"]
        return is_stored or bool(letter["stored_time_us"] < trades_limit_us)
