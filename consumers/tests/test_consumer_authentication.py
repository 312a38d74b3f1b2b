"""A rejected user or password is an error at once; other failures are retried until the deadline."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from structlog.testing import capture_logs

from marketfeed_consumers.database import connections
from marketfeed_consumers.database.authentication import authentication_error
from marketfeed_devtools.waiting import until
from marketfeed_service.errors import StartupError
from marketfeed_simtest.postgres_server import Postgres

pytestmark = pytest.mark.integration

LONG_SECONDS = 3600.0
"""Deadline of the wait: a test that waits for it times out."""


@pytest.fixture(scope="module")
def guarded(postgres: Postgres) -> Iterator[Callable[..., str]]:
    """Return the URL of a role with the given pg_hba.conf entries."""
    file = postgres.folder / "data" / "pg_hba.conf"
    original = file.read_text()

    def loaded() -> object:
        with psycopg.connect(postgres.url()) as new_session:  # has the postmaster's start time
            return new_session.execute("SELECT pg_conf_load_time()").fetchone()

    def allow(text: str) -> None:
        before = loaded()
        file.write_text(text)
        with psycopg.connect(postgres.url(), autocommit=True) as owner:
            owner.execute("SELECT pg_reload_conf()")
        until(lambda: loaded() != before, "pg_hba.conf to be read")

    def one(method: str, password: str, *, login: str = "LOGIN", known: bool = True) -> str:
        role = f"guarded_{uuid4().hex}"
        if known:
            with psycopg.connect(postgres.url(), autocommit=True) as owner:
                create = sql.SQL("CREATE ROLE {} " + login + " PASSWORD 'right'")
                owner.execute(create.format(sql.Identifier(role)))
        allow(f"local all {role} {method}\n{file.read_text()}")
        return postgres.url().replace("postgres@", f"{role}{':' if password else ''}{password}@")

    yield one
    allow(original)


@pytest.mark.parametrize(
    ("method", "password", "login", "known", "words"),
    [
        ("scram-sha-256", "wrong-one", "LOGIN", True, "password authentication failed"),
        ("password", "wrong-one", "LOGIN", True, "password authentication failed"),
        ("scram-sha-256", "", "LOGIN", True, "no password supplied"),
        ("scram-sha-256", "wrong-one", "LOGIN", False, "password authentication failed"),
        ("trust", "", "LOGIN", False, "does not exist"),
        ("trust", "", "NOLOGIN", True, "is not permitted to log in"),
        ("reject", "right", "LOGIN", True, "pg_hba.conf rejects connection"),
    ],
    ids=["SCRAM", "as it is", "no password", "SCRAM of nobody", "nobody", "no LOGIN", "pg_hba.conf"],
)
def test_authentication_failure_ends_the_wait_at_once(
    guarded: Callable[..., str], method: str, password: str, login: str, known: bool, words: str
) -> None:
    """Regression: it waited until START_DEADLINE_SECONDS and then recommended to raise it."""
    url = guarded(method, password, login=login, known=known)
    with pytest.raises(StartupError) as refused, connections.wait_for_database(url, LONG_SECONDS):
        pass
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"the database at {connections.server(url)} rejects this user or password (")
    assert words in line
    assert "DATABASE_URL" in line
    assert "START_DEADLINE_SECONDS" not in line
    assert "wrong-one" not in line


def test_authentication_error_is_empty_for_other_failures(
    guarded: Callable[..., str], postgres: Postgres
) -> None:
    url = guarded("scram-sha-256", "right")
    with connections.wait_for_database(url, LONG_SECONDS):
        pass
    assert authentication_error(url) == ""
    assert authentication_error(postgres.url("not_made_yet")) == "3D000"
    assert authentication_error("postgresql://me@127.0.0.1:1/x") == ""
    with pytest.raises(StartupError, match=r"does not exist.*raise START_DEADLINE_SECONDS"):
        connections._wait_for_database(postgres.url("not_made_yet"), 0.0, lambda: False)


def test_database_that_is_waited_for_is_logged_once(postgres: Postgres) -> None:
    """Regression: it logged each attempt, one per second."""
    with capture_logs() as lines, pytest.raises(StartupError):
        connections._wait_for_database(postgres.url("not_made_yet"), 1.5, lambda: False)
    assert [line["event"] for line in lines] == ["waiting for the database"]
