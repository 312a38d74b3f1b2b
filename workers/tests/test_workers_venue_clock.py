"""Validation of times by the venue's clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_wire import Trade
from marketfeed_workers.venues.clock import EARLIEST_US, TOLERANCE_US, VenueClock, is_possible

NOW_US = 1_796_000_000_000_000  # 2026-11-30
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


class Host:
    """The host's clocks, set by the test."""

    def __init__(self) -> None:
        self.wall_us = NOW_US
        self.monotonic = 1000.0

    def clock(self, *, measured: bool = True) -> VenueClock:
        clock = VenueClock(lambda: self.wall_us, lambda: self.monotonic)
        if measured:
            clock.measure(NOW_US, self.monotonic)
        return clock


def trade(time_us: int, event_us: int | None = None) -> Trade:
    return Trade("v", "S", 1, "1", "1", True, time_us, event_us, NOW_US)


@pytest.mark.parametrize(
    ("time_us", "event_us", "said"),
    [
        pytest.param(0, 0, "1970-01-01", id="a time of 0"),
        pytest.param(0, NOW_US, "1970-01-01", id="a time of 0 with a good event time"),
        pytest.param(
            NOW_US // 1000, NOW_US // 1000, "milliseconds instead of microseconds", id="milliseconds"
        ),
        pytest.param(NOW_US // 10**6, NOW_US // 10**6, "seconds instead of microseconds", id="seconds"),
        pytest.param(
            NOW_US * 1000, NOW_US * 1000, "microseconds instead of milliseconds", id="a thousand times"
        ),
        pytest.param(
            NOW_US * 10**6, NOW_US * 10**6, "nanoseconds instead of milliseconds", id="a million times"
        ),
        pytest.param(NOW_US + 3650 * DAY_US, NOW_US + 3650 * DAY_US, "2036", id="ten years ahead"),
        pytest.param(NOW_US + 3650 * DAY_US, NOW_US, "2036", id="ten years ahead of its event"),
        pytest.param(NOW_US + HOUR_US, NOW_US + HOUR_US, "impossible", id="an hour ahead"),
        pytest.param(NOW_US + HOUR_US, None, "impossible", id="an hour ahead, without an event time"),
        pytest.param(NOW_US - 400 * DAY_US, NOW_US, "contradicts", id="a year before its event"),
        pytest.param(NOW_US, 0, "contradicts", id="an event time of 0"),
        pytest.param(NOW_US, NOW_US // 1000, "contradicts", id="an event time in another unit"),
        pytest.param(NOW_US, NOW_US - HOUR_US, "contradicts", id="an event an hour before the trade"),
        pytest.param(-1, None, "1969", id="before 1970"),
    ],
)
def test_venue_clock_names_an_impossible_time(time_us: int, event_us: int | None, said: str) -> None:
    assert said in Host().clock().fault(trade(time_us, event_us))


@pytest.mark.parametrize(
    ("time_us", "event_us"),
    [
        pytest.param(NOW_US, NOW_US, id="now"),
        pytest.param(NOW_US, None, id="without an event time"),
        pytest.param(NOW_US - HOUR_US, NOW_US, id="an event that is sent an hour late"),
        pytest.param(NOW_US + 30_000_000, NOW_US + 30_000_000, id="half a minute ahead"),
        pytest.param(NOW_US - 900 * DAY_US, NOW_US - 900 * DAY_US, id="a recording of years ago"),
        pytest.param(EARLIEST_US, None, id="the first of all"),
    ],
)
def test_venue_clock_accepts_a_possible_time(time_us: int, event_us: int | None) -> None:
    assert Host().clock().fault(trade(time_us, event_us)) == ""


@pytest.mark.parametrize("hours", [-30 * 24, -1, 1, 365 * 24])
def test_venue_clock_measured_is_independent_of_the_host_clock(hours: int) -> None:
    host = Host()
    host.wall_us += hours * HOUR_US
    clock = host.clock()
    assert clock.fault(trade(NOW_US, NOW_US)) == ""
    assert clock.fault(trade(NOW_US + HOUR_US, NOW_US + HOUR_US))
    assert clock.ahead_us() == -hours * HOUR_US


@pytest.mark.parametrize("hours", [-20, -1, 1, 20])
def test_venue_clock_unmeasured_tolerates_a_host_clock_off_by_hours(hours: int) -> None:
    host = Host()
    host.wall_us += hours * HOUR_US
    clock = host.clock(measured=False)
    assert clock.fault(trade(NOW_US, NOW_US)) == ""
    assert "milliseconds" in clock.fault(trade(NOW_US // 1000, NOW_US // 1000))


def test_venue_clock_is_continued_by_the_monotonic_clock() -> None:
    host = Host()
    clock = host.clock()
    host.monotonic += 1800
    host.wall_us -= 5 * HOUR_US
    later_us = NOW_US + 1_800_000_000
    assert clock.time_us() == later_us
    assert clock.fault(trade(later_us, later_us)) == ""


def test_venue_clock_accepts_an_accelerated_replay() -> None:
    clock, time_us = Host().clock(), NOW_US
    for _ in range(10_000):
        time_us += 10_000_000
        assert clock.fault(trade(time_us, time_us)) == ""
        clock.accept(time_us)
    assert clock.fault(trade(time_us + HOUR_US, time_us + HOUR_US))


@given(
    st.integers(-(2**63), 2**63),
    st.none() | st.integers(-(2**63), 2**63),
    st.integers(EARLIEST_US, 2 * NOW_US),
)
def test_venue_clock_fault_matches_is_possible(time_us: int, event_us: int | None, latest_us: int) -> None:
    host = Host()
    clock = VenueClock(lambda: host.wall_us, lambda: host.monotonic)
    clock.measure(latest_us - TOLERANCE_US, host.monotonic)
    assert (clock.fault(trade(time_us, event_us)) == "") is is_possible(time_us, event_us, latest_us)
