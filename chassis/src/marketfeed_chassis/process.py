"""How a service's process begins and ends: exit codes, signals, one line for what the user can mend."""

import signal
import sys
from collections.abc import Callable
from types import FrameType

from marketfeed_chassis.errors import ServiceError


def exit_code_of(run: Callable[[], int]) -> int:
    """What `run` returns; a ServiceError becomes its text on stderr and its exit code, Ctrl-C becomes 130."""
    try:
        return run()
    except ServiceError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT; a second one ends the process as the system does by default."""

    def handle(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
