"""Temporary folder of a run for port files, logs and database files, removed at its end.

The folder is locked during the run. The next run removes folders of killed runs, which are no longer locked.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PREFIX: Final = "marketfeed-"
_LOCK: Final = "lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a folder in the system's temporary folder and remove it with its content at the end."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # Execute permission only: PostgreSQL, which does not run as root, has to reach its own files.
        folder.chmod(0o711)
        (folder / "logs").mkdir(mode=0o700)
        (folder / "run").mkdir(mode=0o700)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            with (folder / _LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
        except OSError:  # in use, not a run's folder, or removed concurrently
            continue
