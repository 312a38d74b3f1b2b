"""Quiet or mute: judged by a symbol's own history, by a clock that the test turns."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed_workers.silence import LONGEST_US, SHORTEST_US, UNKNOWN_US, Pulse

SECOND = 1_000_000


def after_a_history(per_second: float, seconds: int = 300) -> tuple[Pulse, int, int]:
    """A pulse that was looked at each second while messages came evenly; how many, and what time it is now."""
    pulse = Pulse(0, 0)
    for second in range(1, seconds + 1):
        pulse.look(int(second * per_second), second * SECOND)
    return pulse, int(seconds * per_second), seconds * SECOND


def seconds_until_suspicious(pulse: Pulse, seen: int, now: int) -> int:
    for silent in range(1, 2000):
        pulse.look(seen, now + silent * SECOND)
        if pulse.is_silent(now + silent * SECOND):
            return silent
    raise AssertionError("never")


@pytest.mark.parametrize(
    ("per_second", "earliest", "latest"),
    [
        pytest.param(100, 3, 4, id="a busy symbol: within seconds"),
        pytest.param(5, 3, 6, id="some messages a second"),
        pytest.param(0.5, 30, 90, id="a message in two seconds: about a minute"),
        pytest.param(0.05, 350, 500, id="a message in twenty seconds: minutes"),
    ],
)
def test_a_silence_is_suspicious_by_the_measure_of_the_symbol(
    per_second: float, earliest: int, latest: int
) -> None:
    assert earliest <= seconds_until_suspicious(*after_a_history(per_second)) <= latest


def test_a_symbol_without_a_history_is_given_the_benefit_of_some_seconds() -> None:
    pulse = Pulse(0, 0)
    assert not pulse.is_silent(UNKNOWN_US)
    assert pulse.is_silent(UNKNOWN_US + 1)


def test_a_mute_stream_does_not_come_to_look_quiet_with_time() -> None:
    pulse, seen, now = after_a_history(10)
    for silent in range(1, 3600):
        pulse.look(seen, now + silent * SECOND)
    assert pulse.is_silent(now + 3600 * SECOND)
    assert pulse.allowed_us < 10 * SHORTEST_US


def test_a_market_that_fell_asleep_is_learned_within_a_few_messages() -> None:
    pulse, seen, now = after_a_history(10)
    for message in range(1, 12):  # one in five minutes from now on
        pulse.look(seen + message, now + message * 300 * SECOND)
    assert pulse.allowed_us > 300 * SECOND


def test_when_the_venue_was_quiet_too_it_is_asked_less_and_less_often() -> None:
    pulse, seen, now = after_a_history(10)
    asked: list[int] = []
    for silent in range(1, 36_000):  # ten hours
        pulse.look(seen, now + silent * SECOND)
        if pulse.is_silent(now + silent * SECOND):
            asked.append(silent)
            pulse.was_quiet(now + silent * SECOND)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 10
    assert pauses[-1] == LONGEST_US // SECOND + 1
    pulse.look(seen + 10, now + 36_001 * SECOND)
    assert pulse.allowed_us < 60 * SECOND, "with the first message the patience is the usual one again"


@pytest.mark.parametrize(("per_second", "lively"), [(50, True), (5, True), (0.5, False), (0, False)], ids=str)
def test_only_streams_that_bring_data_all_the_time_are_waited_for(per_second: float, lively: bool) -> None:
    assert after_a_history(per_second)[0].is_lively is lively


@given(st.floats(0.2, 50), st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_quiet_market_is_hardly_ever_suspected(per_second: float, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - arrivals, not secrets
    pulse, seen, next_at, suspicions = Pulse(0, 0), 0, 0.0, 0
    for second in range(1, 1200):
        while next_at <= second:
            seen += 1
            next_at += chance.expovariate(per_second)
        pulse.look(seen, second * SECOND)
        if second > 120 and pulse.is_silent(second * SECOND):
            suspicions += 1
    assert suspicions == 0


def test_a_clock_that_stands_or_goes_back_changes_nothing() -> None:
    pulse, seen, now = after_a_history(10)
    allowed = pulse.allowed_us
    pulse.look(seen + 5, now)
    pulse.look(seen + 5, now - SECOND)
    assert pulse.allowed_us == allowed
