"""Runs of the ``marketfeed`` command as a user makes them, and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cli_processes import holding

from marketfeed_devtools.waiting import until


class Run:
    """One run of the command; its output goes to files, as it comes."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "marketfeed_cli", *arguments], env=environment, stdout=out, stderr=err
            )

    @property
    def out(self) -> str:
        """What it wrote to stdout so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it wrote to stderr so far."""
        return self._err.read_text()

    def report(self) -> dict[str, Any]:
        """The JSON on stdout."""
        return dict(json.loads(self.out))

    def until_it_tells(self, text: str) -> None:
        """Wait until `text` is in its output."""
        until(lambda: self._tells(text), f"{text!r} in the output")

    def _tells(self, text: str) -> bool:
        if text in self.out + self.err:
            return True
        assert self.process.poll() is None, f"ended without {text!r}: {self.out}{self.err}"
        return False

    def ended(self, number: signal.Signals | None = None, *, seconds: float = 120) -> int:
        """Its exit code, once it ends by itself or after signal `number`."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


class Home:
    """A temporary folder of its own for the runs of one test.

    Attributes:
        temporary: where runs make their scratch folders.
    """

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir(mode=0o711)
        self._folder = folder
        self._runs: list[Run] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for run in self._runs:
            run.process.kill()
            run.process.wait()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def run(self, *arguments: str, **environment: str) -> Run:
        """Start ``marketfeed`` with `arguments`."""
        folder = self._folder / f"run-{len(self._runs)}"
        folder.mkdir()
        run = Run(folder, arguments, {**os.environ, "TMPDIR": str(self.temporary), **environment})
        self._runs.append(run)
        return run

    def processes(self) -> dict[int, str]:
        """What runs because of the runs: every part has our folder in its environment or its arguments."""
        return holding(str(self.temporary))

    def left(self) -> tuple[list[str], list[str]]:
        """The processes and the files that are left."""
        return list(self.processes().values()), [str(path) for path in self.temporary.iterdir()]
