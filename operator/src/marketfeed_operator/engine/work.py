"""Workers: they take keys out of the queue and have them reconciled, so many at a time."""

import asyncio
import random
import time

from marketfeed_chassis import logs
from marketfeed_operator.engine.canary import Canary
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.queue import WorkQueue
from marketfeed_operator.observed import Key
from marketfeed_operator.reconcile import Reconciler
from marketfeed_operator.store import Store

log = logs.get(__name__)


class Workers:
    """Reconciles what is in the queue."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        reconciler: Reconciler,
        store: Store,
        canary: Canary,
        metrics: Metrics,
        *,
        resync_seconds: float,
        chance: random.Random,
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._store = store
        self._canary = canary
        self._metrics = metrics
        self._resync_seconds = resync_seconds
        self._chance = chance
        # Read at a scrape: a number set when a key is taken would stand still with the workers.
        metrics.queue_depth.set_function(lambda: len(queue))

    async def run(self, number: int) -> None:
        """Work, `number` at a time, until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for each in range(number):
                workers.create_task(self._work(), name=f"worker-{each}")

    async def _work(self) -> None:
        while True:
            key, waited_seconds = await self._queue.get()
            self._metrics.queue_wait.observe(waited_seconds)
            feed = self._store.feeds.get(key)
            if feed is not None and self._canary.is_ours(feed):
                self._canary.seen(feed)
                await self._queue.done(key)
                continue
            started = time.perf_counter()
            await self._reconcile(key)
            self._metrics.duration.observe(time.perf_counter() - started)

    async def _reconcile(self, key: Key) -> None:
        # In a task of its own: an error of ours about one feed must not keep the others from being served.
        task = asyncio.create_task(self._reconciler.reconcile(key), name=f"reconcile {key[0]}/{key[1]}")
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        if (error := task.exception()) is not None:
            delay = await self._queue.failed(key)
            self._metrics.reconciles.labels("error").inc()
            log.error(
                "reconciliation crashed", feed="/".join(key), again_seconds=round(delay, 1), exc_info=error
            )
            return
        done = task.result()
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
            # Not all at the same moment, also after a start that saw all of them at once.
            await self._queue.done(
                key, again_after_seconds=self._resync_seconds * self._chance.uniform(0.8, 1.2)
            )
