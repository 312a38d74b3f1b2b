"""The part of ``marketfeed-simtest`` that runs sessions of consumers."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from marketfeed_simtest.clock import REAL_SECONDS
from marketfeed_simtest.consumers import many
from marketfeed_simtest.consumers.plan import Plan, as_json, draw, from_json
from marketfeed_simtest.consumers.session import Outcome, run
from marketfeed_simtest.log_lines import Line

MOST_SHRUNK: Final = 5
"""Maximum number of failing seeds to shrink; the others are only listed."""
Say = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser, jobs: int) -> None:
    """Add the command's options."""
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed; 0: by today's date")
    parser.add_argument("--plan", default="", help="one plan instead: JSON, a file with it, or a seed")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL instead of the small store")
    parser.add_argument("--log", action="store_true", help="with --plan: print the consumers' log")
    parser.add_argument("--jobs", type=int, default=jobs)
    parser.add_argument("--no-shrink", action="store_true")


def main(given: argparse.Namespace, first_seed: int, say: Say, as_text: Callable[[Line], str]) -> int:
    """Run the selected sessions and return the exit code.

    Args:
        given: options of the command.
        first_seed: first seed by today's date.
        say: function that prints a line.
        as_text: function that formats a line of the log.
    """
    if given.plan:
        plan = read_plan(given.plan)
        say(as_json(plan))
        return _run_one(plan, given, say, as_text)
    return _run_many(given.seed or first_seed, given, say)


def read_plan(text: str) -> Plan:
    """Return the selected plan."""
    if text.isdigit():
        return draw(int(text))
    return from_json(text if text.lstrip().startswith("{") else Path(text).read_text())


def _run_one(plan: Plan, given: argparse.Namespace, say: Say, as_text: Callable[[Line], str]) -> int:
    with many.made(with_postgres=given.postgres) as make_database:
        outcome, log = run(plan, make_database, keep_log=given.log)
    for line in log.lines:
        say(as_text(line))
    say(f"{outcome.seconds:.0f} virtual seconds, {outcome.records} records, digest {outcome.digest}")
    for name, text in outcome.violations.items():
        say(f"{name}: {text}")
    return 1 if outcome.violations else 0


def _run_many(seed: int, given: argparse.Namespace, say: Say) -> int:
    began = REAL_SECONDS()

    def show(number: int, outcome: Outcome) -> None:
        for name, text in outcome.violations.items():
            say(f"seed {number} {name}: {text}")

    seeds = range(seed, seed + given.sessions)
    tally = many.run_seeds(seeds, given.jobs, show, with_postgres=given.postgres)
    for line in many.report(tally, began):
        say(line)
    say(f"digest of all rows: {tally.digest()}")
    for failure in tally.failures[:MOST_SHRUNK] if not given.no_shrink else ():
        name, small, tries = many.shrunk(failure, with_postgres=given.postgres)
        say(f"seed {failure.seed}, {name}, shrunk in {tries} tries; repeat it with")
        say(many.repeat_command(small, with_postgres=given.postgres))
    return 1 if tally.failures else 0
