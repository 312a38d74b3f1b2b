#!/usr/bin/env python3
"""Check retention and audit with thousands of generated interleavings against an oracle in SQL.

    make retention-check RUNS=10000 SEED=1

Starts PostgreSQL and runs groups of interleavings in one process per core, with a progress line every few seconds. A
failed case is run alone, shrunk, and printed as a line of JSON, which `--case FILE` runs again. See
consumers/tests/consumer_interleavings.py.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.append(str(ROOT / "consumers/tests"))

from consumer_interleavings import Case, Stage, group, smallest  # noqa: E402

from marketfeed_consumers.database import schema  # noqa: E402
from marketfeed_simtest.postgres_server import running  # noqa: E402

GROUP: Final = 50
PROGRESS_SECONDS: Final = 10.0
_stage: Stage
_stack = ExitStack()


def main() -> int:
    """Run the interleavings; return 0 if all of them satisfy the definition, otherwise 1."""
    options = _parser().parse_args()
    with running() as server:
        if options.case is not None:
            _begin([server.new_database()])
            wrong = _stage.play([json.loads(options.case.read_text())], small_steps=options.small_steps)
            _stack.close()
            print("\n".join(wrong) or "the case satisfies the definition")
            return int(bool(wrong))
        workers = os.cpu_count() or 1
        databases = [server.new_database() for _ in range(workers)]
        for url in databases:
            schema.migrate(url, 60)
        return _all(options.runs, options.seed, databases)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2_000, help="number of interleavings [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first group [%(default)s]")
    parser.add_argument("--case", type=Path, help="run the case in this file, a line of JSON")
    parser.add_argument("--small-steps", action="store_true", help="with --case: retention in small steps")
    return parser


def _all(runs: int, seed: int, databases: list[str]) -> int:
    sizes = [min(GROUP, runs - at) for at in range(0, runs, GROUP)]
    print(f"{runs:,} interleavings, seeds {seed} to {seed + len(sizes) - 1}", flush=True)
    began = printed = time.monotonic()
    counts: Counter[str] = Counter()
    failed = played = 0
    pool = ProcessPoolExecutor(len(databases), initializer=_begin, initargs=(databases,))
    with pool:
        jobs = {pool.submit(_play, seed + at, size): size for at, size in enumerate(sizes)}
        for job in as_completed(jobs):
            lines, done = job.result()
            counts += done
            failed += bool(lines)
            played += jobs[job]
            for line in lines:
                print(line, flush=True)
            if time.monotonic() - printed >= PROGRESS_SECONDS:
                printed = time.monotonic()
                print(f"{played:,} run, {failed} groups failed, {printed - began:.0f} s", flush=True)
    shown = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    print(f"{played:,} run, {failed} groups failed, {time.monotonic() - began:.0f} s; {shown}", flush=True)
    return int(failed > 0)


def _begin(databases: list[str]) -> None:
    """Lock a database that no other process uses."""
    global _stage
    import psycopg

    for url in databases:
        lock = psycopg.connect(url, autocommit=True)
        if lock.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (True,):
            _stack.enter_context(lock)
            schema.migrate(url, 60)
            _stage = Stage(url, _stack)
            return
        lock.close()
    raise AssertionError("more processes than databases")


def _play(seed: int, size: int) -> tuple[list[str], "Counter[str]"]:
    """Run the group of `seed`; return lines that describe failures, and counts of steps."""
    small_steps = seed % 2 == 0
    before = _stage.counts.copy()
    cases = group(seed, size)
    wrong = _stage.play(cases, small_steps=small_steps)
    done = _stage.counts - before
    if not wrong:
        return [], done
    symbol = wrong[0].split(": ")[1]
    lines = [f"seed {seed}{' (small steps)' if small_steps else ''}: {wrong[0]} ({len(wrong)} in total)"]

    def fails(case: Case) -> bool:
        return bool(_stage.play([case], small_steps=small_steps))

    for case in cases:
        if case["symbol"] == symbol:
            small: Any = smallest(case, fails) if fails(case) else {"only in its group": seed}
            lines += (
                [*_stage.play([small], small_steps=small_steps)[:3], json.dumps(small)]
                if "steps" in small
                else [json.dumps(small)]
            )
    return lines, done


if __name__ == "__main__":
    sys.exit(main())
