"""How a service's process begins and ends: exit codes, signals, one line for what the user can mend."""

import io
import signal
import sys
from collections.abc import Callable
from types import FrameType

from marketfeed_chassis import logs
from marketfeed_chassis.errors import ServiceError

log = logs.get(__name__)


def escape_unprintable() -> None:
    """Let stdout print what its encoding lacks as an escape, as stderr does, and not end in an error.

    A terminal or a pipe may be ASCII or Latin-1 (LC_ALL, PYTHONIOENCODING), and symbols are any script's.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def exit_code_of(run: Callable[[], int]) -> int:
    """What `run` returns; a ServiceError becomes its text on stderr and its exit code, Ctrl-C becomes 130.

    Whoever asked for JSON lines gets that text as a log entry, so that every line of stderr stays one.
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
    """Call `stop` at the first SIGTERM or SIGINT; the next of either ends the process as the system does by default.

    `stop` runs in the main thread in the midst of whatever it does: let it set a flag or an event, no more.
    """

    def handle(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
