"""Read-only commands work on a hot standby, where they do not affect writers."""

from argparse import Namespace

import psycopg
import pytest
from consumer_market import trade
from consumer_session import Session
from consumer_support import rows

from marketfeed_cli.audit import audit
from marketfeed_consumers.database import connections, schema
from marketfeed_devtools.waiting import until
from marketfeed_service.errors import StartupError
from marketfeed_simtest.postgres_server import Postgres, running

pytestmark = pytest.mark.integration


def _only_reach(url: str) -> None:
    with connections.wait_for_database(url, 0.0):
        pass


def test_standby_allows_the_audit_and_other_commands_require_the_primary(
    postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: it failed with 0A000: a hot standby has no SERIALIZABLE."""
    url = postgres.new_database()
    schema.migrate(url, 10)
    session = Session(url)
    session.acquire_leases()
    session.write(*(trade(i) for i in (1, 2, 5)))
    session.writer.close()
    with running(follows=postgres) as standby:
        there = standby.url(url.split("/")[3].split("?")[0])

        def copied() -> bool:
            try:
                return rows(there, "SELECT count(*) FROM trades") == [(3,)]
            except psycopg.OperationalError:
                return False
            except psycopg.errors.UndefinedTable:
                return False

        until(copied, "the rows on the standby")
        refused: list[str] = []
        for work in (lambda: schema.migrate(there, 0.0), lambda: _only_reach(there)):
            with pytest.raises(StartupError) as error:
                work()
            refused.append(str(error.value))
        assert all("a hot standby, which is read-only; use the primary" in line for line in refused)
        for deep in (False, True):
            options = Namespace(venue=None, symbol=None, since=None, until=None, deep=deep, output="table")
            assert audit(options, {"DATABASE_URL": there}) == 1
            assert "3-4 unresolved" in capsys.readouterr().out
