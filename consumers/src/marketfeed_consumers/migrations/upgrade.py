"""Running the steps by Alembic. Imported by `migrate` alone: Alembic and SQLAlchemy are slow to load."""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from marketfeed_consumers.dialects import Dialect


def to_head(url: str, dialect: Dialect) -> None:
    """Run the steps that the database lacks.

    Raises:
        psycopg.Error: the database cannot be reached, or refuses a step.
    """
    to_version(url, dialect, "head")


def to_version(url: str, dialect: Dialect, version: str) -> None:
    """Run the steps up to `version`, for tests that begin at an older release's schema; raises as `to_head`."""
    driver = "postgresql+psycopg" if dialect.name == "postgresql" else "cockroachdb+psycopg"
    # libpq reads the URL, not SQLAlchemy, so that every option of libpq works here too.
    engine = create_engine(
        f"{driver}://", creator=lambda: psycopg.connect(url, client_encoding="UTF8"), poolclass=NullPool
    )
    settings = config()
    settings.attributes["dialect"] = dialect
    try:
        with engine.connect() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, version)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):  # the one place that knows SQLAlchemy is in between
            raise error.orig from error
        raise


def config() -> Config:
    """Alembic's view of this package."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("path_separator", "os")
    return made
