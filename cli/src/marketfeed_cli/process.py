"""Supervision of child processes: exit detection, log files, ordered shutdown.

A part runs in its own session, so that Ctrl-C is delivered to the command only, which stops its parts in order.
`parent_death` terminates them when the command is killed.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final, TypeVar

from marketfeed_cli import parent_death
from marketfeed_service.errors import ServiceError, StartupError

T = TypeVar("T")

POLL_SECONDS: Final = 0.05
STOP_SECONDS: Final = 10.0
TAIL_LINES: Final = 15


class PartFailed(ServiceError):
    """A part exited unexpectedly; the message has its exit code and the last lines of its log."""


class Layer(IntEnum):
    """Dependency layers; higher layers are stopped first."""

    INFRASTRUCTURE = 0
    VENUE = 1
    SERVICE = 2


@dataclass(frozen=True)
class Command:
    """Command line of a part.

    Attributes:
        name: Name in messages and of the log file.
        argv: Absolute path of the executable, and arguments.
        environment: Complete environment; may contain secrets, so it is excluded from repr.
        layer: Dependency layer.
        stop_signal: Signal for an orderly shutdown.
        death_signal: Signal from the kernel when this process is killed.
        user: Uid and gid; None for the current user.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    layer: Layer = Layer.SERVICE
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    user: tuple[int, int] | None = None


class Part:
    """A child process.

    Attributes:
        log: File with its output.
        stopped: Whether its exit is expected.
    """

    def __init__(self, command: Command, log: Path) -> None:
        self.command = command
        self.log = log
        self.stopped = False
        uid, gid = command.user or (-1, -1)
        wrapper = [sys.executable, "-I", "-S", parent_death.__file__]
        wrapper += [str(number) for number in (os.getpid(), int(command.death_signal), uid, gid)]
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - fixed commands, no shell
                [*wrapper, *command.argv],
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while it runs, negative if a signal killed it."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        self._popen.send_signal(number)

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def failure(self) -> PartFailed:
        """Return the error that describes its exit."""
        return PartFailed(f"the {self.name} {_ending(self.exit_code)}; its last lines:\n{self.tail()}")


class Parts:
    """Child processes of a run; the end of the ``async with`` block stops them, higher layers first."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._parts: list[Part] = []

    async def __aenter__(self) -> "Parts":
        return self

    async def __aexit__(self, *_: object) -> None:
        for layer in sorted(Layer, reverse=True):
            await self.stop([part for part in self._parts if part.command.layer is layer])

    def start(self, command: Command) -> Part:
        """Start a process. Call it from the main thread: the death signal is bound to the end of this thread."""
        part = Part(command, self._log_folder / f"{command.name.replace(' ', '-')}.log")
        self._parts.append(part)
        return part

    def running(self) -> list[Part]:
        """Return the parts that have not exited."""
        return [part for part in self._parts if part.exit_code is None]

    def forget(self, part: Part) -> None:
        """Remove `part`, which has exited and is replaced."""
        self._parts.remove(part)

    def check(self) -> None:
        """Raise PartFailed if a part has exited unexpectedly."""
        for part in self._parts:
            if part.exit_code is not None and not part.stopped:
                raise part.failure()

    async def run(self, command: Command, *, seconds: float) -> None:
        """Run a command to completion.

        Raises:
            PartFailed: The exit code is not 0.
            StartupError: It still runs after `seconds`.
        """
        part = self.start(command)
        part.stopped = True  # its exit is expected

        async def exited() -> bool:
            return part.exit_code is not None

        try:
            await self.until(exited, seconds=seconds, what=f"the end of the {part.name}", about=[part])
        finally:
            await self.stop([part])
        if part.exit_code != 0:
            raise part.failure()
        self._parts.remove(part)

    async def until(
        self,
        condition: Callable[[], Awaitable[T | None]],
        *,
        seconds: float,
        what: str,
        about: Sequence[Part] = (),
    ) -> T:
        """Poll `condition` until its result is neither None nor False; return the result.

        Args:
            condition: Condition to wait for.
            seconds: Timeout.
            what: Description for the error, such as "the worker's start".
            about: Parts whose last log lines are added to the error.

        Raises:
            PartFailed: A part exited meanwhile.
            StartupError: The timeout has passed.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            result = await condition()
            if result is not None and result is not False:
                return result
            if time.monotonic() >= deadline:
                raise StartupError(
                    "\n".join([f"{what} did not happen within {seconds:g} s", *map(_tail, about)])
                )
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self, parts: Iterable[Part], *, seconds: float = STOP_SECONDS) -> None:
        """Send all `parts` their stop signal; kill those that still run after `seconds`."""
        stopping = [part for part in parts if part.exit_code is None]
        for part in stopping:
            part.stopped = True
            part.signal(part.command.stop_signal)
            part.signal(signal.SIGCONT)  # a paused process (see `throttle`) does not handle signals
        deadline = time.monotonic() + seconds
        while any(part.exit_code is None for part in stopping):
            if time.monotonic() >= deadline:
                for part in stopping:
                    part.signal(signal.SIGKILL)
            await asyncio.sleep(POLL_SECONDS / 5)


def _tail(part: Part) -> str:
    return f"last lines of the {part.name}:\n{part.tail()}"


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "is still running"
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"exited with code {exit_code}"
