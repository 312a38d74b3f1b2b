"""Begin and end of a service's process: exit codes, signals, one-line errors for problems that the user can fix."""

import io
import signal
import sys
from collections.abc import Callable
from types import FrameType

from marketfeed_service import logs
from marketfeed_service.errors import ServiceError

log = logs.get(__name__)


def escape_unprintable() -> None:
    """Make stdout escape characters that its encoding lacks, as stderr does, instead of raising an error.

    A terminal or pipe may be ASCII or Latin-1 (LC_ALL, PYTHONIOENCODING); symbols may have characters of any script.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def exit_code_of(run: Callable[[], int]) -> int:
    """Return the exit code of `run`; print a ServiceError to stderr and return its exit code, 130 for Ctrl-C.

    With JSON logs the error is a log entry, so that every line of stderr is JSON.
    """
    escape_unprintable()
    try:
        return run()
    except ServiceError as error:
        for line in str(error).splitlines():
            if logs.json_lines():
                log.error(line)  # noqa: TRY400 - the text is for the user, a traceback is not
            else:
                print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT; the second signal has its default action and ends the process.

    `stop` runs in the main thread between any two instructions: it may only set a flag or an event.
    """

    def handle(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
