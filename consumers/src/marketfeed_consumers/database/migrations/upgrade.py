"""Runs the migration steps by Alembic. Imported by `migrate` only: Alembic and SQLAlchemy are slow to load.

A step that changes a table needs a lock that excludes readers, and other statements queue behind a waiting step. So a
step waits for its lock for a short time only, and retries after a pause that lets the queue proceed.
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from marketfeed_consumers.database import connections
from marketfeed_consumers.database.dialects import Dialect
from marketfeed_service import logs

log = logs.get(__name__)

LOCK_TIMEOUT_MS: Final = 500
"""How long a step, and the statements queued behind it, wait for a lock."""
PAUSE_SECONDS: Final = 2.0
"""Pause between two attempts: four times the lock timeout."""


class LockNotAvailable(Exception):
    """A step did not get its lock within the deadline; the text names the holders."""


def to_head(
    url: str,
    dialect: Dialect,
    deadline_seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Run the pending steps.

    Args:
        url: the connection URL.
        dialect: the database's dialect.
        deadline_seconds: how long to retry while other transactions hold locks on the tables.
        clock: clock of the deadline.
        sleep: pauses between the attempts.

    Raises:
        LockNotAvailable: the locks were not available within the deadline.
        psycopg.Error: the database is unreachable, or rejects a step.
    """
    deadline, logged = clock() + deadline_seconds, ""
    while True:
        try:
            to_version(url, dialect, "head")
        except _LockTimeout as timeout:
            held = holders(url, timeout.tables)
            if clock() + PAUSE_SECONDS > deadline:
                raise LockNotAvailable(
                    f"no lock on {', '.join(timeout.tables) or 'a table'} within {deadline_seconds:g} s; {held}"
                ) from timeout
            who = re.sub(r" for \d+ s", "", held)
            if who != logged:
                log.warning(
                    "waiting for a lock of the migration",
                    tables=", ".join(timeout.tables),
                    holders=held,
                    seconds_left=round(deadline - clock()),
                )
                logged = who
            sleep(PAUSE_SECONDS)
        else:
            return


class _LockTimeout(Exception):
    def __init__(self, tables: tuple[str, ...]) -> None:
        super().__init__(tables)
        self.tables = tables


def to_version(url: str, dialect: Dialect, version: str) -> None:
    """Run the steps up to `version` once, for tests that begin at an older release's schema.

    Args:
        url: the connection URL.
        dialect: the database's dialect.
        version: the last step.

    Raises:
        psycopg.Error: the database cannot be reached, or refuses a step.
    """
    driver = "postgresql+psycopg" if dialect.name == "postgresql" else "cockroachdb+psycopg"
    # libpq reads the URL, not SQLAlchemy, so that every option of libpq works here too.
    engine = create_engine(f"{driver}://", creator=lambda: _connect(url), poolclass=NullPool)
    if dialect.lock_timeout:
        event.listen(engine, "begin", lambda connection: _limit(connection, dialect.lock_timeout))
    settings = config()
    settings.attributes["dialect"] = dialect
    try:
        with engine.connect() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, version)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise _LockTimeout(_tables(error.statement or "")) from error
        if isinstance(error.orig, psycopg.Error):  # the one place that knows SQLAlchemy is in between
            raise error.orig from error
        raise


def _connect(url: str) -> Any:
    connection, _ = connections.connect(url)
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return connection


def _limit(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement.format(milliseconds=LOCK_TIMEOUT_MS))


_TABLE: Final = re.compile(
    r"\b(?:TABLE|ON|INDEX|UPDATE|INTO|FROM|VIEW)\s+(?:IF EXISTS\s+|ONLY\s+)?([a-z_][a-z_0-9]*)", re.IGNORECASE
)


def _tables(statement: str) -> tuple[str, ...]:
    """Return the tables that `statement` may lock."""
    return tuple(dict.fromkeys(_TABLE.findall(statement)))


_HOLDERS: Final = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), 'no application_name'), coalesce(a.state, 'of another user'),
    extract(epoch FROM clock_timestamp() - a.xact_start)::bigint, string_agg(DISTINCT c.relname, ', ')
FROM pg_locks AS l
JOIN pg_class AS c ON c.oid = l.relation
JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = ANY(current_schemas(false))
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND a.pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (%(tables)s::text[] = '{}' OR c.relname = ANY(%(tables)s))
    AND (a.xact_start IS NULL OR a.xact_start < clock_timestamp() - %(milliseconds)s * interval '1 millisecond')
GROUP BY 1, 2, 3, a.xact_start ORDER BY a.xact_start NULLS LAST LIMIT 5
"""
"""Holders of locks for longer than the lock timeout; without query texts, which may contain secrets."""


def holders(url: str, tables: tuple[str, ...]) -> str:
    """Return a text with the holders of locks on `tables` (none: on any table) of the URL's database."""
    found: list[tuple[Any, ...]] = []
    with suppress(psycopg.Error), psycopg.connect(url, connect_timeout=5) as connection:
        found = connection.execute(
            _HOLDERS, {"tables": list(tables), "milliseconds": LOCK_TIMEOUT_MS}
        ).fetchall()
    if not found:
        return "its holder is unknown (pg_locks has no lock of that age)"
    return "held by " + "; ".join(
        f"pid {pid} ({name}, {state}{'' if seconds is None else f', transaction open for {seconds} s'}) on {names}"
        for pid, name, state, seconds, names in found
    )


def config() -> Config:
    """Return Alembic's configuration of this package."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("path_separator", "os")
    return made
