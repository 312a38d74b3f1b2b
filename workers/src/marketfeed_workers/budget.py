"""Budgets towards a venue: request weight a minute, attempts within a window.

Exchanges count by address, not by process: the weight that one reports in each answer is that of every process behind
one address, so pods that share an address see each other in it. Each keeps to its own share besides.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from marketfeed_workers.errors import Limited

_RESERVE = 0.9
"""The part of a limit that is used: the rest is for what else runs behind the same address."""
_SET_ASIDE = 0.2
"""The part of that which backfill leaves to what must be known now: whether streams deliver, the clock, id series."""
_MINUTE_SECONDS = 60.0
_PHASE_TOLERANCE_SECONDS = 1.0
"""Less is what a response's way takes."""


class WeightBudget:
    """Request weight within the venue's own minutes.

    Durations are those of a monotonic clock; where the venue's minutes begin is told by its own clock (`align`), so
    that nothing here changes when this host's clock is set.

    Attributes:
        limit: weight a minute, as the venue's exchangeInfo says; None until it has been read.
        used: weight used in this minute by this address, as the newest answer says.
        share: how many workers use this address.
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
        """How long a request of `weight` must wait; 0 when it may be sent now. `is_backfill`: it can wait."""
        now = self._now()
        if now < self._blocked_until:
            return self._blocked_until - now
        self._turn(now)
        if self.limit is None:
            return 0.0
        allowed = self.limit * _RESERVE * (1 - _SET_ASIDE if is_backfill else 1)
        # A request above a whole share must not wait for ever: it goes first in a fresh minute.
        own_fits = self._own_used == 0 or self._own_used + weight <= allowed / self.share
        all_fit = self.used == 0 or self.used + weight <= allowed
        return 0.0 if own_fits and all_fit else _MINUTE_SECONDS - (now + self._phase) % _MINUTE_SECONDS

    async def take(self, weight: int, *, is_backfill: bool = False) -> None:
        """Wait until a request of `weight` may be sent, and count it."""
        while (seconds := self.wait_seconds(weight, is_backfill=is_backfill)) > 0:  # noqa: ASYNC110 - it waits for the clock
            await asyncio.sleep(seconds)
        self._own_used += weight
        self.used += weight

    def observe(self, used: int) -> None:
        """The venue told the weight that this address has used in the current minute."""
        self._turn(self._now())
        self.used = used

    def align(self, venue_seconds: float) -> None:
        """The venue's clock shows `venue_seconds` now: its minutes turn when that is a multiple of 60."""
        phase = (venue_seconds - self._now()) % _MINUTE_SECONDS
        if abs((phase - self._phase + 30) % _MINUTE_SECONDS - 30) > _PHASE_TOLERANCE_SECONDS:
            used, own_used = self.used_now, self._own_used
            self._phase = phase
            self._turn(self._now())
            self.used, self._own_used = used, own_used  # another count of minutes is no new minute

    @property
    def has_spare(self) -> bool:
        """Whether less than half is used: what is not urgent leaves the other half to what is."""
        return self._is_used_less_than(1 / 2)

    @property
    def has_ample_spare(self) -> bool:
        """Whether less than a quarter is used: what has little hope leaves another quarter to what has more."""
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
        """As `used`, and nothing once that minute is over; changes nothing, for it is asked from another thread."""
        return self.used if self._minute_at(self._now()) == self._minute else 0

    def block(self, error: Limited) -> None:
        """The venue asked to be left alone: no request before that time is over."""
        self._blocked_until = max(self._blocked_until, self._now() + error.retry_after_seconds)

    @property
    def blocked_seconds(self) -> float:
        """How long the venue still wants to be left alone."""
        return max(0.0, self._blocked_until - self._now())

    def _turn(self, now: float) -> None:
        minute = self._minute_at(now)
        if minute != self._minute:
            self._minute, self._own_used, self.used = minute, 0, 0

    def _minute_at(self, now: float) -> int:
        return int((now + self._phase) // _MINUTE_SECONDS)


class AttemptBudget:
    """A part of `attempts` within any `window_seconds`; shared by all connections of a process.

    Attributes:
        share: how many workers use this address.
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
        """Attempts that this process may make within the window; one even where the share is less."""
        return max(1, self._attempts // self.share)

    @property
    def used(self) -> int:
        """Attempts within the window that ends now. Asked from the health server's thread, too: it changes nothing."""
        since = self._now() - self._window
        return sum(taken > since for taken in list(self._taken))

    def wait_seconds(self) -> float:
        """How long the next attempt must wait."""
        # Where the share has shrunk more than the newest of them must have left the window.
        return 0.0 if self.used < self.limit else self._taken[-self.limit] + self._window - self._now()

    async def take(self) -> None:
        """Wait until an attempt may be made, and count it."""
        while (seconds := self.wait_seconds()) > 0:  # noqa: ASYNC110 - it waits for the clock
            await asyncio.sleep(seconds)
        now = self._now()
        while self._taken and self._taken[0] <= now - self._window:
            self._taken.popleft()
        self._taken.append(now)
