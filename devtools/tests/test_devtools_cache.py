"""The cache: its folder, the inputs of its keys, and builds that run once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marketfeed_devtools import cache
from marketfeed_devtools.waiting import until

HOLD = """
import sys
from pathlib import Path
from marketfeed_devtools import cache
with cache.locked("thing"):
    print("locked", flush=True)
    sys.stdin.readline()
    Path(sys.argv[1]).write_text("left")
"""
FOLLOW = """
import sys
from pathlib import Path
from marketfeed_devtools import cache
with cache.locked("thing"):
    print(Path(sys.argv[1]).read_text(), flush=True)
"""
MAKE = """
import os, sys
from pathlib import Path
from marketfeed_devtools import cache
def make(folder):
    with open(sys.argv[1], "a") as builds:
        builds.write("made\\n")
    (folder / "file").write_text("content")
sys.stdin.readline()
print((cache.once("thing", make) / "file").read_text())
"""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, "home/.cache/marketfeed"),
        ("", "home/.cache/marketfeed"),
        ("elsewhere", "elsewhere"),
    ],
    ids=["by default in the home", "empty is not set", "a relative one is made absolute"],
)
def test_cache_folder(
    setting: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MARKETFEED_CACHE", raising=False)
    if setting is not None:
        monkeypatch.setenv("MARKETFEED_CACHE", setting)
    assert cache.folder() == tmp_path.resolve() / expected
    assert cache.folder().is_dir()


def test_cache_digest_of_a_folder_covers_names_modes_and_contents_only(tmp_path: Path) -> None:
    first = tmp_path / "first"
    (first / "sub").mkdir(parents=True)
    (first / "sub" / "a.py").write_text("a")
    second = tmp_path / "second"
    shutil.copytree(first, second)
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "a.pyc").write_text("compiled")
    key = cache.digest(first)
    assert cache.digest(second) == key
    (second / "sub" / "a.py").chmod(0o755)
    assert cache.digest(second) != key
    (second / "sub" / "a.py").chmod(0o644)
    (second / "sub" / "a.py").write_text("b")
    assert cache.digest(second) != key
    (first / "sub" / "a.py").rename(first / "sub" / "b.py")
    assert cache.digest(first) != key


def test_cache_digest_depends_on_the_boundaries_of_the_parts() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc")
    assert cache.digest("a", b"b") == cache.digest(b"a", "b")


def test_cache_digest_is_stable() -> None:
    """A changed digest would rebuild everything on every machine."""
    assert cache.digest("bookworm", "ca-certificates") == "51d52d08e29adb10"


def python(code: str, *arguments: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_cache_lock_blocks_a_second_process(own_cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not yet")
    with python(HOLD, file) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with python(FOLLOW, file) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == "waiting for another process that holds the lock of thing\n"
            assert follower.poll() is None
            holder.communicate("continue\n", timeout=60)
            assert follower.communicate(timeout=60)[0] == "left\n"
        assert (holder.returncode, follower.returncode) == (0, 0)


def test_cache_builds_once_for_concurrent_processes(own_cache: Path, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    askers = [python(MAKE, builds) for _ in range(3)]
    for asker in askers:
        assert asker.stdin is not None
        asker.stdin.write("begin\n")
        asker.stdin.flush()
    said = [asker.communicate(timeout=60)[0].splitlines()[-1] for asker in askers]
    assert said == ["content"] * 3
    assert builds.read_text() == "made\n"


def test_cache_ignores_an_incomplete_build(own_cache: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise KeyboardInterrupt

    def whole(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "file").write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        cache.once("group/thing", broken)
    assert not (own_cache / "group" / "thing").exists()
    assert (cache.once("group/thing", whole) / "file").read_text() == "whole"
    assert sorted(file.name for file in (own_cache / "group").iterdir()) == ["thing", "thing.lock"]


def test_cache_builds_again_after_a_killed_process(own_cache: Path) -> None:
    code = (
        "import time\nfrom marketfeed_devtools import cache\n"
        "cache.once('thing', lambda folder: ((folder / 'half').touch(), time.sleep(600)))"
    )
    with python(code) as process:
        until((own_cache / ".thing.making" / "half").exists, "the first to begin")
        process.kill()
    assert [file.name for file in cache.once("thing", lambda _: None).iterdir()] == ["complete"]


def test_cache_builds_again_without_a_marker_and_keeps_a_complete_folder(own_cache: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "one").touch()
        (folder / "two").touch()

    (own_cache / "thing").mkdir(parents=True)
    (own_cache / "thing" / "one").write_text("of long ago")
    assert (cache.once("thing", make, ("one",)) / "one").read_text() == "of long ago"
    assert made == []
    assert (cache.once("thing", make, ("one", "two")) / "one").read_text() == ""
    assert len(made) == 1
    assert not (own_cache / "thing" / cache.COMPLETE).exists(), "its own signs are enough"


def test_cache_build_without_its_marker_is_an_error(own_cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="thing was built without program"):
        cache.once("thing", lambda _: None, ("program",))
    assert [file.name for file in own_cache.iterdir()] == ["thing.lock"]
