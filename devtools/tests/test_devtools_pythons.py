"""Interpreters are found where they are, and what only looks like one is passed over."""

import sys
from pathlib import Path

import pytest

from marketfeed_devtools import pythons
from marketfeed_devtools.programs import Unavailable

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
REFUSES = "#!/usr/bin/env sh\necho 'pyenv: command not found' >&2\nexit 127\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any interpreter."""
    for variable, name in (("PYENV_ROOT", "pyenv"), ("UV_PYTHON_INSTALL_DIR", "uv"), ("PATH", "bin")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


def put(file: Path, text: str = "") -> Path:
    """A script, or an interpreter of this Python's own version."""
    file.parent.mkdir(parents=True)
    file.write_text(text or f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    file.chmod(0o755)
    return file


def test_the_one_in_the_path_is_taken(home: Path) -> None:
    put(home / "pyenv" / "versions" / f"{OURS}.1" / "bin" / "python3")
    first = put(home / "bin" / f"python{OURS}")
    assert pythons.interpreter(OURS) == first


def test_a_shim_that_refuses_is_passed_over_and_the_newest_is_taken(home: Path) -> None:
    put(home / "bin" / f"python{OURS}", REFUSES)
    put(home / "pyenv" / "versions" / f"{OURS}.9" / "bin" / "python3")
    newest = put(home / "pyenv" / "versions" / f"{OURS}.10" / "bin" / "python3")
    assert pythons.interpreter(OURS) == newest


def test_what_uv_has_installed_is_found(home: Path) -> None:
    found = put(home / "uv" / f"cpython-{OURS}.2-linux-x86_64-gnu" / "bin" / "python3")
    assert pythons.interpreter(OURS) == found


def test_an_interpreter_of_another_version_is_not_taken(home: Path) -> None:
    put(home / "pyenv" / "versions" / "3.99.1" / "bin" / "python3")
    with pytest.raises(Unavailable, match=r"Python 3.99 is not installed: `pyenv install 3.99`"):
        pythons.interpreter("3.99")
