"""Bounded logs: repeated lines are counted and summarised, states are logged when they begin and when they end.

One mechanism for every logger of a process, ours and the libraries': `RepeatLimit` stands in front of the only
handler. A line that repeats is written a few times an interval; the others of the interval become one line with their
count. What lasts (a broker that is away, a table that is locked) is an `Episode`: two lines, however long it lasts.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

INTERVAL_SECONDS: Final = 60.0
"""Length of an interval: each kind of line has its first lines of it written, and one summary at its end."""

MAX_LINES: Final = 10
"""Lines of one kind written in an interval: lines of one event usually differ by symbol or partition."""

MAX_LIBRARY_LINES: Final = 1
"""The same for lines of libraries, whose kind is their text without digits: librdkafka writes one an attempt."""

MAX_KINDS: Final = 1000
"""Kinds counted at a time; further kinds of the same interval count as one, so that memory stays bounded."""

SUMMARY_LOGGER: Final = "marketfeed.logs"
"""Logger of the summaries."""

_VARYING: Final = re.compile(r"0x[0-9a-fA-F]+|\d+")


class Kind(NamedTuple):
    """What repeated lines have in common."""

    logger: str
    level: int
    text: str
    """The event of a line of ours; of a library's line its text, with "#" for each number."""


class Summary(NamedTuple):
    """Lines of one kind that were not written in an interval."""

    kind: Kind
    suppressed: int


@dataclass(slots=True)
class _Interval:
    begun: float
    lines: int = 0


class RepeatLimit:
    """Decides which log records are written. Not thread-safe: the handler's lock guards it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._intervals: dict[Kind, _Interval] = {}

    def admits(self, record: logging.LogRecord) -> bool:
        """Whether `record` is written; a critical record and a summary always are."""
        if record.levelno >= logging.CRITICAL or record.name == SUMMARY_LOGGER:
            return True
        kind, max_lines = _kind(record)
        if kind not in self._intervals and len(self._intervals) >= MAX_KINDS:
            kind = Kind("", logging.WARNING, "lines of further kinds")
        interval = self._intervals.setdefault(kind, _Interval(self._monotonic()))
        interval.lines += 1
        return interval.lines <= max_lines

    def ended(self, *, all_intervals: bool = False) -> list[Summary]:
        """Remove the intervals that have ended; return what was not written in them."""
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
        """Seconds until the first interval with unwritten lines ends; None without one."""
        ends = [
            interval.begun + INTERVAL_SECONDS
            for kind, interval in self._intervals.items()
            if interval.lines > _max_lines(kind)
        ]
        return max(0.0, min(ends) - self._monotonic()) if ends else None


def _kind(record: logging.LogRecord) -> tuple[Kind, int]:
    if isinstance(record.msg, dict):  # structlog's; `event` holds no values, those are fields of their own
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
    """A state that begins and ends: one log line each, whatever happens in between.

    Attributes:
        active: whether the state lasts.
    """

    def __init__(
        self,
        log: Any,
        began: str,
        ended: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`began` and `ended`: the two events, for example "writes paused" and "writes resumed"."""
        self.active = False
        self._log = log
        self._began = began
        self._ended = ended
        self._monotonic = monotonic
        self._since = 0.0
        self._occurrences = 0

    def begin(self, **fields: Any) -> None:
        """The state holds: log it when it begins, count it while it lasts."""
        self._occurrences += 1
        if not self.active:
            self.active = True
            self._since = self._monotonic()
            self._log.warning(self._began, **fields)

    def end(self, **fields: Any) -> None:
        """The state no longer holds: log its duration in seconds and how often it was met, if it had begun."""
        if self.active:
            self._log.info(
                self._ended,
                seconds=round(self._monotonic() - self._since, 1),
                occurrences=self._occurrences,
                **fields,
            )
        self.active = False
        self._occurrences = 0
