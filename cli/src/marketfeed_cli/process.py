"""Processes that the command line starts: each watched, logged to a file, stopped by its id, never left behind.

A part runs in a session of its own, so that Ctrl-C reaches only the command, which then stops its parts in order;
`tether` ends them when the command itself is killed.
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

from marketfeed_chassis.errors import ServiceError, StartupError
from marketfeed_cli import tether

T = TypeVar("T")

POLL_SECONDS: Final = 0.05
STOP_SECONDS: Final = 10.0
TAIL_LINES: Final = 15


class PartFailed(ServiceError):
    """A part ended by itself; the text holds its exit code and the last lines of its log."""


class Layer(IntEnum):
    """Who stands on whom; upper layers are stopped first."""

    INFRASTRUCTURE = 0
    VENUE = 1
    SERVICE = 2


@dataclass(frozen=True)
class Command:
    """How a part is run.

    Attributes:
        name: what messages and its log file call it.
        argv: an absolute path and its arguments.
        environment: its whole environment; may hold secrets, so it is never shown.
        stop_signal: what asks it to end in order.
        death_signal: what the kernel sends it when this process is killed.
        user: uid and gid to run as; None keeps ours.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    layer: Layer = Layer.SERVICE
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    user: tuple[int, int] | None = None


class Part:
    """A started process.

    Attributes:
        log: the file that holds what it printed.
        stopped: it was told to stop, so that its end is no failure.
    """

    def __init__(self, command: Command, log: Path) -> None:
        self.command = command
        self.log = log
        self.stopped = False
        uid, gid = command.user or (-1, -1)
        leash = [sys.executable, "-I", "-S", tether.__file__]
        leash += [str(number) for number in (os.getpid(), int(command.death_signal), uid, gid)]
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                [*leash, *command.argv],
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that killed it."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        self._popen.send_signal(number)

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def failure(self) -> PartFailed:
        """The error that tells of its end."""
        return PartFailed(f"the {self.name} {_ending(self.exit_code)}; its last lines:\n{self.tail()}")


class Parts:
    """The processes of one run; leaving the ``async with`` block stops all that still run, upper layers first."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._parts: list[Part] = []

    async def __aenter__(self) -> "Parts":
        return self

    async def __aexit__(self, *_: object) -> None:
        for layer in sorted(Layer, reverse=True):
            await self.stop([part for part in self._parts if part.command.layer is layer])

    def start(self, command: Command) -> Part:
        """Start a process; call it from the main thread, whose end is what tethers wait for."""
        part = Part(command, self._log_folder / f"{command.name.replace(' ', '-')}.log")
        self._parts.append(part)
        return part

    def running(self) -> list[Part]:
        """The parts that have not ended."""
        return [part for part in self._parts if part.exit_code is None]

    def forget(self, part: Part) -> None:
        """Watch `part` no longer: it has ended and something else takes its place."""
        self._parts.remove(part)

    def check(self) -> None:
        """Raise PartFailed if a part has ended that was not told to."""
        for part in self._parts:
            if part.exit_code is not None and not part.stopped:
                raise part.failure()

    async def run(self, command: Command, *, seconds: float) -> None:
        """Run a command to its end.

        Raises:
            PartFailed: its exit code is not 0.
            StartupError: it still ran after `seconds`.
        """
        part = self.start(command)
        part.stopped = True  # its end is what we wait for

        async def ended() -> bool:
            return part.exit_code is not None

        try:
            await self.until(ended, seconds=seconds, what=f"the end of the {part.name}", about=[part])
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
        """Ask `condition` until it answers something else than None or False.

        Args:
            condition: what to wait for.
            seconds: how long.
            what: the words for it, such as "the worker's start".
            about: the parts whose last lines explain why it did not happen.

        Raises:
            PartFailed: a part ended meanwhile.
            StartupError: it did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            answer = await condition()
            if answer is not None and answer is not False:
                return answer
            if time.monotonic() >= deadline:
                raise StartupError(
                    "\n".join([f"{what} did not happen within {seconds:g} s", *map(_tail, about)])
                )
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self, parts: Iterable[Part], *, seconds: float = STOP_SECONDS) -> None:
        """Ask `parts` to end, all at once; kill what has not within `seconds`."""
        asked = [part for part in parts if part.exit_code is None]
        for part in asked:
            part.stopped = True
            part.signal(part.command.stop_signal)
            part.signal(signal.SIGCONT)  # one that stands still (see `brake`) would not hear it
        deadline = time.monotonic() + seconds
        while any(part.exit_code is None for part in asked):
            if time.monotonic() >= deadline:
                for part in asked:
                    part.signal(signal.SIGKILL)
            await asyncio.sleep(POLL_SECONDS / 5)


def _tail(part: Part) -> str:
    return f"last lines of the {part.name}:\n{part.tail()}"


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "still runs"
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
