"""``marketfeed-simtest``: sessions of the worker in virtual time; see docs/simulation-tests.md."""

import argparse
import datetime
import sys
from pathlib import Path

from marketfeed_simtest import battery, many, mutants
from marketfeed_simtest.clock import REAL_SECONDS
from marketfeed_simtest.consumers import command as consumers_command
from marketfeed_simtest.consumers.mutants import CONSUMER_MUTANTS
from marketfeed_simtest.consumers.mutants_sql import SQL_MUTANTS
from marketfeed_simtest.crash_points import crash_sessions
from marketfeed_simtest.log_lines import Line
from marketfeed_simtest.mutants_outside import OUTSIDE_MUTANTS
from marketfeed_simtest.mutants_worker import MUTANTS
from marketfeed_simtest.plan import Plan, as_json, draw, from_json
from marketfeed_simtest.session import Outcome, run

MOST_SHRUNK = 5
"""Maximum number of failing seeds to shrink; the others are only listed."""


def seed_of_today() -> int:
    """The first seed of the day: 20261130000 on 2026-11-30."""
    return int(datetime.datetime.now(tz=datetime.UTC).strftime("%Y%m%d")) * 1000


def main() -> None:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser("marketfeed-simtest", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sessions = commands.add_parser("run", help="sessions of consecutive seeds; failing ones are shrunk")
    sessions.add_argument("--sessions", type=int, default=1000)
    sessions.add_argument("--seed", type=int, default=0, help="the first seed; 0: by today's date")
    sessions.add_argument("--jobs", type=int, default=many.cores())
    sessions.add_argument("--no-shrink", action="store_true")
    sessions.add_argument("--only-seeds", action="store_true", help="without the fixed plans before them")
    plan = commands.add_parser("plan", help="one plan: JSON, or a file with it")
    plan.add_argument("plan")
    plan.add_argument("--log", action="store_true", help="print the worker's log by the session's clock")
    one = commands.add_parser("seed", help="print the plan of a seed and run it")
    one.add_argument("seed", type=int)
    one.add_argument("--log", action="store_true")
    crash = commands.add_parser("crash-points", help="short sessions whose process dies at every write")
    crash.add_argument("--sessions", type=int, default=10)
    crash.add_argument("--seed", type=int, default=1)
    crash.add_argument("--stride", type=int, default=1, help="try every n-th point only")
    crash.add_argument("--jobs", type=int, default=many.cores())
    battery = commands.add_parser("battery", help="the sessions that every mutant runs")
    battery.add_argument("--seeds", type=int, default=100)
    battery.add_argument("--package", default="marketfeed_workers", choices=sorted(mutants.SOURCES))
    battery.add_argument("--postgres", action="store_true", help="the consumer's sessions over PostgreSQL")
    judged = commands.add_parser(
        "mutants", help="insert one defect at a time into worker and consumer; each must be detected"
    )
    judged.add_argument("--seeds", type=int, default=100)
    judged.add_argument("--jobs", type=int, default=many.cores())
    judged.add_argument("-k", dest="word", default="", help="only mutants whose name contains this")
    consumers_command.add_arguments(
        commands.add_parser("consumers", help="sessions of consumers"), many.cores()
    )
    given = parser.parse_args()
    match given.command:
        case "run":
            seed = given.seed or seed_of_today()
            sys.exit(run_many(seed, given, shrinks=not given.no_shrink))
        case "consumers":
            sys.exit(consumers_command.main(given, seed_of_today(), say, as_text))
        case "crash-points":
            sys.exit(run_crashes(given))
        case "battery":
            invariant, where = mutants.battery(given.seeds, given.package, with_postgres=given.postgres)
            say(f"{invariant}\t{where}" if invariant else "every invariant held")
            sys.exit(bool(invariant))
        case "mutants":
            sys.exit(run_mutants(given))
        case "plan":
            file = Path(given.plan)
            text = given.plan if given.plan.lstrip().startswith("{") else file.read_text()
            sys.exit(run_one(from_json(text), shows_log=given.log))
        case "seed":
            drawn = draw(given.seed)
            sys.stdout.write(f"{as_json(drawn)}\n")
            sys.exit(run_one(drawn, shows_log=given.log))


def run_many(seed: int, given: argparse.Namespace, *, shrinks: bool) -> int:
    """Run the fixed sessions, then seeds; report, shrink failing ones, and return the exit code.

    Args:
        seed: first seed.
        given: options of the command.
        shrinks: whether failing seeds are shrunk.
    """
    began = REAL_SECONDS()
    fixed = () if given.only_seeds else battery.fixed()
    broken = [(where, violations) for where, violations in fixed if violations]
    for where, violations in broken:
        say(f"{where}: {violations}")

    def show(number: int, outcome: Outcome) -> None:
        for name, text in outcome.violations.items():
            say(f"seed {number} {name}: {text}")

    tally = many.run_seeds(many.seeds_from(seed, given.sessions), given.jobs, show)
    for line in many.report(tally, began):
        say(line)
    say(f"digest of all records in Kafka: {tally.digest()}")
    say("the row of docs/reliability.md:")
    say(many.reliability_row(tally, began, given.jobs))
    for failure in tally.failures[:MOST_SHRUNK] if shrinks else ():
        name, small, tries = many.shrunk(failure)
        say(f"seed {failure.seed}, {name}, shrunk in {tries} tries; repeat it with")
        say(many.repeat_command(small))
    return 1 if tally.failures or broken else 0


def run_crashes(given: argparse.Namespace) -> int:
    """Kill processes at every write and return the exit code."""
    began = REAL_SECONDS()
    tally = crash_sessions(range(given.seed, given.seed + given.sessions), given.stride, given.jobs)
    for each in tally.broken:
        for name, text in each.violations.items():
            say(f"seed {each.seed}, crash number {each.number} when {each.point}: {name}: {text}")
    points = ", ".join(f"{count:,} {point}" for point, count in sorted(tally.points.items()))
    say(f"{given.sessions} sessions, crashes: {points}, in {REAL_SECONDS() - began:.0f} s")
    say(f"{len(tally.broken)} violated an invariant" if tally.broken else "every invariant held")
    return 1 if tally.broken else 0


def run_mutants(given: argparse.Namespace) -> int:
    """Run every mutant and return the exit code."""
    began = REAL_SECONDS()
    every = (*MUTANTS, *OUTSIDE_MUTANTS, *CONSUMER_MUTANTS, *SQL_MUTANTS)
    wrong = killed = explained = 0
    for each in mutants.judge_all(every, given.seeds, given.jobs, lambda mutant: given.word in mutant.name):
        if not each.mutant.old:
            if each.invariant:
                say(f"{each.mutant.name} violates {each.invariant}: {each.where}")
                return 1
            continue
        killed += bool(each.invariant)
        explained += not each.invariant and each.is_as_expected
        wrong += not each.is_as_expected
        fate = f"killed by {each.invariant} ({each.where[:100]})" if each.invariant else "SURVIVED"
        say(
            f"{each.mutant.name}: {fate}"
            + (f", explained: {each.mutant.survives}" if not each.invariant else "")
        )
    say(f"{killed} killed, {explained} explained, {wrong} not found, in {REAL_SECONDS() - began:.0f} s")
    return 1 if wrong else 0


def run_one(plan: Plan, *, shows_log: bool) -> int:
    """Run a plan and return the exit code."""
    outcome, log = run(plan, keep_log=shows_log)
    for line in log.lines:
        say(as_text(line))
    say(f"{outcome.seconds:.0f} virtual seconds, {outcome.trades} trades, digest {outcome.digest}")
    for name, text in outcome.violations.items():
        say(f"{name}: {text}")
    return 1 if outcome.violations else 0


def as_text(line: Line) -> str:
    """Print a line of the log."""
    fields = " ".join(f"{name}={value}" for name, value in line.fields.items())
    return f"{line.seconds:9.3f} process {line.life} {line.level:7} {line.event} {fields}"


def say(text: str) -> None:
    """Print a line on stdout, unbuffered."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
