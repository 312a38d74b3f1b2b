"""Workers: take keys from the queue and reconcile them, with bounded concurrency."""

import asyncio
import random
from collections.abc import Callable

from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.queue import WorkQueue
from marketfeed_operator.observed import Key
from marketfeed_operator.reconcile import Reconciler
from marketfeed_service import logs

log = logs.get(__name__)


class Workers:
    """Reconciles the keys of the queue.

    Args:
        queue: keys of the feeds that are due.
        reconciler: reconciles one feed.
        metrics: metrics of the operator.
        resync_seconds: interval of reconciliations without an event.
        rng: source of the jitter.
        now: monotonic clock, in seconds.

    Attributes:
        last_end: monotonic time of the end of the last reconciliation.
    """

    def __init__(
        self,
        queue: WorkQueue[Key],
        reconciler: Reconciler,
        metrics: Metrics,
        *,
        resync_seconds: float,
        rng: random.Random,
        now: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._metrics = metrics
        self._resync_seconds = resync_seconds
        self._rng = rng
        self._now = now
        self.last_end = now()
        # Evaluated at scrape time: a value set by workers would not change while they are stuck.
        metrics.queue_depth.set_function(lambda: len(queue))
        metrics.queue_age.set_function(queue.oldest_seconds)

    async def run(self, number: int) -> None:
        """Run `number` workers until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for each in range(number):
                workers.create_task(self._work(), name=f"worker-{each}")

    def stalled_seconds(self) -> float:
        """Return how long feeds have been due without a finished reconciliation; 0 when all is well.

        Both conditions: after a start with thousands of feeds keys are old for minutes while reconciliations finish.
        """
        return min(self._queue.oldest_seconds(), self._now() - self.last_end)

    async def _work(self) -> None:
        while True:
            key, waited_seconds = await self._queue.get()
            self._metrics.queue_wait.observe(waited_seconds)
            started = self._now()
            await self._reconcile(key)
            self.last_end = self._now()
            self._metrics.duration.observe(self.last_end - started)

    async def _reconcile(self, key: Key) -> None:
        started = self._now()
        try:
            done = await self._reconciler.reconcile(key)
        except Exception:  # not even its status could be written: other feeds are still served
            delay = await self._queue.failed(key)
            self._metrics.reconciles.labels("error").inc()
            log.exception("reconciliation crashed", feed="/".join(key), again_seconds=round(delay, 1))
            return
        # A feed that changes constantly gets at most half of a worker's time.
        rest_seconds = self._now() - started
        if done is None:
            self._metrics.reconciles.labels("gone").inc()
            await self._queue.forget(key)
        elif done.failure:
            self._metrics.reconciles.labels("failure").inc()
            delay = await self._queue.failed(key, at_least_seconds=done.retry_after_seconds)
            log.warning(
                "reconciliation failed",
                feed="/".join(key),
                reason=done.failure,
                again_seconds=round(delay, 1),
            )
        else:
            self._metrics.reconciles.labels("success").inc()
            # Spread over the interval, also after a start that saw all feeds at once.
            resync = self._resync_seconds * self._rng.uniform(0.8, 1.2)
            await self._queue.done(
                key, again_after_seconds=rest_seconds if done.more else resync, rest_seconds=rest_seconds
            )
