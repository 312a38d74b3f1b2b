"""Runs of the ``marketfeed`` command as a subprocess, and detection of leftover processes and files."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cli_processes import processes_with

from marketfeed_devtools.waiting import until


class Run:
    """A run of the command with its output in files."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "marketfeed_cli", *arguments], env=environment, stdout=out, stderr=err
            )

    @property
    def out(self) -> str:
        """Current content of stdout."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Current content of stderr."""
        return self._err.read_text()

    def report(self) -> dict[str, Any]:
        """Return the JSON on stdout."""
        return dict(json.loads(self.out))

    def wait_for_output(self, text: str) -> None:
        """Wait until the output contains `text`."""
        until(lambda: self._has_output(text), f"{text!r} in the output")

    def _has_output(self, text: str) -> bool:
        if text in self.out + self.err:
            return True
        assert self.process.poll() is None, f"exited without {text!r}: {self.out}{self.err}"
        return False

    def wait(self, number: signal.Signals | None = None, *, seconds: float = 120) -> int:
        """Send signal `number`, if given, wait for the exit and return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


class Home:
    """Temporary folder for the runs of a test.

    Attributes:
        temporary: Parent of the runs' scratch folders.
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
        """Return the running processes of the runs, which have the folder in their environment or arguments."""
        return processes_with(str(self.temporary))

    def leftovers(self) -> tuple[list[str], list[str]]:
        """Return leftover processes and files."""
        return list(self.processes().values()), [str(path) for path in self.temporary.iterdir()]
