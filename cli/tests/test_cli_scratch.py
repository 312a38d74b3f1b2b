"""The scratch folder goes with its run, whichever way that ends."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from marketfeed_cli.scratch import PREFIX, scratch_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_goes_with_all_that_is_in_it(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "run" / "worker.port").write_text("8000")
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []


def test_it_goes_when_the_run_fails(temporary: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder():
        raise ZeroDivisionError
    assert list(temporary.iterdir()) == []


def test_what_a_killed_run_left_is_removed_by_the_next(temporary: Path) -> None:
    code = (
        "import os, signal; from marketfeed_cli.scratch import scratch_folder\n"
        "with scratch_folder():\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(temporary)}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(temporary.iterdir())) == 1
    with scratch_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_the_folder_of_a_run_that_lives_is_left_alone(temporary: Path) -> None:
    other = temporary / f"{PREFIX}other"
    other.mkdir()
    with (other / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with scratch_folder():
            assert other.exists()
    assert other.exists()


def test_a_folder_of_somebody_else_is_left_alone(temporary: Path) -> None:
    stranger = temporary / f"{PREFIX}notes"
    stranger.mkdir()
    (stranger / "notes.txt").write_text("mine")
    with scratch_folder():
        pass
    assert (stranger / "notes.txt").exists()
