#!/usr/bin/env python3
"""Run the tests that start no process, on this Python or on another installed version.

Another version has its own environment .venv-VERSION from the same lock. If it is not installed, the tests are skipped
with a message; with CI=true this is a failure.
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
    """Install or update the environment for Python `version`; return its interpreter.

    Raises:
        Unavailable: This Python version is not installed.
        CalledProcessError: uv failed; its error is on the terminal.
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
    """Run pytest; return its exit code, or 0 (with CI=true 1) if the Python version is not installed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", metavar="VERSION", help="such as 3.13 [this Python]")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="arguments of pytest, after --")
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
