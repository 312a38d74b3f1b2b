"""How many random cases a fuzz test runs, and from which seed, so that a failure can be run again."""

import os
import random
from typing import Final

ROUNDS: Final = "MARKETFEED_FUZZ_ROUNDS"
SEED: Final = "MARKETFEED_FUZZ_SEED"
DEFAULT_ROUNDS: Final = 500


def fuzz_rounds() -> int:
    """How many cases: MARKETFEED_FUZZ_ROUNDS, or as many as every run of the tests can afford."""
    return int(os.environ.get(ROUNDS) or DEFAULT_ROUNDS)


def fuzz_rng(test: str) -> random.Random:
    """A random number generator for `test`, whose seed is printed; MARKETFEED_FUZZ_SEED gives one seen before."""
    seed = os.environ.get(SEED) or str(random.SystemRandom().randrange(2**32))
    print(f"{test}: {SEED}={seed} {ROUNDS}={fuzz_rounds()}")
    return random.Random(f"{test} {seed}")  # noqa: S311 - which cases, not a secret
