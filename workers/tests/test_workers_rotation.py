"""Time of rotations."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_workers.connection.rotation import DAY_SECONDS, QuietWindow, parse_window, rotation_age

HOUR = 3600
MIDNIGHT = 1_723_161_600.0  # 2024-08-09 00:00 UTC


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("", None),
        ("02:00-04:30", QuietWindow(2 * HOUR, 4 * HOUR + 1800)),
        ("23:00-01:00", QuietWindow(23 * HOUR, 1 * HOUR)),
        ("00:00-23:59", QuietWindow(0, 23 * HOUR + 59 * 60)),
    ],
)
def test_rotation_window_is_parsed(text: str, window: QuietWindow | None) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize(
    "text", ["2:00-4:00", "02:00", "02:00-24:00", "02:60-03:00", " 02:00-03:00", "02:00-03:00Z", "always"]
)
def test_rotation_window_rejects_other_text(text: str) -> None:
    with pytest.raises(ValueError, match="02:00-04:30"):
        parse_window(text)


@pytest.mark.parametrize(
    ("window", "between", "expected"),
    [
        pytest.param((2, 4), (0, 20), (2, 4), id="the whole of it"),
        pytest.param((2, 4), (3, 20), (3, 4), id="what is left of it"),
        pytest.param((2, 4), (0, 3), (2, 3), id="its beginning"),
        pytest.param((2, 4), (5, 20), None, id="none"),
        pytest.param((2, 4), (0, 49), (26, 28), id="the last of several"),
        pytest.param((2, 4), (3, 25), (3, 4), id="the last there is"),
        pytest.param((23, 1), (0, 20), (0, 1), id="past midnight, its end"),
        pytest.param((23, 1), (2, 24), (23, 24), id="past midnight, its beginning"),
        pytest.param((23, 1), (0, 30), (23, 25), id="past midnight, the whole of it"),
        pytest.param((12, 12), (0, 20), (12, 12), id="a moment"),
    ],
)
def test_rotation_window_last_occurrence(
    window: tuple[int, int], between: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    quiet = QuietWindow(window[0] * HOUR, window[1] * HOUR)
    found = quiet.newest_between(*(MIDNIGHT + hour * HOUR for hour in between))
    assert found == (None if expected is None else tuple(MIDNIGHT + hour * HOUR for hour in expected))


ages = st.floats(60, 7 * DAY_SECONDS)
moments = st.floats(MIDNIGHT, MIDNIGHT + 3 * DAY_SECONDS)
hours = st.integers(0, 1439).map(lambda minutes: minutes * 60)


@given(moments, ages, st.randoms(use_true_random=False))
def test_rotation_without_a_window_is_in_the_last_tenth(
    connected: float, age: float, rng: random.Random
) -> None:
    due = connected + rotation_age(connected, age, None, rng)
    assert connected + 0.9 * age - 1 <= due <= connected + age + 1


@given(moments, ages, hours, hours, st.randoms(use_true_random=False))
def test_rotation_is_in_the_second_half_of_the_age(
    connected: float, age: float, start: int, end: int, rng: random.Random
) -> None:
    due = connected + rotation_age(connected, age, QuietWindow(start, end), rng)
    assert connected + age / 2 - 1 <= due <= connected + age + 1


@given(moments, hours, hours, st.randoms(use_true_random=False))
def test_rotation_is_in_the_window_if_possible(
    connected: float, start: int, end: int, rng: random.Random
) -> None:
    age = 3 * DAY_SECONDS  # the second half of this age contains every hour of the day
    due = connected + rotation_age(connected, age, QuietWindow(start, end), rng)
    assert (due - start) % DAY_SECONDS <= (end - start) % DAY_SECONDS + 1e-3 or (
        start - due
    ) % DAY_SECONDS < 1e-3


def test_rotation_times_are_spread() -> None:
    pool = [random.Random(seed) for seed in range(50)]  # noqa: S311 - jitter, not a secret
    assert len({rotation_age(MIDNIGHT, 23 * HOUR, None, rng) for rng in pool}) == 50
    window = QuietWindow(14 * HOUR, 16 * HOUR)
    in_window = [rotation_age(MIDNIGHT, 23 * HOUR, window, rng) for rng in pool]
    assert len(set(in_window)) == 50
    assert all(14 * HOUR <= age <= 16 * HOUR for age in in_window)
