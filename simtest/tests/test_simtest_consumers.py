"""Sessions of consumers in virtual time: plans, found plans, and fresh seeds per day."""

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
from marketfeed_simtest.consumers.database import StoreDatabase
from marketfeed_simtest.consumers.faults import KINDS, begins, kind_of
from marketfeed_simtest.consumers.mutants import CONSUMER_MUTANTS
from marketfeed_simtest.consumers.mutants_sql import SQL_MUTANTS
from marketfeed_simtest.consumers.oracle import INVARIANTS
from marketfeed_simtest.consumers.plan import as_json, draw, from_json, smaller
from marketfeed_simtest.consumers.session import Session, run
from marketfeed_simtest.consumers.store import Key, Row
from marketfeed_simtest.mutants import Mutant, mutated
from marketfeed_simtest.plan import smallest

FOUND: list[dict[str, Any]] = json.loads((Path(__file__).parent / "found_consumers.json").read_text())
FRESH, FRESH_IN_POSTGRES = 30, 5


def _broken(tally: many.Tally, *, with_postgres: bool) -> list[str]:
    return [
        f"seed {failure.seed} {failure.violations}\n{many.repeat_command(failure.plan, with_postgres=with_postgres)}"
        for failure in tally.failures
    ]


def test_plan_is_equal_after_encoding_and_decoding() -> None:
    for seed in range(50):
        plan = draw(seed)
        assert from_json(as_json(plan)) == plan
        assert [begins(each) for each in plan.faults] == sorted(begins(each) for each in plan.faults)


def test_plan_seeds_reach_every_kind_of_fault() -> None:
    assert {kind_of(each) for seed in range(400) for each in draw(seed).faults} == set(KINDS)


def test_plan_shrinks_as_long_as_it_fails() -> None:
    plan = next(plan for plan in map(draw, range(100)) if len(plan.faults) == 16 and len(plan.rates) > 1)
    kept = next(each for each in plan.faults if getattr(each, "symbol", 0) == 0)
    small, tries = smallest(plan, lambda candidate: kept in candidate.faults, smaller)
    assert (small.faults, len(small.rates), small.processes, small.groups) == ([kept], 1, 1, 1)
    assert tries < 100


@pytest.mark.parametrize("found", [pytest.param(each, id=each["name"]) for each in FOUND])
def test_found_plan_violates_nothing(found: dict[str, Any]) -> None:
    assert found["invariant"] in INVARIANTS
    outcome, _ = run(from_json(json.dumps(found["plan"])))
    assert outcome.violations == {}


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_violates_nothing_in_the_unchanged_consumer(name: str) -> None:
    plan = SITUATIONS[name]
    assert from_json(as_json(plan)) == plan
    assert run(plan)[0].violations == {}


@pytest.mark.parametrize("mutant", [*CONSUMER_MUTANTS, *SQL_MUTANTS], ids=lambda mutant: mutant.name)
def test_mutant_still_applies(mutant: Mutant) -> None:
    compile(mutated(mutant), mutant.file, "exec")


def test_fresh_seeds_violate_nothing() -> None:
    """Drawn by date: a failure is reproduced by the printed command."""
    first = seed_of_today()
    tally = many.run_seeds(range(first, first + FRESH), 1)
    assert _broken(tally, with_postgres=False) == []
    assert tally.records > 5_000
    assert tally.lives > FRESH


@pytest.mark.integration
def test_fresh_seeds_violate_nothing_in_postgres() -> None:
    first = seed_of_today()
    tally = many.run_seeds(range(first, first + FRESH_IN_POSTGRES), 1, with_postgres=True)
    assert _broken(tally, with_postgres=True) == []
    assert tally.commits > FRESH_IN_POSTGRES


ALIKE = (
    "COMMIT fails in every way",
    "partitions move while the database is slow",
    "poison messages",
    "gaps, duplicates and other content",
    "retention, then candles recomputed",
    "two groups, one database",
)
BY_THE_WAY = {"version", "epoch", "owner", "updated_time_us", "previous_offset", "noticed_time_us", "reason"}
"""Columns that depend on retries, times and error messages."""


@pytest.mark.integration
def test_store_and_postgres_hold_the_same_rows() -> None:
    """Test of the database's model: the same plan stores the same rows in both, in every table."""
    with postgres.databases() as make_database:
        for name in ALIKE:
            held = []
            for make in (make_database, StoreDatabase):
                session = Session(SITUATIONS[name], make)
                assert session.run().violations == {}
                held.append({table: _comparable(rows) for table, rows in session.oracle.tables.items()})
            assert held[0]["trades"]
            assert held[0] == held[1], name


def _comparable(rows: dict[Key, Row]) -> dict[Key, Row]:
    return {key: {n: v for n, v in row.items() if n not in BY_THE_WAY} for key, row in rows.items()}


def test_digest_is_equal_for_equal_seeds_with_any_hash_seed() -> None:
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
