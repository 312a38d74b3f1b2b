"""Removal of the scratch folder at the end of a run."""

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


def test_scratch_folder_is_removed_with_its_content(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "run" / "worker.port").write_text("8000")
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []


def test_scratch_folder_is_removed_when_the_run_fails(temporary: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder():
        raise ZeroDivisionError
    assert list(temporary.iterdir()) == []


def test_scratch_folder_of_a_killed_run_is_removed_by_the_next(temporary: Path) -> None:
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


def test_scratch_folder_of_an_active_run_is_kept(temporary: Path) -> None:
    other = temporary / f"{PREFIX}other"
    other.mkdir()
    with (other / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with scratch_folder():
            assert other.exists()
    assert other.exists()


def test_scratch_folder_removal_ignores_unrelated_folders(temporary: Path) -> None:
    unrelated = temporary / f"{PREFIX}notes"
    unrelated.mkdir()
    (unrelated / "notes.txt").write_text("mine")
    with scratch_folder():
        pass
    assert (unrelated / "notes.txt").exists()
