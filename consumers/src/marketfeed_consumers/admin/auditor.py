"""Periodic audit for the metrics, in its own thread and connection, so that writes never wait for it.

The figures are of the whole database, so only one consumer collects them: the owner of the first partition of the
trades' topic. Each symbol therefore has one time series, whatever the number of processes.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psycopg

from marketfeed_consumers.admin.completeness import MAX_SYMBOLS, Figures, Retained, figures
from marketfeed_consumers.database import connections
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_service import logs

log = logs.get(__name__)

_STATEMENT_SECONDS: Final = 30
"""Timeout of one query."""
_STOP_SECONDS: Final = 2.0
_TICK_SECONDS: Final = 1.0
"""How soon a process detects that it has become the owner, or is no longer."""


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """The figures of the newest audit.

    Attributes:
        retained: the state of retention by table.
        time_seconds: time of the audit, since the Unix epoch.
        seconds: duration of the audit.
    """

    figures: Sequence[Figures] = ()
    retained: Sequence[Retained] = ()
    time_seconds: float = 0.0
    seconds: float = 0.0


class Auditor:
    """Audits every `interval_seconds` (0: never) while `is_ours` returns true; use it in a ``with`` block.

    Attributes:
        taken: the newest figures; None before the first audit, or if another process is the owner.
        failures: audits that failed with a database error.
    """

    def __init__(self, url: str, interval_seconds: float, is_ours: Callable[[], bool]) -> None:
        self.taken: AuditFigures | None = None
        self.failures = 0
        self._url = url
        self._interval_seconds = interval_seconds
        self._is_ours = is_ours
        self._failing = logs.Episode(log, "audit metrics failing", "audit metrics taken")
        self._cut = logs.Episode(
            log, "more symbols stored than have metrics", "all stored symbols have metrics"
        )
        self._stop = threading.Event()
        self._connection: DatabaseConnection | None = None
        self._thread = threading.Thread(target=self._run, name="auditor", daemon=True)

    def __enter__(self) -> "Auditor":
        if self._interval_seconds:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        connection = self._connection
        if connection is not None:
            with suppress(psycopg.Error):  # it has ended meanwhile
                connection.cancel_safe(timeout=_STOP_SECONDS)
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        due_at = 0.0
        while not self._stop.wait(min(_TICK_SECONDS, self._interval_seconds)):
            if not self._is_ours():
                self.taken, due_at = None, 0.0
            elif time.monotonic() >= due_at:
                due_at = time.monotonic() + self._interval_seconds
                self._try()

    def _try(self) -> None:
        try:
            self.taken = self._take()
            self._failing.end()
        except psycopg.Error as error:
            if self._stop.is_set():
                return
            self.failures += 1
            self._failing.begin(reason=connections.explain(error))

    def _take(self) -> AuditFigures | None:
        began = time.monotonic()
        self._connection, dialect = connections.connect(self._url)
        with self._connection as connection:
            if self._stop.is_set():  # __exit__ found no connection to cancel
                return self.taken
            connections.begin_read_only(connection, dialect)
            connection.execute(f"SET LOCAL statement_timeout = '{_STATEMENT_SECONDS}s'")
            found, retained = figures(connection, time.time_ns() // 1000)
        if len(found) == MAX_SYMBOLS:
            self._cut.begin(symbols=MAX_SYMBOLS)
        else:
            self._cut.end(symbols=len(found))
        return AuditFigures(found, retained, time.time(), time.monotonic() - began)
