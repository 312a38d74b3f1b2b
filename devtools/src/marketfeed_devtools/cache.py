"""The cache: a folder outside the tree for what is fetched or built once, each thing named by what it is made of."""

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
"""A file that is written last into what has no other sign of being whole."""


def folder() -> Path:
    """The cache: MARKETFEED_CACHE, by default ~/.cache/marketfeed; absolute, and there."""
    found = Path(os.environ.get("MARKETFEED_CACHE") or Path.home() / ".cache" / "marketfeed").resolve()
    found.mkdir(parents=True, exist_ok=True)
    return found


def digest(*parts: str | bytes | Path) -> str:
    """A key of 16 hexadecimal digits over texts, files and folders (names, rights to run, contents).

    Where a folder lies, and what Python leaves in it, makes no difference.
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
    """One at a time, of all threads and processes that use this cache; who has to wait is told so.

    Not twice by the same thread: it would wait for itself.
    """
    file = folder() / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that is at {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(name: str, make: Callable[[Path], None], signs: Sequence[str] = (COMPLETE,)) -> Path:
    """The folder `name` of the cache; where it is not whole, `make` fills it first.

    It is filled under another name and renamed, so that one that was broken off is never taken for whole; a path of the
    folder that `make` leaves inside of it leads nowhere afterwards.

    Args:
        name: its path within the cache; holds the key of what it is made of.
        make: fills the empty folder that it is given.
        signs: paths within it that are all there when it is whole; COMPLETE is written here.

    Raises:
        FileNotFoundError: `make` did not make one of the signs.
    """
    whole = folder() / name
    if _has(whole, signs):
        return whole
    with locked(name):
        if _has(whole, signs):  # by whoever had the lock
            return whole
        making = whole.with_name(f".{whole.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        try:
            make(making)
            if COMPLETE in signs:
                (making / COMPLETE).touch()
            if not _has(making, signs):
                raise FileNotFoundError(f"{name} was made without {' or '.join(signs)}")
            shutil.rmtree(whole, ignore_errors=True)
            making.rename(whole)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return whole


def _has(whole: Path, signs: Sequence[str]) -> bool:
    return all((whole / sign).exists() for sign in signs)
