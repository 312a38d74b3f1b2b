"""The oracle's index of the topics' records by symbol."""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from marketfeed_simtest.kafka_log import Record
from marketfeed_simtest.truth import TrueTrade
from marketfeed_wire import Gap


@dataclass(slots=True)
class Stored:
    """A record of a trade: process and time of the write."""

    life: int
    seconds: float


@dataclass(slots=True)
class SeriesRecords:
    """One id series of a symbol, as numbered in the messages.

    Attributes:
        stands_for: the venue's series; None before a trade of it is in the topic.
        begins: first id; None before its first record.
        checkpoint: newest checkpoint.
        gaps: first id -> newest record of that gap.
        gaps_ever: ranges that ever had a record, and the time of its first write.
        uncovered: trades after the checkpoint: id, time of the write, process.
    """

    stands_for: int | None = None
    begins: int | None = None
    checkpoint: int | None = None
    gaps: dict[int, tuple[Gap, Record]] = field(default_factory=dict)
    gaps_ever: dict[tuple[int, int], float] = field(default_factory=dict)
    uncovered: deque[tuple[int, float, int]] = field(default_factory=deque)

    def missing_known_to(self, life: int, began: float) -> list[tuple[int, int]]:
        """Return the ids reported missing by a process, or by others before it began; it never reads later reports."""
        return merged(
            span
            for gap, record in self.gaps.values()
            if record.life == life or record.seconds <= began
            for span in gap.missing
        )

    def is_reported(self, number: int) -> bool:
        """Return whether the newest gap records report an id missing."""
        return any(inside(gap.missing, number) for gap, _ in self.gaps.values())


@dataclass(slots=True)
class SymbolRecords:
    """One symbol. Trades are named by the venue's series of their ids, and the id.

    Attributes:
        series: id series of the messages.
        stored: trade -> its records.
        unstored: the venue's series -> ids that the venue had and that are not in the topic, in order.
        identities: (id series of the messages, id) -> the venue's series.
        newest: (process, series) -> highest id that it published.
        suspects: trades out of order so far, unless a gap record covers them: trade, highest id before, time.
        repeats: trades that two processes published: the first record and the later one.
        left: times at which the symbol was removed from the assignment.
    """

    series: dict[int, SeriesRecords] = field(default_factory=lambda: defaultdict(SeriesRecords))
    stored: dict[tuple[int, int], list[Stored]] = field(default_factory=dict)
    unstored: dict[int, dict[int, TrueTrade]] = field(default_factory=lambda: defaultdict(dict))
    identities: dict[tuple[int, int], int] = field(default_factory=dict)
    newest: dict[tuple[int, int], int] = field(default_factory=dict)
    suspects: list[tuple[tuple[int, int], int, float]] = field(default_factory=list)
    repeats: list[tuple[tuple[int, int], Stored, Stored]] = field(default_factory=list)
    checked: int = 0
    left: list[float] = field(default_factory=list)

    def standing_for(self, series: int) -> SeriesRecords | None:
        """Return the newest id series of the messages for one of the venue's."""
        return next(
            (one for _, one in sorted(self.series.items(), reverse=True) if one.stands_for == series), None
        )

    @property
    def latest(self) -> SeriesRecords | None:
        """Return the newest id series of the messages; None before the first."""
        return self.series[max(self.series)] if self.series else None


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same ids as ranges that do not overlap, in order."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def inside(ranges: Iterable[tuple[int, int]], number: int) -> bool:
    """Return whether a number is in one of the ranges, both ends included."""
    return any(first <= number <= last for first, last in ranges)
