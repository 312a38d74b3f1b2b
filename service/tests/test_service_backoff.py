"""Delays between attempts."""

import itertools
import random

import hypothesis.strategies as st
from hypothesis import given

from marketfeed_service.backoff import delays


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - jitter, not a secret


seconds = st.floats(0.001, 1000)


@given(first=seconds, cap=seconds, seed=st.integers(0, 2**32))
def test_backoff_delays_stay_below_a_bound_that_doubles_up_to_the_cap(
    first: float, cap: float, seed: int
) -> None:
    bound = min(first, cap)
    for delay in itertools.islice(delays(first, cap, chance(seed)), 40):
        assert 0 <= delay <= bound <= cap
        bound = min(cap, bound * 2)


def test_backoff_delays_are_spread_over_the_whole_range() -> None:
    drawn = sorted(itertools.islice(delays(8, 8, chance(1)), 1000))
    assert drawn[0] < 0.5
    assert drawn[-1] > 7.5
    assert 3.5 < drawn[500] < 4.5


def test_backoff_delays_of_two_clients_differ() -> None:
    one, other = (list(itertools.islice(delays(1, 30, chance(seed)), 10)) for seed in (1, 2))
    assert one != other


def test_backoff_delays_are_reproducible_with_the_same_rng() -> None:
    one, other = (list(itertools.islice(delays(1, 30, chance(7)), 10)) for _ in range(2))
    assert one == other
