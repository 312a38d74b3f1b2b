"""Keyed work queue: a key is processed by one worker at a time, is queued once, and failures back off.

Like client-go's workqueue, in asyncio: a key that is added while it is processed is processed once more afterwards.
"""

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from marketfeed_service.backoff import delays

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """Queue of keys to be processed.

    Args:
        now: monotonic clock, in seconds.
        first_seconds, cap_seconds: bounds of the backoff after failures.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        chance: random.Random,
        first_seconds: float = 0.5,
        cap_seconds: float = 300,
    ) -> None:
        self._now = now
        self._chance = chance
        self._bounds = (first_seconds, cap_seconds)
        self._due: dict[K, float] = {}
        self._order: list[tuple[float, int, K]] = []
        self._number = itertools.count()
        self._working: set[K] = set()
        self._again: dict[K, float] = {}
        self._backoff: dict[K, Iterator[float]] = {}
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        """Return the number of keys that are due and not being processed. Thread-safe."""
        now = self._now()
        return sum(1 for due in tuple(self._due.values()) if due <= now)

    def oldest_seconds(self) -> float:
        """Return how long the oldest due key has been waiting; 0 for none. Thread-safe."""
        now = self._now()
        return max((now - due for due in tuple(self._due.values()) if due <= now), default=0.0)

    async def add(self, key: K, *, after_seconds: float = 0) -> None:
        """Schedule `key` after the delay; an earlier schedule is kept."""
        due = self._now() + after_seconds
        async with self._changed:
            if key in self._working:
                self._again[key] = min(due, self._again.get(key, due))
            else:
                self._wait(key, due)
            self._changed.notify()

    async def get(self) -> tuple[K, float]:
        """Return the oldest due key and how long it has been due, in seconds. Call `done` or `failed` afterwards."""
        async with self._changed:
            while True:
                now = self._now()
                if (found := self._pop(now)) is not None:
                    self._working.add(found[0])
                    return found
                wait = self._order[0][0] - now if self._order else None
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def done(
        self, key: K, *, again_after_seconds: float | None = None, rest_seconds: float = 0
    ) -> None:
        """Mark `key` as processed; schedule it again after the delay, if given.

        Args:
            rest_seconds: minimum delay, also for a key added meanwhile.
        """
        self._backoff.pop(key, None)
        await self._release(key, again_after_seconds, rest_seconds)

    async def failed(self, key: K, *, at_least_seconds: float = 0) -> float:
        """Mark `key` as failed and schedule it with backoff. Return the delay in seconds."""
        backoff = self._backoff.setdefault(key, delays(*self._bounds, self._chance))
        delay = max(next(backoff), at_least_seconds)
        await self._release(key, delay)
        return delay

    async def forget(self, key: K) -> None:
        """Drop the backoff state of a deleted key."""
        self._backoff.pop(key, None)
        await self._release(key, None)

    async def _release(self, key: K, again_after_seconds: float | None, rest_seconds: float = 0) -> None:
        async with self._changed:
            self._working.discard(key)
            dues = [max(self._again.pop(key), self._now() + rest_seconds)] if key in self._again else []
            if again_after_seconds is not None:
                dues.append(self._now() + again_after_seconds)
            if dues:
                self._wait(key, min(dues))
            self._changed.notify()

    def _wait(self, key: K, due: float) -> None:
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._order, (due, next(self._number), key))

    def _pop(self, now: float) -> tuple[K, float] | None:
        while self._order:
            due, _, key = self._order[0]
            if self._due.get(key) != due:  # rescheduled earlier, or already being processed
                heapq.heappop(self._order)
                continue
            if due > now:
                return None
            heapq.heappop(self._order)
            del self._due[key]
            return key, now - due
        return None
