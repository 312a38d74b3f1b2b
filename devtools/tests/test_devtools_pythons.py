"""Search for Python interpreters; shims and other versions are skipped."""

import sys
from pathlib import Path

import pytest

from marketfeed_devtools import pythons
from marketfeed_devtools.programs import Unavailable

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
REFUSES = "#!/usr/bin/env sh\necho 'pyenv: command not found' >&2\nexit 127\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up a machine without any interpreter."""
    for variable, name in (("PYENV_ROOT", "pyenv"), ("UV_PYTHON_INSTALL_DIR", "uv"), ("PATH", "bin")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


def put(file: Path, text: str = "") -> Path:
    """Write a script, by default an interpreter of the running Python version."""
    file.parent.mkdir(parents=True)
    file.write_text(text or f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    file.chmod(0o755)
    return file


def test_python_interpreter_in_path_is_used(home: Path) -> None:
    put(home / "pyenv" / "versions" / f"{OURS}.1" / "bin" / "python3")
    first = put(home / "bin" / f"python{OURS}")
    assert pythons.interpreter(OURS) == first


def test_python_shim_that_fails_is_skipped_and_the_newest_is_used(home: Path) -> None:
    put(home / "bin" / f"python{OURS}", REFUSES)
    put(home / "pyenv" / "versions" / f"{OURS}.9" / "bin" / "python3")
    newest = put(home / "pyenv" / "versions" / f"{OURS}.10" / "bin" / "python3")
    assert pythons.interpreter(OURS) == newest


def test_python_installed_by_uv_is_found(home: Path) -> None:
    found = put(home / "uv" / f"cpython-{OURS}.2-linux-x86_64-gnu" / "bin" / "python3")
    assert pythons.interpreter(OURS) == found


def test_python_of_another_version_is_not_used(home: Path) -> None:
    put(home / "pyenv" / "versions" / "3.99.1" / "bin" / "python3")
    with pytest.raises(Unavailable, match=r"Python 3.99 is not installed: `pyenv install 3.99`"):
        pythons.interpreter("3.99")
