"""The rim of a side loop: whatever one turn of it raises is counted, reported, and ends nothing.

What is expected to fail is handled where it fails. What arrives here is a fault that nobody foresaw: it must not end
the loop, because the operator of the whole cluster would end with it, and it must not hide, so it is a metric, a log
line and, once it stays, a condition of every feed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from marketfeed_chassis import logs
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import ApiError

log = logs.get(__name__)

REPORTED_FAILURES: Final = 3
"""Failed turns in a row after which feeds are told: a single one is an API server that restarts."""


class Rim:
    """Runs the turns of side loops and keeps what went wrong.

    Attributes:
        problems: loop -> why its last turns failed; read by every reconciliation.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._failures: dict[str, int] = {}
        self.problems: dict[str, str] = {}

    async def turn(self, loop: str, step: Callable[[], Awaitable[object]]) -> bool:
        """Run one turn of `loop`; whether it succeeded."""
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - what a rim is for; see `_failed`
            self._failed(loop, error)
            return False
        if self._failures.pop(loop, 0):
            log.info("loop recovered", loop=loop)
        self.problems.pop(loop, None)
        self._metrics.loop_failing.labels(loop).set(0)
        return True

    async def repeat(self, loop: str, step: Callable[[], Awaitable[object]], interval_seconds: float) -> None:
        """Run turns until cancelled, the first after the interval."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self.turn(loop, step)

    def _failed(self, loop: str, error: Exception) -> None:
        failures = self._failures[loop] = self._failures.get(loop, 0) + 1
        self._metrics.loop_failures.labels(loop).inc()
        self._metrics.loop_failing.labels(loop).set(1)
        reason = f"{error}" if isinstance(error, ApiError) else f"{type(error).__name__}: {error}"
        if failures >= REPORTED_FAILURES:
            self.problems[loop] = reason[:300]
        if failures == 1:
            # A refusal of the API server explains itself; anything else is a fault of ours, with its place.
            unexpected = None if isinstance(error, ApiError) else error
            log.warning("loop failed", loop=loop, reason=reason[:300], exc_info=unexpected)
