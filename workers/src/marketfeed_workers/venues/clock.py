"""The venue's clock as far as it is known, and which times of a trade are impossible by it.

The venue's time is measured over REST and continued by the monotonic clock: a host whose own clock is wrong, or is set,
rejects nothing. Until it has been measured the host's clock decides, with a day to spare.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from marketfeed_wire import Trade

SECOND_US: Final = 1_000_000
EARLIEST_US: Final = 1_230_768_000 * SECOND_US
"""2009-01-01: no trade of a cryptocurrency is older, so an earlier time is in another unit, or is none."""
TOLERANCE_US: Final = 60 * SECOND_US
"""How far a time may be ahead of the venue's clock, and a trade after its event: servers of a venue differ a little."""
MAX_EVENT_DELAY_US: Final = 86_400 * SECOND_US
"""How long after a trade its event may be sent."""
_UNMEASURED_TOLERANCE_US: Final = 86_400 * SECOND_US
_UNITS: Final = {
    1_000: "a thousandth of what is expected, as of milliseconds for microseconds",
    1_000_000: "a millionth of what is expected, as of seconds for microseconds",
    0.001: "a thousand times what is expected, as of microseconds for milliseconds",
    0.000_001: "a million times what is expected, as of nanoseconds for milliseconds",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class VenueClock:
    """Args: the host's clocks."""

    def __init__(self, now_us: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._now_us = now_us
        self._monotonic = monotonic
        self._measured: tuple[int, float] | None = None
        self._newest_us = 0

    def measure(self, venue_us: int, at: float) -> None:
        """The venue's clock showed `venue_us` when the monotonic clock showed `at`."""
        self._measured = venue_us, at

    def accept(self, time_us: int) -> None:
        """A message of that time was accepted: a recording that is replayed faster than time goes by leads the way."""
        if time_us > self._newest_us:
            self._newest_us = time_us

    def time_us(self) -> int:
        """The venue's time now; the host's until it has been measured."""
        if self._measured is None:
            return self._now_us()
        venue_us, at = self._measured
        return venue_us + int((self._monotonic() - at) * SECOND_US)

    def ahead_us(self) -> int:
        """How far the venue's clock is ahead of the host's; negative where it is behind."""
        return self.time_us() - self._now_us()

    def latest_us(self) -> int:
        """The latest time that a message can bear now."""
        tolerance_us = TOLERANCE_US if self._measured is not None else _UNMEASURED_TOLERANCE_US
        return max(self.time_us(), self._newest_us) + tolerance_us

    def fault(self, trade: Trade) -> str:
        """Why the times of `trade` are impossible; "" when they are not."""
        latest_us, time_us, event_us = self.latest_us(), trade.trade_time_us, trade.event_time_us
        if is_possible(time_us, event_us, latest_us):
            return ""
        if not EARLIEST_US <= time_us <= latest_us:
            return f"trade time {_shown(time_us)} is impossible{_unit(time_us, latest_us)}"
        return f"event time {_shown(event_us or 0)} does not go with trade time {_shown(time_us)}"


def is_possible(time_us: int, event_us: int | None, latest_us: int) -> bool:
    """Whether a trade can have these times."""
    return EARLIEST_US <= time_us <= latest_us and (
        event_us is None
        or (time_us - TOLERANCE_US <= event_us <= time_us + MAX_EVENT_DELAY_US and event_us <= latest_us)
    )


def _unit(time_us: int, latest_us: int) -> str:
    for factor, name in _UNITS.items():
        if EARLIEST_US <= time_us * factor <= latest_us:
            return f": it counts {name}"
    return ""


def _shown(time_us: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=time_us)).isoformat()
    except OverflowError:
        return f"{time_us} us"
