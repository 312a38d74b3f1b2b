"""Handling of SIGINT, SIGTERM and SIGHUP: the first signal cancels the run, whose ``finally`` blocks clean up."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_interruptible(work: Coroutine[None, None, int]) -> int:
    """Run `work`; return its exit code, or 128 + the number of the signal that cancelled it."""
    return asyncio.run(_guarded(work))


async def _guarded(work: Coroutine[None, None, int]) -> int:
    task = asyncio.ensure_future(work)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        # Only the first signal counts: a second one must not interrupt the clean-up, which has its own deadlines.
        if not received:
            print("stopping", file=sys.stderr)
            task.cancel()
        received.append(number)

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        return 128 + received[0]
