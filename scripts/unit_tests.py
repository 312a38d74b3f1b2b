#!/usr/bin/env python3
"""The tests that start nothing, on this Python or on another one of this machine.

Another Python gets an environment of its own, .venv-VERSION, from the same lock. Where it is not installed that is
said and nothing runs; with CI=true it is a failure.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from marketfeed_devtools import pythons
from marketfeed_devtools.programs import Unavailable

ROOT: Final = Path(__file__).parents[1]
SELECTION: Final = "not integration and not kafka and not starts"


def environment(version: str) -> Path:
    """The interpreter of the project's environment for Python `version`, installed or brought up to date.

    Raises:
        Unavailable: there is no such Python here.
        CalledProcessError: uv failed; its words are on the terminal.
    """
    base = pythons.interpreter(version)
    folder = ROOT / f".venv-{version}"
    uv = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    subprocess.run(  # noqa: S603 - no shell
        [uv, "sync", "--frozen", "--all-packages", "--quiet", "--python", base],
        cwd=ROOT,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder), "UV_PYTHON_DOWNLOADS": "never"},
        check=True,
    )
    return folder / "bin" / "python"


def main() -> int:
    """Exit code of pytest; 0 where there is no such Python, with CI=true 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", metavar="VERSION", help="such as 3.13; without it, this one")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="of pytest, after --")
    options = parser.parse_args()
    try:
        python = environment(options.python) if options.python else sys.executable
    except Unavailable as reason:
        print(f"skipped: {reason}", flush=True)
        return int(os.environ.get("CI", "").lower() == "true")
    command = [python, "-m", "pytest", "-m", SELECTION, *options.arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603 - no shell


if __name__ == "__main__":
    raise SystemExit(main())
