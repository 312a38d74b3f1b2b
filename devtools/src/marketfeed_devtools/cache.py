"""The cache: a folder outside the repository for downloads and builds, each named by a digest of its inputs."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from marketfeed_devtools.programs import say

COMPLETE: Final = "complete"
"""Marker file that is written last, for a folder without other markers of completeness."""


def folder() -> Path:
    """Return the absolute path of the cache, MARKETFEED_CACHE or ~/.cache/marketfeed; create it if needed."""
    found = Path(os.environ.get("MARKETFEED_CACHE") or Path.home() / ".cache" / "marketfeed").resolve()
    found.mkdir(parents=True, exist_ok=True)
    return found


def digest(*parts: str | bytes | Path) -> str:
    """Return 16 hexadecimal digits over texts, files and folders (names, executable bits, contents).

    Independent of a folder's location and of __pycache__ folders.
    """
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


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name` of this cache, among all threads and processes; print a line if it has to wait.

    Not re-entrant: a second call in the same thread deadlocks.
    """
    file = folder() / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds the lock of {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(name: str, make: Callable[[Path], None], signs: Sequence[str] = (COMPLETE,)) -> Path:
    """Return the folder `name` of the cache; build it by `make` unless it is complete.

    Built under a temporary name and renamed, so that an interrupted build is never used. Absolute paths of the folder
    in its own files are therefore invalid.

    Args:
        name: path within the cache; contains the digest of the inputs.
        make: fills the given empty folder.
        signs: paths within the folder that mark it complete; COMPLETE is written here.

    Raises:
        FileNotFoundError: `make` did not create one of `signs`.
    """
    whole = folder() / name
    if _has(whole, signs):
        return whole
    with locked(name):
        if _has(whole, signs):  # built by the previous holder of the lock
            return whole
        making = whole.with_name(f".{whole.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        try:
            make(making)
            if COMPLETE in signs:
                (making / COMPLETE).touch()
            if not _has(making, signs):
                raise FileNotFoundError(f"{name} was built without {' or '.join(signs)}")
            shutil.rmtree(whole, ignore_errors=True)
            making.rename(whole)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return whole


def _has(whole: Path, signs: Sequence[str]) -> bool:
    return all((whole / sign).exists() for sign in signs)
