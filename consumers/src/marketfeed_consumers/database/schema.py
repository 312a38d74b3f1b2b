"""The schema in the database against the one this release needs."""

import time
from pathlib import Path
from typing import Final

import psycopg

from marketfeed_consumers.database import connections
from marketfeed_consumers.database.dialects import Dialect
from marketfeed_consumers.storage.transaction import Connection
from marketfeed_service import logs
from marketfeed_service.errors import StartupError

log = logs.get(__name__)

VERSION_TABLE: Final = "marketfeed_schema_version"
_TURN_SECONDS: Final = 0.5
"""Between two looks whether another migration has ended."""
_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"
_STORED_VERSION: Final = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant


def migrate(url: str, deadline_seconds: float) -> tuple[str | None, str]:
    """Bring the schema to this release's version; does nothing when it is there.

    Two that run at once take turns, and the second finds nothing left to do. Behind a pooler it takes two sessions.

    Returns:
        The version before (None: there was no schema) and after.

    Raises:
        StartupError: the database cannot be reached, or refuses a step; others hold locks on its tables for
            `deadline_seconds`, or another migration runs for so long; the version stored is not one.
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
            raise StartupError(f"the migration was refused: {connections.explain(error)}") from error
        after = stored_version(url)
        if after is None:
            raise StartupError(f"the migration left no version in {VERSION_TABLE}")
        return before, after


def _take_turn(lock: Connection, dialect: Dialect, deadline_seconds: float) -> None:
    """Begin a transaction on `lock` that holds the lock of the one migration which runs.

    A transaction's lock, and not the session's: behind a pooler the session outlives us, and the lock would too. The
    transaction stays open while the steps run in their own, on another connection.
    """
    deadline, told = time.monotonic() + deadline_seconds, False
    lock.autocommit = True
    for statement in dialect.migration_lock_made:
        lock.execute(statement)
    lock.autocommit = False
    lock.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # no snapshot is held while it is idle
    while not _locked(lock, dialect):
        holder = _migration_holder(lock, dialect)
        if time.monotonic() >= deadline:
            raise StartupError(
                f"another migration has been running for {deadline_seconds:g} s{holder}; run it again when that has "
                "ended, or raise START_DEADLINE_SECONDS"
            )
        if not told:
            log.warning("waiting for another migration", holder=holder.strip(" ()") or "unknown")
            told = True
        time.sleep(_TURN_SECONDS)
    lock.execute(dialect.migration_idle)


def _locked(lock: Connection, dialect: Dialect) -> bool:
    try:
        row = lock.execute(dialect.migration_lock).fetchone()
    except psycopg.errors.LockNotAvailable:
        row = None
    if row is None or not row[0]:
        lock.rollback()
        return False
    return True


def _migration_holder(lock: Connection, dialect: Dialect) -> str:
    if not dialect.migration_holder:
        return ""
    row = lock.execute(dialect.migration_holder).fetchone()
    lock.rollback()
    return f" (pid {row[0]}, {row[1] or 'no application_name'}, for {row[2]} s)" if row else ""


def check(connection: Connection) -> None:
    """See that the schema is the one this release needs; a newer one is taken to keep what we use.

    Raises:
        StartupError: it is missing or older.
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
    """The version in the database; None when it has no schema of ours.

    Raises:
        StartupError: there are several.
    """
    connection, _ = connections.connect(url)
    with connection:
        return _read_version(connection)


def _read_version(connection: Connection) -> str | None:
    try:
        found = sorted(str(row[0]) for row in connection.execute(_STORED_VERSION))
    except psycopg.errors.UndefinedTable:
        return None
    finally:
        connection.rollback()
    if len(found) > 1:
        raise StartupError(
            f"the table {VERSION_TABLE} holds {len(found)} versions, {', '.join(found)}, and must hold one; "
            "delete all but that of the newest migration whose changes are in the database"
        )
    return found[0] if found else None


def versions() -> list[str]:
    """The versions this release knows, the oldest first: the numbers that the migrations' file names begin with.

    Asked for at each start, so without Alembic, whose import takes longer than all the rest of a start.
    """
    found = sorted(file.name.partition("_")[0] for file in _VERSIONS.glob("[0-9]*_*.py"))
    if not found:
        raise StartupError("this installation holds no migrations")
    return found
