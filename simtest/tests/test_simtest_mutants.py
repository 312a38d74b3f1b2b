"""The list of mutants, and a crash at every write of one short session."""

import subprocess
import sys

import pytest

from marketfeed_simtest.battery import SITUATIONS
from marketfeed_simtest.crash_points import CrashTally, crash_everywhere, short_plan
from marketfeed_simtest.faults import kind_of
from marketfeed_simtest.mutants import Mutant, mutated, mutated_package
from marketfeed_simtest.mutants_outside import OUTSIDE_MUTANTS
from marketfeed_simtest.mutants_worker import MUTANTS
from marketfeed_simtest.plan import as_json, draw, from_json
from marketfeed_simtest.session import run

EVERY = (*MUTANTS, *OUTSIDE_MUTANTS)


@pytest.mark.parametrize("mutant", EVERY, ids=lambda mutant: mutant.name)
def test_mutant_still_applies(mutant: Mutant) -> None:
    compile(mutated(mutant), mutant.file, "exec")


def test_mutant_names_are_unique_and_sufficient() -> None:
    assert len({mutant.name for mutant in EVERY}) == len(EVERY)
    assert len([mutant for mutant in EVERY if not mutant.survives]) >= 25


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_violates_nothing_in_the_unchanged_worker(name: str) -> None:
    plan = SITUATIONS[name]
    assert from_json(as_json(plan)) == plan
    assert run(plan)[0].violations == {}


def test_mutant_seed_shrinks_to_a_plan_that_fails_with_the_mutant_only() -> None:
    seed = 967
    mutant = next(each for each in MUTANTS if each.name == "A3: a duplicate is detected by its id alone")
    simtest = (sys.executable, "-m", "marketfeed_simtest")
    with mutated_package(mutant) as environment:
        command = [*simtest, "run", "--sessions", "1", "--seed", str(seed), "--jobs", "1", "--only-seeds"]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 1, ran.stderr
        (printed,) = [line for line in ran.stdout.splitlines() if line.startswith(".venv/bin/")]
        text = printed.partition("plan ")[2].strip("'")
        again = subprocess.run(
            [*simtest, "plan", text], env=environment, capture_output=True, text=True, check=False
        )
    small = from_json(text)
    assert len(draw(seed).faults) > 3
    assert [kind_of(each) for each in small.faults] == ["restart_ids"]
    assert len(small.rates) == 1
    assert not small.settings
    assert (again.returncode, "ready_while_stalled" in again.stdout) == (1, True)
    assert run(small)[0].violations == {}


def test_crash_at_writes_of_a_short_session_violates_nothing() -> None:
    tally = CrashTally()
    crash_everywhere(1, stride=13, jobs=2, tally=tally)
    assert tally.broken == []
    assert set(tally.points) == {"written", "acknowledged", "side by side"}
    assert short_plan(1).duration_seconds < 20
