"""The schema in the database against the one this release needs."""

from pathlib import Path
from typing import Final

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from marketfeed_chassis import logs
from marketfeed_chassis.errors import StartupError
from marketfeed_consumers import database
from marketfeed_consumers.dialects import Dialect
from marketfeed_consumers.transaction import Connection

log = logs.get(__name__)

VERSION_TABLE: Final = "marketfeed_schema_version"
_STORED_VERSION: Final = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant


def migrate(url: str, deadline_seconds: float) -> tuple[str | None, str]:
    """Bring the schema to this release's version; does nothing when it is there.

    Two that run at once take turns, and the second finds nothing left to do.

    Returns:
        The version before (None: there was no schema) and after.

    Raises:
        StartupError: the database cannot be reached, or refuses a step.
    """
    with database.reached(url, deadline_seconds) as (lock, dialect):
        lock.autocommit = True
        for statement in dialect.migration_lock:
            lock.execute(statement)
        try:
            before = stored_version(url)
            if before in _known():
                _upgrade(url, dialect)
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
    stored, head = _read_version(connection), _head()
    if stored is None:
        raise StartupError("the database has no marketfeed schema yet; run: marketfeed-consumer migrate")
    if stored not in _known():
        log.warning("the schema is newer than this release", schema=stored, release_knows=head)
    elif stored != head:
        raise StartupError(
            f"the database's schema is at version {stored}, this release needs {head}; run: marketfeed-consumer migrate"
        )


def stored_version(url: str) -> str | None:
    """The version in the database; None when it has no schema of ours."""
    connection, _ = database.connect(url)
    with connection:
        return _read_version(connection)


def _read_version(connection: Connection) -> str | None:
    try:
        row = connection.execute(_STORED_VERSION).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    finally:
        connection.rollback()
    return str(row[0]) if row else None


def _upgrade(url: str, dialect: Dialect) -> None:
    driver = "postgresql+psycopg" if dialect.name == "postgresql" else "cockroachdb+psycopg"
    # libpq reads the URL, not SQLAlchemy, so that every option of libpq works here too.
    engine = create_engine(f"{driver}://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        config.attributes["dialect"] = dialect
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise StartupError("this installation holds no migrations")
    return head


def _known() -> set[str | None]:
    """Versions this release can start from, None (no schema) among them."""
    return {None, *(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())}
