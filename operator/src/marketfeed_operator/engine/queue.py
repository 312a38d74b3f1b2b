"""A keyed work queue: one key at a time, no key twice, failures with growing delays.

The same as every Go operator stands on (client-go's workqueue), in asyncio: a key that is added while it is worked
on is worked on again afterwards, once.
"""

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from marketfeed_chassis.backoff import delays

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """Keys that wait for a worker.

    Args:
        now: a clock in seconds that never goes back.
        first_seconds, cap_seconds: bounds of the delays after failures.
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
        """The keys that are due now and not worked on. May be asked for from another thread."""
        now = self._now()
        return sum(1 for due in tuple(self._due.values()) if due <= now)

    def oldest_seconds(self) -> float:
        """How long the key that is due longest has waited; 0 for none. May be asked for from another thread."""
        now = self._now()
        return max((now - due for due in tuple(self._due.values()) if due <= now), default=0.0)

    async def add(self, key: K, *, after_seconds: float = 0) -> None:
        """Have `key` worked on after the delay at the latest; an earlier moment stays."""
        due = self._now() + after_seconds
        async with self._changed:
            if key in self._working:
                self._again[key] = min(due, self._again.get(key, due))
            else:
                self._wait(key, due)
            self._changed.notify()

    async def get(self) -> tuple[K, float]:
        """The key that is due longest, and for how long it was, in seconds. Call `done` or `failed` after it."""
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
        """The work on `key` succeeded; have it again after the delay, if one is given.

        Args:
            rest_seconds: not before that, also where it was added meanwhile.
        """
        self._backoff.pop(key, None)
        await self._release(key, again_after_seconds, rest_seconds)

    async def failed(self, key: K, *, at_least_seconds: float = 0) -> float:
        """The work on `key` failed; it comes again, later each time. The delay in seconds."""
        backoff = self._backoff.setdefault(key, delays(*self._bounds, self._chance))
        delay = max(next(backoff), at_least_seconds)
        await self._release(key, delay)
        return delay

    async def forget(self, key: K) -> None:
        """The key is gone for good; its work has ended."""
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
            if self._due.get(key) != due:  # an earlier moment was set since, or it is worked on already
                heapq.heappop(self._order)
                continue
            if due > now:
                return None
            heapq.heappop(self._order)
            del self._due[key]
            return key, now - due
        return None
