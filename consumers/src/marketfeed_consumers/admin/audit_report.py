"""The result of an audit: reports by hour and symbol, and conflicts."""

from dataclasses import dataclass
from typing import NamedTuple

from marketfeed_consumers.admin.resolution import Range


@dataclass(frozen=True, slots=True)
class HourReport:
    """One symbol and id series in one hour of trade time.

    Attributes:
        hour_us: begin of the hour, microseconds since the Unix epoch.
        first_id, last_id: None in an hour with missing trades only.
        stored: distinct trades in the table.
        missing: missing ranges, each in the hour of the trade before it, or in the first hour of the report if that
            trade is older.
        duplicates: rows beyond one per id: 0 by the table's key, measured with `deep`.
        uncounted: with `deep`, the difference between the rows and the count of candles_1m; 0 is expected.
        expired: whether retention deletes trades of this hour: `stored` counts them, and `deep` does not compare the
            remaining rows.
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
        """Missing ids, neither confirmed absent nor older than the retention limit."""
        return sum(span.size for span in self.missing if span.is_open)

    @property
    def completeness_percent(self) -> float:
        """Percentage of stored trades among existing ones; ids confirmed absent do not exist."""
        whole = self.stored + self.unresolved
        return 100.0 if whole == 0 else 100.0 * self.stored / whole


class ConflictReport(NamedTuple):
    """Conflicts of one symbol and series: messages with stored ids and another content.

    Attributes:
        table: "trades" or "book_tickers".
        ids: number of ids, between `first_id` and `last_id`.
        messages: number of messages.
    """

    table: str
    venue: str
    symbol: str
    id_series: int
    ids: int
    first_id: int
    last_id: int
    messages: int


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an audit.

    Attributes:
        any_stored: whether any trade of the selected venue and symbol is stored, at any time.
        conflicts: the conflicts of these hours.
    """

    hours: tuple[HourReport, ...]
    deep: bool
    any_stored: bool = True
    conflicts: tuple[ConflictReport, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether trades are stored, without unresolved ids, conflicts, duplicates or uncounted rows."""
        return (
            self.any_stored
            and not self.conflicts
            and not any(hour.unresolved or hour.duplicates or hour.uncounted for hour in self.hours)
        )
