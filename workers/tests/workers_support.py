"""Names that several test files of the worker share."""

import asyncio
import time
from collections.abc import Callable

from marketfeed_workers.settings import WorkerSettings

MakeSettings = Callable[..., WorkerSettings]
"""Settings as from an environment, by variable: ``make_settings(KAFKA_ACKS="1")``."""


def now_us() -> int:
    return time.time_ns() // 1000


async def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Let the loop run until `condition` holds; fails with `what` when it does not come to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.002)
