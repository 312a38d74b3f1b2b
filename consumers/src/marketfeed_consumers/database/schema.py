"""Check and migration of the database's schema to the version of this release."""

import time
from pathlib import Path
from typing import Final

import psycopg

from marketfeed_consumers.database import connections
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.dialects import Dialect
from marketfeed_service import logs
from marketfeed_service.errors import StartupError

log = logs.get(__name__)

VERSION_TABLE: Final = "marketfeed_schema_version"
_TURN_SECONDS: Final = 0.5
"""Polling interval while another migration runs."""
_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"
_STORED_VERSION: Final = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant


def migrate(url: str, deadline_seconds: float) -> tuple[str | None, str]:
    """Migrate the schema to this release's version; do nothing if it is current.

    Of two concurrent migrations the second waits and finds nothing to do. Behind a pooler it takes two sessions.

    Returns:
        The version before (None: there was no schema) and after.

    Raises:
        StartupError: the database is unreachable, or rejects a step; other transactions hold locks on its tables, or
            another migration runs, for `deadline_seconds`; several versions are stored.
    """
    with connections.wait_for_database(url, deadline_seconds) as (lock, dialect):
        _take_turn(lock, dialect, deadline_seconds)
        try:
            before = stored_version(url)
            if before is None or before in versions():
                from marketfeed_consumers.database.migrations import (
                    upgrade,  # slow to import, and only needed here
                )

                try:
                    upgrade.to_head(url, dialect, deadline_seconds)
                except upgrade.LockNotAvailable as error:
                    raise StartupError(
                        f"the migration was not done: {error}; end that transaction, or raise START_DEADLINE_SECONDS, "
                        "and run it again"
                    ) from error
        except psycopg.Error as error:
            raise StartupError(f"the migration failed: {connections.explain(error)}") from error
        after = stored_version(url)
        if after is None:
            raise StartupError(f"the migration left no version in {VERSION_TABLE}")
        return before, after


def _take_turn(lock: DatabaseConnection, dialect: Dialect, deadline_seconds: float) -> None:
    """Begin a transaction on `lock` that holds the migration lock.

    A lock of the transaction and not of the session: behind a pooler the session outlives the process, and so would the
    lock. The transaction stays open while the steps run on another connection.
    """
    deadline, logged = time.monotonic() + deadline_seconds, False
    lock.autocommit = True
    for statement in dialect.migration_lock_made:
        lock.execute(statement)
    lock.autocommit = False
    lock.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # holds no snapshot while idle
    while not _locked(lock, dialect):
        holder = _migration_holder(lock, dialect)
        if time.monotonic() >= deadline:
            raise StartupError(
                f"another migration has been running for {deadline_seconds:g} s{holder}; run it again when that has "
                "ended, or raise START_DEADLINE_SECONDS"
            )
        if not logged:
            log.warning("waiting for another migration", holder=holder.strip(" ()") or "unknown")
            logged = True
        time.sleep(_TURN_SECONDS)
    lock.execute(dialect.migration_idle)


def _locked(lock: DatabaseConnection, dialect: Dialect) -> bool:
    try:
        row = lock.execute(dialect.migration_lock).fetchone()
    except psycopg.errors.LockNotAvailable:
        row = None
    if row is None or not row[0]:
        lock.rollback()
        return False
    return True


def _migration_holder(lock: DatabaseConnection, dialect: Dialect) -> str:
    if not dialect.migration_holder:
        return ""
    row = lock.execute(dialect.migration_holder).fetchone()
    lock.rollback()
    return f" (pid {row[0]}, {row[1] or 'no application_name'}, for {row[2]} s)" if row else ""


def check(connection: DatabaseConnection) -> None:
    """Check that the schema is of this release; a newer one is assumed to be compatible.

    Raises:
        StartupError: the schema is missing or older.
    """
    stored, known = _read_version(connection), versions()
    head = known[-1]
    if stored is None:
        raise StartupError("the database has no marketfeed schema yet; run: marketfeed-consumer migrate")
    if stored not in known:
        log.warning("schema newer than release", schema=stored, release_knows=head)
    elif stored != head:
        raise StartupError(
            f"the database's schema is at version {stored}, this release needs {head}; run: marketfeed-consumer migrate"
        )


def stored_version(url: str) -> str | None:
    """Return the stored schema version; None without a schema.

    Raises:
        StartupError: several versions are stored.
    """
    connection, _ = connections.connect(url)
    with connection:
        return _read_version(connection)


def _read_version(connection: DatabaseConnection) -> str | None:
    try:
        found = sorted(str(row[0]) for row in connection.execute(_STORED_VERSION))
    except psycopg.errors.UndefinedTable:
        return None
    finally:
        connection.rollback()
    if len(found) > 1:
        raise StartupError(
            f"the table {VERSION_TABLE} has {len(found)} versions, {', '.join(found)}, and must have one; "
            "delete all but that of the newest migration whose changes are in the database"
        )
    return found[0] if found else None


def versions() -> list[str]:
    """Return the versions of this release's migrations, oldest first, from the migrations' file names.

    Called at each start, so without Alembic, whose import takes longer than the rest of the start.
    """
    found = sorted(file.name.partition("_")[0] for file in _VERSIONS.glob("[0-9]*_*.py"))
    if not found:
        raise StartupError("this installation contains no migrations")
    return found
