"""The folder that holds all a run writes: ports, logs, the database's files. It goes when the run ends.

The folder is locked while its run lives. One whose run was killed is found without the lock by the next run, which
removes it.
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
    """A new folder in the system's temporary folder, removed at the end with all that is in it."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # Others may pass through to what is theirs (PostgreSQL does not run as root) but see nothing else.
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
        except OSError:  # in use, not one of ours, or another run is removing it
            continue
