"""Many sessions of consumers on all cores, and their totals."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import marketfeed_consumers
from marketfeed_simtest.clock import REAL_SECONDS
from marketfeed_simtest.consumers import postgres
from marketfeed_simtest.consumers.database import MakeDatabase, StoreDatabase
from marketfeed_simtest.consumers.faults import KINDS
from marketfeed_simtest.consumers.plan import Plan, as_json, draw, smaller
from marketfeed_simtest.consumers.session import Outcome, run
from marketfeed_simtest.plan import smallest
from marketfeed_simtest.tally import Failure, Sums, logged_events

_LOOKED_FOR: Final = (
    "process ended: stopped",
    "process ended: Fenced",
    "process ended: LogLost",
    "refusal ended by reset-offsets",
    "audit complete",
    "audit not complete",
    *(f"command {name}" for name in ("retain", "rebuild", "reset", "audit")),
)


_MODULES: Final = (
    "storage/quarantine",
    "planning/conflicts",
    "kafka/group_member",
    "kafka/reader",
    "storage/pipeline",
    "kafka/monitor",
    "storage/writer",
)
"""Modules of the consumer's loop."""


@dataclass(slots=True)
class Tally(Sums[Plan]):
    """Totals of sessions."""

    commits: int = 0

    def add(self, seed: int, outcome: Outcome) -> None:
        """Count a session."""
        self.count(seed, draw(seed), outcome)
        self.commits += outcome.commits

    def never_reached(self) -> list[str]:
        """Return kinds of fault, ends and log events of the consumer that no session reached."""
        met = self.reached.keys() | self.faults.keys()
        return sorted({*KINDS, *_LOOKED_FOR, *(f"log: {event}" for event in consumer_events())} - met)


def consumer_events() -> set[str]:
    """Return the events that the modules of the consumer's loop log."""
    folder = Path(marketfeed_consumers.__file__).parent
    files = (folder / f"{name}.py" for name in _MODULES)
    return logged_events(files, ("info", "warning", "error", "Episode"))


def made(*, with_postgres: bool) -> AbstractContextManager[MakeDatabase]:
    """Return the factory of the sessions' databases."""
    return postgres.databases() if with_postgres else nullcontext(StoreDatabase)


def run_seeds(
    seeds: Iterable[int],
    jobs: int,
    on_done: Callable[[int, Outcome], None] = lambda *_: None,
    *,
    with_postgres: bool = False,
) -> Tally:
    """Run the sessions of the seeds, `jobs` at a time; call `on_done` after each, in order.

    Args:
        seeds: seeds of the sessions.
        jobs: number of processes.
        on_done: function called with the totals after each session.
        with_postgres: whether the sessions run over PostgreSQL.
    """
    tally = Tally()
    for seed, outcome in _outcomes(list(seeds), jobs, with_postgres=with_postgres):
        tally.add(seed, outcome)
        on_done(seed, outcome)
    return tally


def _outcomes(seeds: list[int], jobs: int, *, with_postgres: bool) -> Iterator[tuple[int, Outcome]]:
    if jobs == 1:
        yield from _run_seeds(seeds, with_postgres=with_postgres)
        return
    size = 10
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for found in pool.imap(partial(_run_part, with_postgres=with_postgres), parts):
            yield from found


def _run_part(seeds: list[int], *, with_postgres: bool) -> list[tuple[int, Outcome]]:
    return list(_run_seeds(seeds, with_postgres=with_postgres))


def _run_seeds(seeds: list[int], *, with_postgres: bool) -> Iterator[tuple[int, Outcome]]:
    with made(with_postgres=with_postgres) as make_database:
        for seed in seeds:
            yield seed, run(draw(seed), make_database)[0]


def shrunk(failure: Failure[Plan], *, with_postgres: bool) -> tuple[str, Plan, int]:
    """Return the first violated invariant, a small plan that violates it too, and the number of tries."""
    name = next(iter(failure.violations))
    with made(with_postgres=with_postgres) as make_database:
        small, tries = smallest(
            failure.plan, lambda plan: name in run(plan, make_database)[0].violations, smaller
        )
    return name, small, tries


def report(tally: Tally, began: float) -> list[str]:
    """Return the totals of the sessions, as lines."""
    took = REAL_SECONDS() - began
    lines = [
        f"{tally.sessions:,} sessions, {tally.virtual_seconds / 3600:,.1f} virtual hours in {took:,.0f} s: "
        f"{tally.sessions / took:.1f} sessions a second",
        f"{tally.records:,} records, {tally.commits:,} commits, {tally.lives:,} consumer processes",
        "faults: " + ", ".join(f"{kind} {count:,}" for kind, count in tally.faults.most_common()),
        "reached: "
        + ", ".join(
            f"{name} {count:,}" for name, count in tally.reached.most_common() if not name.startswith("log:")
        ),
        "never reached: " + ("; ".join(tally.never_reached()) or "nothing"),
    ]
    return [*lines, *tally.verdict()]


def repeat_command(plan: Plan, *, with_postgres: bool) -> str:
    """Return the command that repeats a plan."""
    return f"make simtest-consumers {'POSTGRES=1 ' if with_postgres else ''}PLAN='{as_json(plan)}'"
