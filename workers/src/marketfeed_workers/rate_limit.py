"""Rate limits of a venue: request weight per minute, connection attempts per window.

Exchanges count by address: the weight in each response includes all processes behind the address. In addition each
process is limited to its share.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from marketfeed_workers.venues.errors import Limited

_RESERVE = 0.9
"""Usable part of a limit; the rest is left to other programs behind the same address."""
_SET_ASIDE = 0.2
"""Part of the usable limit that backfill leaves to urgent requests: stream probes, clock, id series."""
_MINUTE_SECONDS = 60.0
_PHASE_TOLERANCE_SECONDS = 1.0
"""Smaller changes are network latency."""


class WeightBudget:
    """Request weight within the venue's minutes.

    Durations are monotonic, and the beginning of the venue's minutes is derived from its clock (`align`), so that steps
    of the host's clock have no effect.

    Attributes:
        limit: weight per minute in the venue's exchangeInfo; None until it is known.
        used: weight used in this minute by this address, by the newest response.
        share: number of workers that share this address.
    """

    def __init__(self, share: int, monotonic: Callable[[], float]) -> None:
        self.limit: int | None = None
        self.used = 0
        self.share = share
        self._now = monotonic
        self._phase = 0.0
        self._minute = 0
        self._own_used = 0
        self._blocked_until = 0.0

    def wait_seconds(self, weight: int, *, is_backfill: bool = False) -> float:
        """Return the seconds to wait before a request of `weight`; `is_backfill` leaves weight to urgent requests."""
        now = self._now()
        if now < self._blocked_until:
            return self._blocked_until - now
        self._turn(now)
        if self.limit is None:
            return 0.0
        allowed = self.limit * _RESERVE * (1 - _SET_ASIDE if is_backfill else 1)
        # A request above the whole share is sent first in a new minute; otherwise it would wait forever.
        own_fits = self._own_used == 0 or self._own_used + weight <= allowed / self.share
        all_fit = self.used == 0 or self.used + weight <= allowed
        return 0.0 if own_fits and all_fit else _MINUTE_SECONDS - (now + self._phase) % _MINUTE_SECONDS

    async def acquire(self, weight: int, *, is_backfill: bool = False) -> None:
        """Wait until a request of `weight` may be sent, and count it."""
        while (seconds := self.wait_seconds(weight, is_backfill=is_backfill)) > 0:  # noqa: ASYNC110 - waits for the clock
            await asyncio.sleep(seconds)
        self._own_used += weight
        self.used += weight

    def observe(self, used: int) -> None:
        """Set the weight used in the current minute, as reported by the venue."""
        self._turn(self._now())
        self.used = used

    def align(self, venue_seconds: float) -> None:
        """Align the minutes to the venue's clock, which shows `venue_seconds` now."""
        phase = (venue_seconds - self._now()) % _MINUTE_SECONDS
        if abs((phase - self._phase + 30) % _MINUTE_SECONDS - 30) > _PHASE_TOLERANCE_SECONDS:
            used, own_used = self.used_now, self._own_used
            self._phase = phase
            self._turn(self._now())
            self.used, self._own_used = used, own_used  # the renumbered minute is not a new one

    @property
    def has_spare(self) -> bool:
        """Whether less than half is used: the limit for retries."""
        return self._is_used_less_than(1 / 2)

    @property
    def has_ample_spare(self) -> bool:
        """Whether less than a quarter is used: the limit for retries after a response without the ids."""
        return self._is_used_less_than(1 / 4)

    def _is_used_less_than(self, part: float) -> bool:
        now = self._now()
        if now < self._blocked_until:
            return False
        self._turn(now)
        if self.limit is None:
            return True
        allowed = self.limit * _RESERVE * part
        return self._own_used <= allowed / self.share and self.used <= allowed

    @property
    def used_now(self) -> int:
        """Weight used in the current minute. For any thread: read-only."""
        return self.used if self._minute_at(self._now()) == self._minute else 0

    def block(self, error: Limited) -> None:
        """Block all requests until Retry-After of a 429 or 418 is over."""
        self._blocked_until = max(self._blocked_until, self._now() + error.retry_after_seconds)

    @property
    def blocked_seconds(self) -> float:
        """Remaining seconds of Retry-After."""
        return max(0.0, self._blocked_until - self._now())

    def _turn(self, now: float) -> None:
        minute = self._minute_at(now)
        if minute != self._minute:
            self._minute, self._own_used, self.used = minute, 0, 0

    def _minute_at(self, now: float) -> int:
        return int((now + self._phase) // _MINUTE_SECONDS)


class AttemptBudget:
    """Share of `attempts` connection attempts within any `window_seconds`, for all connections of a process.

    Attributes:
        share: number of workers that share this address.
    """

    def __init__(
        self, attempts: int, share: int, window_seconds: float, now_seconds: Callable[[], float]
    ) -> None:
        self.share = share
        self._attempts = attempts
        self._window = window_seconds
        self._now = now_seconds
        self._taken: deque[float] = deque()

    @property
    def limit(self) -> int:
        """Maximum attempts of this process within the window; at least one."""
        return max(1, self._attempts // self.share)

    @property
    def used(self) -> int:
        """Attempts within the current window. For any thread: read-only."""
        since = self._now() - self._window
        return sum(taken > since for taken in list(self._taken))

    def wait_seconds(self) -> float:
        """Return the seconds to wait before the next attempt."""
        # After a reduction of the share more than one attempt must leave the window.
        return 0.0 if self.used < self.limit else self._taken[-self.limit] + self._window - self._now()

    async def acquire(self) -> None:
        """Wait until an attempt may be made, and count it."""
        while (seconds := self.wait_seconds()) > 0:  # noqa: ASYNC110 - waits for the clock
            await asyncio.sleep(seconds)
        now = self._now()
        while self._taken and self._taken[0] <= now - self._window:
            self._taken.popleft()
        self._taken.append(now)
