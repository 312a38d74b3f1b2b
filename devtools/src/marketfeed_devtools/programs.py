"""Programs of the machine: search in PATH, and commands whose failure shows their output."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

_TAIL_LINES: Final = 40


class Unavailable(Exception):
    """A tool is missing on this machine; the text names it, its purpose and how to install it."""


class CommandFailed(Exception):
    """A command failed; the text has its command line and the end of its output."""


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, flush=True)


def find(program: str) -> str | None:
    """Return the path of a program; searches the sbin folders too, which are not in every user's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def require(program: str, purpose: str) -> str:
    """Return the path of a program.

    Args:
        program: its name.
        purpose: its purpose and how to install it, for the error text.

    Raises:
        Unavailable: the program is not installed.
    """
    if (found := find(program)) is None:
        raise Unavailable(f"{program} is not installed: {purpose}")
    return found


def run(command: Sequence[str | Path], **options: Any) -> str:
    """Run a command to its end and return its output, stderr included.

    Args:
        command: program and arguments.
        options: options of ``subprocess.run``; with ``stderr=PIPE`` the result has stdout only.

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
    """Run the work of a command; return 0 on success, 1 on failure, 3 if a tool is missing on this machine.

    The reason is printed to standard error.
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
