"""What building images needs: the cache, commands whose failure shows their output, a Docker client that can build."""

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
REGISTRY: Final = "marketfeed.local"
"""Our own registry name, which nothing can be pulled from: these images claim to be nobody else's."""
KEY_LABEL: Final = "dev.marketfeed.key"
_TAIL_LINES: Final = 40


class Unavailable(Exception):
    """Something that the machine lacks; the text names it and what it is needed for."""


class CommandFailed(Exception):
    """A command that failed; the text has its command line and the end of its output."""


def cache() -> Path:
    """The folder outside the tree in which everything fetched or built is kept."""
    home = os.environ.get("MARKETFEED_CACHE") or Path.home() / ".cache" / "marketfeed"
    folder = Path(home).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time, whoever uses the same cache."""
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, flush=True)


def run(command: Sequence[str | Path], **options: object) -> str:
    """Run a command to its end and return what it wrote.

    Raises:
        CommandFailed: its exit code is not 0.
    """
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        **options,  # type: ignore[call-overload]
    )  # fmt: skip
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
        raise CommandFailed(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{tail}")
    return str(done.stdout)


def require(program: str, purpose: str) -> str:
    """The path of a program.

    Raises:
        Unavailable: it is not installed.
    """
    # Debian's administrators' programs are not in everybody's PATH.
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise Unavailable(f"{program} is not installed: {purpose}")
    return found


def digest(*parts: str | bytes | Path) -> str:
    """A key over texts, files and folders (their names and contents)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
                if file.is_file() and "__pycache__" not in file.parts:
                    total.update(f"{file.relative_to(part)}\0{file.stat().st_mode & 0o111}\0".encode())
                    total.update(file.read_bytes())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()[:16]


@functools.cache
def docker() -> str:
    """A Docker client that can build with BuildKit: one without buildx cannot, from version 23 on.

    Raises:
        Unavailable: there is none, or no engine answers it.
    """
    first = require("docker", "images are built and run by it (Debian: docker.io)")
    candidates = [
        first,
        *(path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if Path(path).exists()),
    ]
    for client in candidates:
        asked = subprocess.run(
            [client, "version", "--format", "{{.Client.Version}}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode:
            raise Unavailable(f"no Docker engine answers: {asked.stderr.strip()}")
        old = int(asked.stdout.split(".")[0]) < 23
        if (
            old
            or not subprocess.run([client, "buildx", "version"], capture_output=True, check=False).returncode
        ):
            return client
    raise Unavailable("this Docker client cannot build: install its buildx plugin")


def image_key(reference: str) -> str:
    """The key an image was built for; "" when there is no such image."""
    asked = subprocess.run(
        [docker(), "image", "inspect", "--format", f'{{{{index .Config.Labels "{KEY_LABEL}"}}}}', reference],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""


def build(context: Path, reference: str, key: str, arguments: dict[str, str]) -> None:
    """Build `context`'s Dockerfile; nothing is pulled and nothing is fetched."""
    passed = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    run(
        [docker(), "build", "--pull=false", "--network=none", "--label", f"{KEY_LABEL}={key}", "--tag", reference,
         *passed, context],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    )  # fmt: skip


def pack(folder: Path, archive: Path, leave_out: frozenset[str] = frozenset()) -> None:
    """A tar of what is in `folder`, owned by root, without the top-level names in `leave_out`."""

    def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return entry

    with tarfile.open(archive, "w") as tar:
        for item in sorted(folder.iterdir()):
            if item.name not in leave_out:
                tar.add(item, item.name, filter=owned_by_root)
