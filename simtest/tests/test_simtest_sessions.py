"""Sessions of the worker in virtual time: the plans that once found a defect, and a hundred fresh seeds a day."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marketfeed_simtest import many
from marketfeed_simtest.__main__ import seed_of_today
from marketfeed_simtest.oracle import INVARIANTS
from marketfeed_simtest.plan import draw, from_json
from marketfeed_simtest.session import run

FOUND: list[dict[str, Any]] = json.loads((Path(__file__).parent / "found.json").read_text())
FRESH = 100

OPEN: tuple[str, ...] = ()
"""Invariants that the worker is known to break and that are being fixed; each fix takes its name away from here."""


@pytest.mark.parametrize("found", [pytest.param(each, id=each["name"]) for each in FOUND if each["fixed"]])
def test_found_plan_breaks_nothing(found: dict[str, Any]) -> None:
    outcome, _ = run(from_json(json.dumps(found["plan"])))
    assert outcome.violations == {}


def test_found_plans_name_invariants_and_are_plans() -> None:
    assert {each["invariant"] for each in FOUND} <= INVARIANTS.keys()
    assert len({each["name"] for each in FOUND}) == len(FOUND)
    for each in FOUND:
        from_json(json.dumps(each["plan"]))


@pytest.mark.timeout(900)
def test_fresh_seeds_break_nothing() -> None:
    """Drawn by date: what fails here fails for whoever runs the printed command."""
    first = seed_of_today()
    tally = many.run_seeds(range(first, first + FRESH), many.cores(), lambda *_: None)
    broken = [
        (failure, name, text)
        for failure in tally.failures
        for name, text in failure.violations.items()
        if name not in OPEN
    ]
    for failure, name, text in broken:
        print(f"seed {failure.seed} {name}: {text}\n{many.repeat_command(failure.plan)}")
    assert not broken
    assert tally.trades > 10_000
    assert tally.lives > FRESH


def test_equal_seeds_give_equal_sessions_whatever_the_order_of_hashes() -> None:
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
