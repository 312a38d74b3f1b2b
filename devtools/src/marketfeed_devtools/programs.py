"""Programs of the machine: which are there, and commands whose failure shows what they wrote."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

_TAIL_LINES: Final = 40


class Unavailable(Exception):
    """Something that this machine lacks; the text names it, what it is needed for, and the way out."""


class CommandFailed(Exception):
    """A command that failed; the text has its command line and the end of its output."""


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, flush=True)


def find(program: str) -> str | None:
    """The path of a program, also of those of Debian's administrators, which are not in everybody's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def require(program: str, purpose: str) -> str:
    """The path of a program.

    Args:
        program: its name.
        purpose: what it does for us, and where it is to be had; the error says so.

    Raises:
        Unavailable: it is not installed.
    """
    if (found := find(program)) is None:
        raise Unavailable(f"{program} is not installed: {purpose}")
    return found


def run(command: Sequence[str | Path], **options: Any) -> str:
    """Run a command to its end and return what it wrote, its errors among the rest.

    Args:
        command: program and arguments.
        options: of ``subprocess.run``; with ``stderr=PIPE`` the errors are left out of the answer.

    Raises:
        CommandFailed: its exit code is not 0.
    """
    words = [str(part) for part in command]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    done = subprocess.run(words, text=True, check=False, **streams)  # noqa: S603 - no shell, the callers' own words
    if done.returncode:
        tail = "\n".join(f"{done.stdout}{done.stderr or ''}".splitlines()[-_TAIL_LINES:])
        raise CommandFailed(f"{' '.join(words)} ended with {done.returncode}:\n{tail}")
    return str(done.stdout)


def exit_code(work: Callable[[], object]) -> int:
    """Do the work of a command: 0 when it is done, 1 when something failed, 3 when the machine lacks something.

    What failed or is lacking is said on standard error.
    """
    try:
        work()
    except Unavailable as reason:
        print(f"cannot be done here: {reason}", file=sys.stderr)
        return 3
    except CommandFailed as reason:
        print(f"failed: {reason}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as reason:
        print(f"failed: {reason}\n{reason.stderr or ''}", file=sys.stderr)
        return 1
    return 0
