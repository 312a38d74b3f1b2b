"""Bounded logs: repeated lines are counted and summarised, states are logged when they begin and when they end.

One mechanism for every logger of a process, including those of libraries: `RepeatLimit` filters the records of the only
handler. A repeated line is written a few times per interval; the others of the interval become one line with their
count. A lasting state (an unreachable broker, a locked table) is an `Episode`: two lines, whatever its duration.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

INTERVAL_SECONDS: Final = 60.0
"""Length of an interval: the first lines of each kind are written, and one summary at its end."""

MAX_LINES: Final = 10
"""Maximum lines of one kind per interval: lines of one event usually differ by symbol or partition."""

MAX_LIBRARY_LINES: Final = 1
"""The same for library loggers, where the kind is the text without digits: librdkafka logs each attempt."""

MAX_KINDS: Final = 1000
"""Maximum kinds counted at a time; further kinds of an interval are counted as one, to bound memory."""

SUMMARY_LOGGER: Final = "marketfeed.logs"
"""Logger of the summaries."""

_VARYING: Final = re.compile(r"0x[0-9a-fA-F]+|\d+")


class Kind(NamedTuple):
    """The key by which lines count as repeated."""

    logger: str
    level: int
    text: str
    """The event; for a library's line its text, with "#" in place of each number."""


class Summary(NamedTuple):
    """Lines of one kind that were not written in an interval."""

    kind: Kind
    suppressed: int


@dataclass(slots=True)
class _Interval:
    begun: float
    lines: int = 0


class RepeatLimit:
    """Limits repeated log records. Not thread-safe: guarded by the handler's lock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._intervals: dict[Kind, _Interval] = {}

    def admits(self, record: logging.LogRecord) -> bool:
        """Return whether `record` is written; critical records and summaries always are."""
        if record.levelno >= logging.CRITICAL or record.name == SUMMARY_LOGGER:
            return True
        kind, max_lines = _kind(record)
        if kind not in self._intervals and len(self._intervals) >= MAX_KINDS:
            kind = Kind("", logging.WARNING, "lines of further kinds")
        interval = self._intervals.setdefault(kind, _Interval(self._monotonic()))
        interval.lines += 1
        return interval.lines <= max_lines

    def ended(self, *, all_intervals: bool = False) -> list[Summary]:
        """Remove the intervals that have ended; return the summaries of their suppressed lines."""
        now = self._monotonic()
        ended = {
            kind: interval
            for kind, interval in self._intervals.items()
            if all_intervals or now - interval.begun >= INTERVAL_SECONDS
        }
        for kind in ended:
            del self._intervals[kind]
        return [
            Summary(kind, interval.lines - _max_lines(kind))
            for kind, interval in ended.items()
            if interval.lines > _max_lines(kind)
        ]

    def next_end_seconds(self) -> float | None:
        """Return the seconds until the first interval with suppressed lines ends; None without one."""
        ends = [
            interval.begun + INTERVAL_SECONDS
            for kind, interval in self._intervals.items()
            if interval.lines > _max_lines(kind)
        ]
        return max(0.0, min(ends) - self._monotonic()) if ends else None


def _kind(record: logging.LogRecord) -> tuple[Kind, int]:
    if isinstance(record.msg, dict):  # of structlog: `event` is constant, values are separate fields
        kind = Kind(record.name, record.levelno, str(record.msg.get("event", "")))
        if record.name.startswith("marketfeed"):
            return kind, MAX_LINES
    else:
        kind = Kind(record.name, record.levelno, record.getMessage())
    kind = kind._replace(text=_VARYING.sub("#", kind.text)[:300])
    return kind, MAX_LIBRARY_LINES


def _max_lines(kind: Kind) -> int:
    return MAX_LINES if kind.logger.startswith("marketfeed") else MAX_LIBRARY_LINES


class Episode:
    """A state that begins and ends: one log line each, however often it is reported in between.

    Attributes:
        active: whether the state holds.
    """

    def __init__(
        self,
        log: Any,
        began: str,
        ended: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an episode that has not begun.

        Args:
            log: the logger.
            began: event of the first line, for example "writes paused".
            ended: event of the second line, for example "writes resumed".
            monotonic: clock of the duration.
        """
        self.active = False
        self._log = log
        self._began = began
        self._ended = ended
        self._monotonic = monotonic
        self._since = 0.0
        self._occurrences = 0

    def begin(self, **fields: Any) -> None:
        """Report that the state holds: log the first report, count the others."""
        self._occurrences += 1
        if not self.active:
            self.active = True
            self._since = self._monotonic()
            self._log.warning(self._began, **fields)

    def end(self, **fields: Any) -> None:
        """Report that the state does not hold: if it had begun, log its duration and the number of reports."""
        if self.active:
            self._log.info(
                self._ended,
                seconds=round(self._monotonic() - self._since, 1),
                occurrences=self._occurrences,
                **fields,
            )
        self.active = False
        self._occurrences = 0
