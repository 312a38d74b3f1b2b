"""The schema in the database against the one this release needs."""

from pathlib import Path
from typing import Final

import psycopg

from marketfeed_chassis import logs
from marketfeed_chassis.errors import StartupError
from marketfeed_consumers import database
from marketfeed_consumers.transaction import Connection

log = logs.get(__name__)

VERSION_TABLE: Final = "marketfeed_schema_version"
_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"
_STORED_VERSION: Final = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant


def migrate(url: str, deadline_seconds: float) -> tuple[str | None, str]:
    """Bring the schema to this release's version; does nothing when it is there.

    Two that run at once take turns, and the second finds nothing left to do.

    Returns:
        The version before (None: there was no schema) and after.

    Raises:
        StartupError: the database cannot be reached, or refuses a step; others hold locks on its tables for
            `deadline_seconds`; the version stored is not one.
    """
    with database.reached(url, deadline_seconds) as (lock, dialect):
        lock.autocommit = True
        for statement in dialect.migration_lock:
            lock.execute(statement)
        try:
            before = stored_version(url)
            if before is None or before in versions():
                from marketfeed_consumers.migrations import upgrade  # slow to import, and only needed here

                try:
                    upgrade.to_head(url, dialect, deadline_seconds)
                except upgrade.LockNotAvailable as error:
                    raise StartupError(
                        f"the migration was not done: {error}; end that transaction, or raise START_DEADLINE_SECONDS, "
                        "and run it again"
                    ) from error
        except psycopg.Error as error:
            raise StartupError(f"the migration was refused: {database.explain(error)}") from error
        after = stored_version(url)
        if after is None:
            raise StartupError(f"the migration left no version in {VERSION_TABLE}")
        return before, after


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
        log.warning("the schema is newer than this release", schema=stored, release_knows=head)
    elif stored != head:
        raise StartupError(
            f"the database's schema is at version {stored}, this release needs {head}; run: marketfeed-consumer migrate"
        )


def stored_version(url: str) -> str | None:
    """The version in the database; None when it has no schema of ours.

    Raises:
        StartupError: there are several.
    """
    connection, _ = database.connect(url)
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
