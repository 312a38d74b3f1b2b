"""The worker's log in a session: its lines and their number, after the rate limit of its handler."""

import logging
from collections import Counter, deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import structlog

from marketfeed_service.log_limit import RepeatLimit
from marketfeed_simtest.clock import Clock


class Line(NamedTuple):
    """A line of the log, by the session's clock."""

    seconds: float
    life: int
    level: str
    logger: str
    event: str
    fields: dict[str, Any]


class LogLines:
    """Replaces structlog's output for one session.

    Attributes:
        keep: whether to keep the lines for printing.
        lines: kept lines.
        events: event -> number of its lines.
        life: number of the process that was started last.
        most_a_minute: maximum number of lines within any minute of a process.
    """

    ALLOWED_A_MINUTE: Final = 200

    def __init__(self, clock: Clock) -> None:
        self.keep = False
        self.lines: list[Line] = []
        self.events: Counter[str] = Counter()
        self.life = 0
        self.most_a_minute = 0
        self._clock = clock
        self._limit_of = 0
        self._limit = self._new_limit()
        self._written: deque[float] = deque()

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Redirect every logger of the project."""
        before = structlog.get_config()
        structlog.configure(
            processors=[self._take],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=_Named,
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    def _new_limit(self) -> RepeatLimit:
        return RepeatLimit(lambda: self._clock.seconds)

    def _take(self, logger: "_Named", method: str, fields: MutableMapping[str, Any]) -> Any:
        if not logger.name.startswith("marketfeed_simulator"):
            event = str(fields.get("event", ""))
            self.events[event] += 1
            if self.keep:
                others = {name: value for name, value in fields.items() if name != "event"}
                self.lines.append(Line(self._clock.seconds, self.life, method, logger.name, event, others))
            self._count(logger.name, method, fields)
        raise structlog.DropEvent

    def _count(self, name: str, method: str, fields: MutableMapping[str, Any]) -> None:
        if self._limit_of != self.life:
            self._limit_of, self._limit = self.life, self._new_limit()
            self._written.clear()
        now = self._clock.seconds
        level = logging.getLevelName(method.upper())
        record = logging.LogRecord(name, level, "", 0, dict(fields), (), None)
        lines = len(self._limit.ended()) + self._limit.admits(record)
        self._written.extend([now] * lines)
        while self._written and self._written[0] < now - 60:
            self._written.popleft()
        self.most_a_minute = max(self.most_a_minute, len(self._written))


class _Named:
    """The end of structlog's chain, which nothing reaches; it holds the logger's name."""

    def __init__(self, name: str = "", *_: Any) -> None:
        self.name = name

    def __getattr__(self, _: str) -> Any:
        return self._drop

    def _drop(self, *_: Any, **__: Any) -> None:
        return None
