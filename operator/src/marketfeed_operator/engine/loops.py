"""Isolation of background loops: an exception of one iteration is counted and reported, and does not end the loop.

Expected failures are handled where they occur. Anything else must not end the loop, because that would end the
operator of the whole cluster, and must not be hidden: it is a metric, a log line and, after repetition, a condition
of every feed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import ApiError
from marketfeed_service import logs

log = logs.get(__name__)

REPORTED_FAILURES: Final = 3
"""Consecutive failures after which feeds report it: a single one may be a restart of the API server."""


class LoopRunner:
    """Runs iterations of background loops and records their failures.

    Attributes:
        problems: loop -> why its last iterations failed; read by every reconciliation.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._failures: dict[str, int] = {}
        self.problems: dict[str, str] = {}

    async def run_once(self, loop: str, step: Callable[[], Awaitable[object]]) -> bool:
        """Run one iteration of `loop`. Return whether it succeeded."""
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
        """Run iterations until cancelled, the first after the interval.

        Args:
            loop: name of the loop in logs, metrics and conditions.
            step: one iteration.
            interval_seconds: wait before each iteration.
        """
        while True:
            await asyncio.sleep(interval_seconds)
            await self.run_once(loop, step)

    def _failed(self, loop: str, error: Exception) -> None:
        failures = self._failures[loop] = self._failures.get(loop, 0) + 1
        self._metrics.loop_failures.labels(loop).inc()
        self._metrics.loop_failing.labels(loop).set(1)
        reason = f"{error}" if isinstance(error, ApiError) else f"{type(error).__name__}: {error}"
        if failures >= REPORTED_FAILURES:
            self.problems[loop] = reason[:300]
        if failures == 1:
            # A refusal of the API server needs no traceback; any other error is a bug.
            unexpected = None if isinstance(error, ApiError) else error
            log.warning("loop failed", loop=loop, reason=reason[:300], exc_info=unexpected)
