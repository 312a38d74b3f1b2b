"""Estimate of the venue's clock, and validation of the times of trades.

The venue's time is measured over REST and continued by the monotonic clock, so that a wrong host clock, or a step of
it, rejects nothing. Before the first measurement the host's clock is used with a tolerance of a day.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from marketfeed_wire import Trade

SECOND_US: Final = 1_000_000
EARLIEST_US: Final = 1_230_768_000 * SECOND_US
"""2009-01-01: no trade of a cryptocurrency is older; an earlier time is invalid or in another unit."""
TOLERANCE_US: Final = 60 * SECOND_US
"""Tolerance for differences between a venue's servers: of a time ahead of its clock, and of a trade after its event."""
MAX_EVENT_DELAY_US: Final = 86_400 * SECOND_US
"""Maximum delay from a trade to its event."""
_UNMEASURED_TOLERANCE_US: Final = 86_400 * SECOND_US
_UNITS: Final = {
    1_000: "a factor 1000 too small, for example milliseconds instead of microseconds",
    1_000_000: "a factor 1000000 too small, for example seconds instead of microseconds",
    0.001: "a factor 1000 too large, for example microseconds instead of milliseconds",
    0.000_001: "a factor 1000000 too large, for example nanoseconds instead of milliseconds",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class VenueClock:
    """Estimate of the venue's clock, from the host's clocks and measurements."""

    def __init__(self, now_us: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._now_us = now_us
        self._monotonic = monotonic
        self._measured: tuple[int, float] | None = None
        self._newest_us = 0

    def measure(self, venue_us: int, at: float) -> None:
        """Set a measurement: the venue's time `venue_us` at the monotonic time `at`."""
        self._measured = venue_us, at

    def accept(self, time_us: int) -> None:
        """Advance the clock to the time of an accepted message, as for an accelerated replay."""
        if time_us > self._newest_us:
            self._newest_us = time_us

    def time_us(self) -> int:
        """Return the venue's time; the host's before the first measurement."""
        if self._measured is None:
            return self._now_us()
        venue_us, at = self._measured
        return venue_us + int((self._monotonic() - at) * SECOND_US)

    def ahead_us(self) -> int:
        """Return the offset of the venue's clock from the host's; negative if it is behind."""
        return self.time_us() - self._now_us()

    def latest_us(self) -> int:
        """Return the latest possible time of a message."""
        tolerance_us = TOLERANCE_US if self._measured is not None else _UNMEASURED_TOLERANCE_US
        return max(self.time_us(), self._newest_us) + tolerance_us

    def fault(self, trade: Trade) -> str:
        """Return why the times of `trade` are impossible; "" if they are possible."""
        latest_us, time_us, event_us = self.latest_us(), trade.trade_time_us, trade.event_time_us
        if is_possible(time_us, event_us, latest_us):
            return ""
        if not EARLIEST_US <= time_us <= latest_us:
            return f"trade time {_shown(time_us)} is impossible{_unit(time_us, latest_us)}"
        return f"event time {_shown(event_us or 0)} contradicts trade time {_shown(time_us)}"


def is_possible(time_us: int, event_us: int | None, latest_us: int) -> bool:
    """Return whether a trade can have these times."""
    return EARLIEST_US <= time_us <= latest_us and (
        event_us is None
        or (time_us - TOLERANCE_US <= event_us <= time_us + MAX_EVENT_DELAY_US and event_us <= latest_us)
    )


def _unit(time_us: int, latest_us: int) -> str:
    for factor, name in _UNITS.items():
        if EARLIEST_US <= time_us * factor <= latest_us:
            return f": {name}"
    return ""


def _shown(time_us: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=time_us)).isoformat()
    except OverflowError:
        return f"{time_us} us"
