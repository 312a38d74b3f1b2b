"""Telling a quiet symbol from a mute stream by the symbol's own history. Pure: the time is handed in.

The mean interval between a symbol's messages is learned from how many come in each look. A silence many times as
long is suspicious, and only then is the venue asked over REST: a quiet market is never a reason to reconnect.
"""

from typing import Final

SHORTEST_US: Final = 3_000_000
LONGEST_US: Final = 900_000_000
UNKNOWN_US: Final = 15_000_000
"""What a symbol without a history may be silent for."""
FACTOR: Final = 20.0
"""For arrivals at random (Poisson) a silence of 20 mean intervals comes once in e^20 = 5e8 intervals."""
MEMORY_SECONDS: Final = 60.0
"""Looks older than this weigh less than 1/e in the mean."""
MOST_AT_ONCE: Final = 0.5
"""How far one interval can move the mean: a market that fell asleep is learned in a few, a stream that was mute for an
hour leaves its symbol's history nearly as it was."""


class Pulse:
    """The arrivals of one symbol.

    Attributes:
        last_change_us: when the newest message was noticed.
    """

    __slots__ = ("_asked_us", "_learned_us", "_per_second", "_seen", "_slack", "last_change_us")

    def __init__(self, seen: int, now_us: int) -> None:
        self.last_change_us = now_us
        self._seen = seen
        self._learned_us = now_us
        self._asked_us = now_us
        self._per_second: float | None = None
        self._slack = 1.0

    def look(self, seen: int, now_us: int) -> None:
        """`seen` messages of the symbol have come in all, as of now."""
        elapsed = (now_us - self._learned_us) / 1e6
        # A silence teaches nothing before it ends: a mute stream must not come to look quiet with time.
        if seen == self._seen or elapsed <= 0:
            return
        rate = (seen - self._seen) / elapsed
        if self._per_second is None:
            self._per_second = rate
        else:
            self._per_second += min(MOST_AT_ONCE, elapsed / MEMORY_SECONDS) * (rate - self._per_second)
        self._seen = seen
        self._learned_us = self.last_change_us = now_us
        self._slack = 1.0

    @property
    def is_lively(self) -> bool:
        """Whether messages come often enough that their absence would be noticed within seconds."""
        return bool(self._per_second) and self.allowed_us <= 2 * SHORTEST_US

    @property
    def allowed_us(self) -> int:
        """How long the symbol may be silent before the venue is asked."""
        usual = UNKNOWN_US if not self._per_second else FACTOR / self._per_second * 1e6
        return int(min(LONGEST_US, max(SHORTEST_US, usual) * self._slack))

    def is_silent(self, now_us: int) -> bool:
        """Whether the silence, since the venue was last asked, is longer than this symbol's history explains."""
        return now_us - max(self.last_change_us, self._asked_us) > self.allowed_us

    def was_quiet(self, now_us: int) -> None:
        """The venue was asked and had nothing newer either: ask less often until something comes."""
        self._asked_us = now_us
        self._slack = min(self._slack * 2, LONGEST_US / SHORTEST_US)
