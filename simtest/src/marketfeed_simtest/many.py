"""Many sessions on all cores, and their totals."""

import datetime
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import marketfeed_workers
from marketfeed_simtest import rare
from marketfeed_simtest.clock import REAL_SECONDS
from marketfeed_simtest.plan import Plan, as_json, draw, shrink
from marketfeed_simtest.session import Outcome, run
from marketfeed_simtest.tally import Failure, Sums, logged_events

_GAPS: Final = tuple(
    f"gap {state} by {proof}"
    for state in ("backfilled", "absent", "unresolved")
    for proof in ("historicalTrades", "trades", "aggTrades")
)
_ENDINGS: Final = ("process exited with 0", "process exited with 1", "process killed")


@dataclass(slots=True)
class Tally(Sums[Plan]):
    """Totals of sessions."""

    trades: int = 0
    requests: int = 0

    def add(self, seed: int, plan: Plan, outcome: Outcome) -> None:
        """Count a session.

        Args:
            seed: seed of the session.
            plan: plan of the session.
            outcome: result of the session.
        """
        self.count(seed, plan, outcome)
        self.trades += outcome.trades
        self.requests += outcome.requests

    def never_reached(self) -> list[str]:
        """Return states, kinds of fault and log events of the worker that no session reached."""
        events = {f"log: {event}" for event in worker_events()}
        return sorted({*_GAPS, *_ENDINGS, *events} - self.reached.keys())


def seeds_from(first: int, sessions: int) -> list[int]:
    """Return consecutive seeds from `first` on, and a tenth as many rare ones."""
    drawn = range(first, first + sessions)
    if first >= rare.FIRST_SEED:
        return list(drawn)
    return [*drawn, *(rare.FIRST_SEED + seed for seed in drawn[: sessions // 10])]


def run_seeds(
    seeds: Iterable[int],
    jobs: int,
    on_done: Callable[[int, Outcome], None],
) -> Tally:
    """Run the sessions of the seeds, `jobs` at a time; call `on_done` after each, in order.

    Args:
        seeds: seeds of the sessions.
        jobs: number of processes.
        on_done: function called with the totals after each session.
    """
    tally = Tally()
    for seed, outcome in _outcomes(list(seeds), jobs):
        tally.add(seed, draw(seed), outcome)
        on_done(seed, outcome)
    return tally


def _outcomes(seeds: list[int], jobs: int) -> Iterator[tuple[int, Outcome]]:
    if jobs == 1:
        yield from map(_run_seed, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_run_seed, seeds, chunksize=4)


def _run_seed(seed: int) -> tuple[int, Outcome]:
    return seed, run(draw(seed))[0]


def fails(name: str, plan: Plan) -> bool:
    """Return whether the session of a plan violates the invariant `name`."""
    return name in run(plan)[0].violations


def shrunk(failure: Failure[Plan]) -> tuple[str, Plan, int]:
    """Return the first violated invariant, a small plan that violates it too, and the number of tries."""
    name = next(iter(failure.violations))
    small, tries = shrink(failure.plan, partial(fails, name))
    return name, small, tries


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def worker_events() -> set[str]:
    """Return the events that the worker's modules log."""
    files = Path(marketfeed_workers.__file__).parent.rglob("*.py")
    return logged_events(files, ("info", "warning", "error"))


def report(tally: Tally, began: float) -> list[str]:
    """Return the totals of the sessions, as lines."""
    took = REAL_SECONDS() - began
    lines = [
        f"{tally.sessions:,} sessions, {tally.virtual_seconds / 3600:,.1f} virtual hours in {took:,.0f} s: "
        f"{tally.sessions / took:.1f} sessions and {tally.virtual_seconds / took:,.0f} virtual seconds a second",
        f"{tally.trades:,} trades, {tally.records:,} records in Kafka, {tally.lives:,} worker processes, "
        f"{tally.requests:,} REST requests",
        "faults: " + ", ".join(f"{kind} {count:,}" for kind, count in tally.faults.most_common()),
        "never reached: " + ("; ".join(tally.never_reached()) or "nothing"),
    ]
    return [*lines, *tally.verdict()]


def reliability_row(tally: Tally, began: float, jobs: int) -> str:
    """Return the row of docs/reliability.md: date, commit, sessions, violations, duration.

    Args:
        tally: totals of the sessions.
        began: start time, in seconds of the machine's clock.
        jobs: number of processes.
    """
    git = shutil.which("git")
    command = [git or "git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout if git else ""  # noqa: S603
    seeds = sorted(seed for seed in tally.digests if seed < rare.FIRST_SEED) or sorted(tally.digests)
    cells = (
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}",
        commit.strip() or "-",
        f"{tally.sessions:,}",
        f"{seeds[0]}-{seeds[-1]}",
        f"{tally.virtual_seconds / 3600:,.0f}",
        f"{tally.trades:,}",
        f"{tally.lives:,}",
        f"{tally.faults.total():,}",
        str(len(tally.failures)),
        tally.digest(),
        f"{(REAL_SECONDS() - began) / 60:.0f} min on {jobs} cores",
    )
    return f"| {' | '.join(cells)} |"


def repeat_command(plan: Plan) -> str:
    """Return the command that repeats a plan."""
    return f".venv/bin/marketfeed-simtest plan '{as_json(plan)}'"
