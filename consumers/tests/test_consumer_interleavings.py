"""Retention and audit compared with their definition, in generated interleavings; see consumer_interleavings.py.

`make retention-check RUNS=10000 SEED=1` plays as many as one likes. What it is worth was tried by breaking one thing
at a time: candles rebuilt where rows are gone; one neighbour enough to write a range off; 1970 taken for old; rows
deleted by id; dead letters deleted by age alone; late quotes all taken for expired; what is missing among old rows
forgotten; rejected ids at the ends left out; a run noted after its deletes. Each was found within nine groups of 20.
"""

import json
from contextlib import ExitStack

import pytest
from consumer_interleavings import Case, Stage, group, smallest

pytestmark = pytest.mark.integration
SIZE = 40


@pytest.mark.parametrize(("seed", "small_steps"), [(1, False), (2, True)])
def test_retention_and_audit_match_their_definition_in_any_interleaving(
    database: str, seed: int, small_steps: bool
) -> None:
    with ExitStack() as stack:
        stage = Stage(database, stack)
        wrong = stage.play(group(seed, SIZE), small_steps=small_steps)
        if wrong:
            failing = [case for case in group(seed, SIZE) if case["symbol"] == wrong[0].split(": ")[1]]

            def fails(case: Case) -> bool:
                return bool(stage.play([case], small_steps=small_steps))

            shown = smallest(failing[0], fails) if failing and fails(failing[0]) else failing
            pytest.fail("\n".join([*wrong[:5], json.dumps(shown)]))
    for name in ("deleted", "impossible", "named", "x", "a", "q"):
        assert stage.counts[name], f"no {name} in all of it"
