"""Search for Python interpreters of other versions on this machine."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from marketfeed_devtools.programs import Unavailable, find


def interpreter(version: str) -> Path:
    """Return an interpreter of Python `version` (such as 3.13): from PATH, else pyenv's or uv's newest.

    Raises:
        Unavailable: there is none.
    """
    for candidate in _candidates(version):
        if _version(candidate) == version:
            return candidate
    raise Unavailable(
        f"Python {version} is not installed: `pyenv install {version}` or `uv python install {version}` installs it"
    )


def _candidates(version: str) -> Iterator[Path]:
    if found := find(f"python{version}"):
        yield Path(found)  # may be pyenv's shim, which fails for a version that is not selected
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local" / "share" / "uv" / "python")
    for folder, pattern in ((pyenv / "versions", f"{version}.*"), (uv, f"cpython-{version}.*")):
        yield from sorted(folder.glob(f"{pattern}/bin/python3"), key=_release, reverse=True)


def _release(file: Path) -> tuple[int, ...]:
    release = file.parents[1].name.removeprefix("cpython-").split("-")[0]
    return tuple(int(part) for part in release.split(".") if part.isdigit())


def _version(file: Path) -> str:
    """Return the version of an interpreter; "" if it does not run."""
    command = [str(file), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    return shown.stdout.strip() if shown.returncode == 0 else ""
