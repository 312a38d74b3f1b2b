"""Rounds and seed of the fuzz tests, so that a failure can be reproduced."""

import os
import random
from typing import Final

ROUNDS: Final = "MARKETFEED_FUZZ_ROUNDS"
SEED: Final = "MARKETFEED_FUZZ_SEED"
DEFAULT_ROUNDS: Final = 500


def fuzz_rounds() -> int:
    """Return the number of cases: MARKETFEED_FUZZ_ROUNDS, or a default that is fast enough for every test run."""
    return int(os.environ.get(ROUNDS) or DEFAULT_ROUNDS)


def fuzz_rng(test: str) -> random.Random:
    """Return a random number generator for `test`; its seed is MARKETFEED_FUZZ_SEED or random, and is printed."""
    seed = os.environ.get(SEED) or str(random.SystemRandom().randrange(2**32))
    print(f"{test}: {SEED}={seed} {ROUNDS}={fuzz_rounds()}")
    return random.Random(f"{test} {seed}")  # noqa: S311 - test cases, not a secret
