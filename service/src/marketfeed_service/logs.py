"""Logging: after one call at start every logger of the process writes the same text or JSON lines to stderr.

Repeated lines are summarised, see `log_limit`.
"""

import atexit
import logging
import sys
import threading
from types import TracebackType
from typing import TextIO, cast

import structlog

from marketfeed_service.log_limit import SUMMARY_LOGGER, Episode, RepeatLimit, Summary

__all__ = ["Episode", "configure", "get", "json_lines"]

_active: tuple[logging.Handler, str] | None = None
"""The installed handler and its format, once configured."""


def configure(level: str, log_format: str) -> None:
    """Write the records of the standard library's and structlog's loggers to stderr as `log_format`: "text" or "json".

    Includes Python's warnings and the exception that ends the process. A second call replaces the first.
    """
    global _active
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),  # libraries log through ours: log(40, "%s", text)
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            # If `rich` is installed, the default formatter shows local variables, which may be secrets.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _LimitedHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    if _active is not None:
        _active[0].close()
        root.removeHandler(_active[0])
    root.addHandler(handler)
    root.setLevel(level)
    _active = (handler, log_format)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_crash


class _LimitedHandler(logging.StreamHandler[TextIO]):
    """Handler that writes the lines within the limit, and a summary of the others at the end of each interval."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._limit = RepeatLimit()
        self._timer: threading.Timer | None = None
        atexit.register(self.close)

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` if it is within the limit; the caller holds the handler's lock."""
        self._write(self._limit.ended())
        if self._limit.admits(record):
            super().emit(record)
        elif self._timer is None:
            self._start_timer()

    def close(self) -> None:
        """Write the pending summaries, which would be lost when the process ends."""
        with self._lock_held():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._write(self._limit.ended(all_intervals=True))
        atexit.unregister(self.close)
        super().close()

    def _start_timer(self) -> None:
        # Runs only while lines are suppressed: the summary is written even if nothing else is logged.
        seconds = self._limit.next_end_seconds()
        if seconds is None:
            self._timer = None
            return
        self._timer = threading.Timer(seconds, self._on_timer)
        self._timer.daemon = True
        self._timer.name = "log-summary"
        self._timer.start()

    def _on_timer(self) -> None:
        with self._lock_held():
            if self._timer is not None:  # not closed meanwhile
                self._write(self._limit.ended())
                self._start_timer()

    def _lock_held(self) -> threading.RLock:
        if self.lock is None:  # never: the base class creates one, its type is optional
            self.createLock()
        return cast("threading.RLock", self.lock)

    def _write(self, summaries: list[Summary]) -> None:
        # By the logger, for the common format; the held lock is re-entrant.
        for kind, count in summaries:
            get(SUMMARY_LOGGER).log(
                kind.level, "log lines suppressed", line=kind.text, of=kind.logger, count=count
            )


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger `name`; it takes key-value pairs: ``log.info("connection opened", streams=10)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def json_lines() -> bool:
    """Return whether the format is JSON: then each line of stderr must be one JSON object."""
    return _active is not None and _active[1] == "json"


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        get("marketfeed").critical("crashed", exc_info=(kind, error, trace))
