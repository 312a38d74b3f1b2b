"""What only reads works on a hot standby: readers are sent there so that they are in no writer's way."""

import os
import shutil
import signal
import subprocess
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from consumer_market import trade
from consumer_session import Session
from consumer_support import rows

from marketfeed_cli.audit import audit
from marketfeed_cli.embedded import postgres as embedded
from marketfeed_consumers import schema
from marketfeed_devtools.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def standby(postgres: Any) -> Iterator[Any]:
    """A server that follows `postgres`."""
    folder = Path(tempfile.mkdtemp(prefix="marketfeed-standby-"))
    binaries, user = embedded.programs(), None
    if (nobody := embedded.unprivileged_user()) is not None:
        user = nobody[0]
        os.chown(folder, *nobody)
        binaries = embedded.reachable(binaries, folder, nobody)
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ["PATH"]}
    copy = [
        binaries / "pg_basebackup",
        "-D",
        folder / "data",
        "-R",
        "-X",
        "stream",
        "-c",
        "fast",
        "--no-sync",
    ]
    subprocess.run([*copy, "-h", postgres.folder, "-U", "postgres"], check=True, user=user, env=environment)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", folder / "data", *options],
            user=user, env=environment, stderr=log, stdout=log,
        )  # fmt: skip
    server = type(postgres)(process, folder)
    try:
        until(server.answers, "the standby")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder)


def test_audit_runs_on_a_hot_standby(postgres: Any, standby: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It ended with 0A000: a hot standby has no SERIALIZABLE."""
    url = postgres.new_database()
    schema.migrate(url, 10)
    session = Session(url)
    session.claim()
    session.write(*(trade(i) for i in (1, 2, 5)))
    session.writer.close()
    there = standby.url(url.split("/")[3].split("?")[0])

    def copied() -> bool:
        try:
            return rows(there, "SELECT count(*) FROM trades") == [(3,)]
        except psycopg.OperationalError:
            return False
        except psycopg.errors.UndefinedTable:
            return False

    until(copied, "the rows on the standby")
    for deep in (False, True):
        options = Namespace(venue=None, symbol=None, since=None, until=None, deep=deep, output="table")
        assert audit(options, {"DATABASE_URL": there}) == 1
        assert "3-4 unresolved" in capsys.readouterr().out
