"""Sessions of the worker in virtual time: found plans, and a hundred fresh seeds per day."""

import os
import subprocess
import sys

import pytest

from marketfeed_simtest import many
from marketfeed_simtest.__main__ import seed_of_today
from marketfeed_simtest.battery import FOUND, Found
from marketfeed_simtest.oracle import INVARIANTS
from marketfeed_simtest.plan import draw
from marketfeed_simtest.session import run

FRESH = 100


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.name)
def test_found_plan_violates_nothing(found: Found) -> None:
    outcome, _ = run(found.plan)
    assert outcome.violations == {}


def test_found_plans_name_invariants_and_differ() -> None:
    assert {each.invariant for each in FOUND} <= INVARIANTS.keys()
    assert len({each.name for each in FOUND}) == len(FOUND)


@pytest.mark.timeout(900)
def test_fresh_seeds_violate_nothing() -> None:
    """Drawn by date: a failure is reproduced by the printed command."""
    first = seed_of_today()
    tally = many.run_seeds(many.seeds_from(first, FRESH), many.cores(), lambda *_: None)
    broken = [
        (failure, name, text) for failure in tally.failures for name, text in failure.violations.items()
    ]
    for failure, name, text in broken:
        print(f"seed {failure.seed} {name}: {text}\n{many.repeat_command(failure.plan)}")
    assert not broken
    assert tally.trades > 10_000
    assert tally.lives > FRESH


def test_digest_is_equal_for_equal_seeds_with_any_hash_seed() -> None:
    seeds = (5, 6, 13, 36)
    digests = []
    for hash_seed in ("1", "2"):
        code = (
            "from marketfeed_simtest.plan import draw\nfrom marketfeed_simtest.session import run\n"
            f"print([run(draw(seed))[0].digest for seed in {seeds}])"
        )
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        digests.append(ran.stdout)
    digests.append(f"{[run(draw(seed))[0].digest for seed in reversed(seeds)][::-1]}\n")
    assert len(set(digests)) == 1
