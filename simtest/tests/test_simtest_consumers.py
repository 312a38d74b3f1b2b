"""Sessions of consumers in virtual time: plans, the plans that once found a defect, and fresh seeds a day."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marketfeed_simtest.__main__ import seed_of_today
from marketfeed_simtest.consumers import many, postgres
from marketfeed_simtest.consumers.battery import SITUATIONS
from marketfeed_simtest.consumers.faults import KINDS, Cut, Statement, begins, kind_of
from marketfeed_simtest.consumers.mutants import CONSUMER_MUTANTS
from marketfeed_simtest.consumers.oracle import INVARIANTS
from marketfeed_simtest.consumers.plan import Plan, as_json, draw, from_json, smaller
from marketfeed_simtest.consumers.session import run
from marketfeed_simtest.mutants import Mutant, mutated
from marketfeed_simtest.plan import smallest

FOUND: list[dict[str, Any]] = json.loads((Path(__file__).parent / "found_consumers.json").read_text())
FRESH, FRESH_IN_POSTGRES = 30, 5


def _broken(tally: many.Tally, *, with_postgres: bool) -> list[str]:
    return [
        f"seed {failure.seed} {failure.violations}\n{many.repeat_command(failure.plan, with_postgres=with_postgres)}"
        for failure in tally.failures
    ]


def test_plan_is_the_same_after_being_written() -> None:
    for seed in range(50):
        plan = draw(seed)
        assert from_json(as_json(plan)) == plan
        assert [begins(each) for each in plan.faults] == sorted(begins(each) for each in plan.faults)


def test_seeds_reach_every_kind_of_fault() -> None:
    assert {kind_of(each) for seed in range(400) for each in draw(seed).faults} == set(KINDS)


def test_plan_is_made_smaller_as_long_as_it_fails() -> None:
    plan = next(plan for plan in map(draw, range(100)) if len(plan.faults) == 16 and len(plan.rates) > 1)
    kept = next(each for each in plan.faults if getattr(each, "symbol", 0) == 0)
    small, tries = smallest(plan, lambda candidate: kept in candidate.faults, smaller)
    assert (small.faults, len(small.rates), small.processes, small.groups) == ([kept], 1, 1, 1)
    assert tries < 100


@pytest.mark.parametrize("found", [pytest.param(each, id=each["name"]) for each in FOUND])
def test_found_plan_breaks_nothing(found: dict[str, Any]) -> None:
    assert found["invariant"] in INVARIANTS
    outcome, _ = run(from_json(json.dumps(found["plan"])))
    assert outcome.violations == {}


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_breaks_nothing_in_the_consumer_as_it_is(name: str) -> None:
    plan = SITUATIONS[name]
    assert from_json(as_json(plan)) == plan
    assert run(plan)[0].violations == {}


@pytest.mark.parametrize("mutant", CONSUMER_MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_still_applies(mutant: Mutant) -> None:
    compile(mutated(mutant), mutant.file, "exec")


def test_fresh_seeds_break_nothing() -> None:
    """Drawn by date: what fails here fails for whoever runs the printed command."""
    first = seed_of_today()
    tally = many.run_seeds(range(first, first + FRESH), 1)
    assert _broken(tally, with_postgres=False) == []
    assert tally.records > 5_000
    assert tally.lives > FRESH


@pytest.mark.integration
def test_fresh_seeds_break_nothing_in_postgres() -> None:
    first = seed_of_today()
    tally = many.run_seeds(range(first, first + FRESH_IN_POSTGRES), 1, with_postgres=True)
    assert _broken(tally, with_postgres=True) == []
    assert tally.commits > FRESH_IN_POSTGRES


STRUCK = Plan(
    seed=5,
    faults=[
        Statement(after_seconds=2, how="refused", sqlstate="40001", count=2),
        Statement(after_seconds=4, how="cut_after"),
        Statement(after_seconds=6, how="done_but_error", sqlstate="40003"),
        Statement(after_seconds=8, how="cut_before", statement="COPY trades"),
        Statement(
            after_seconds=10, how="refused", sqlstate="53100", statement="INSERT INTO consumer_offsets"
        ),
        Cut(after_seconds=14, records=3),
    ],
)


@pytest.mark.integration
def test_store_and_postgres_meet_the_same() -> None:
    with postgres.databases() as make_database:
        in_postgres, _ = run(STRUCK, make_database)
    in_store, _ = run(STRUCK)
    assert in_postgres.violations == in_store.violations == {}
    for name in ("process ended: LogLost", "refusal ended by reset-offsets", "process ended: stopped"):
        assert in_postgres.reached[name] > 0
        assert in_store.reached[name] > 0
    assert in_postgres.records == in_store.records


def test_equal_seeds_give_equal_sessions_whatever_the_order_of_hashes() -> None:
    seeds = (102, 103, 109)
    code = (
        "from marketfeed_simtest.consumers.many import run_seeds\n"
        f"print(sorted(run_seeds({seeds}, 1).digests.items()))"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    digests.append(f"{sorted(many.run_seeds(reversed(seeds), 1).digests.items())}\n")
    assert len(set(digests)) == 1
