"""The list of mutants, and a crash at every write of one short session."""

import pytest

from marketfeed_simtest.battery import SITUATIONS
from marketfeed_simtest.crash_points import CrashTally, crash_everywhere, short_plan
from marketfeed_simtest.mutants import MUTANTS, Mutant, mutated
from marketfeed_simtest.plan import as_json, from_json
from marketfeed_simtest.session import run


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_still_applies(mutant: Mutant) -> None:
    compile(mutated(mutant), mutant.file, "exec")


def test_mutants_are_enough_and_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len([mutant for mutant in MUTANTS if not mutant.survives]) >= 25


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_breaks_nothing_in_the_worker_as_it_is(name: str) -> None:
    plan = SITUATIONS[name]
    assert from_json(as_json(plan)) == plan
    assert run(plan)[0].violations == {}


def test_crash_at_writes_of_a_short_session_breaks_nothing() -> None:
    tally = CrashTally()
    crash_everywhere(1, stride=13, jobs=2, tally=tally)
    assert tally.broken == []
    assert set(tally.points) == {"written", "acknowledged", "side by side"}
    assert short_plan(1).duration_seconds < 20
