"""A crash at every write: for one session, the process is killed at each record, and the next one has to recover.

The session runs once. At each point the whole simulation is forked: the child kills the process there and continues to
the end and the oracle, the parent continues without a crash. The points of a record:

    written         it is in the topic, no delivery report was read, queued records are lost
    acknowledged    its delivery report has been processed
    side by side    at the write a second process starts, as beside a terminating pod; the first is killed later
"""

import asyncio
import os
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

import msgspec

from marketfeed_simtest.faults import begins
from marketfeed_simtest.plan import Plan, draw
from marketfeed_simtest.session import Session, run_session

Point = Literal["written", "acknowledged", "side by side"]

SIDE_BY_SIDE_SECONDS: Final = 3.0
_DURATION_SECONDS: Final = 12.0


@dataclass(slots=True)
class Crashed:
    """A crash that violated an invariant."""

    seed: int
    point: Point
    number: int
    violations: dict[str, str]


@dataclass(slots=True)
class CrashTally:
    """Totals of the crashes of some sessions."""

    points: Counter[str] = field(default_factory=Counter)
    broken: list[Crashed] = field(default_factory=list)


def short_plan(seed: int) -> Plan:
    """Return a session short enough to crash at every write: the seed's, shortened and quiet, with its early faults."""
    plan = draw(seed)
    early = [msgspec.structs.replace(each, after_seconds=2 + begins(each) % 9) for each in plan.faults[:4]]
    return msgspec.structs.replace(
        plan,
        duration_seconds=_DURATION_SECONDS,
        rates={
            name: (min(trades, 5), min(quotes, 1)) for name, (trades, quotes) in list(plan.rates.items())[:2]
        },
        faults=sorted(early, key=begins),
    )


class _CrashSession(Session):
    """A session that forks at each point; in a child `forked` is the kind of its crash."""

    def __init__(self, plan: Plan, stride: int, on_point: Callable[[Point, int], bool]) -> None:
        super().__init__(plan)
        self._stride = stride
        self._on_point = on_point
        self._seen: Counter[str] = Counter()
        self._is_child = False
        self.cluster.on_write.append(lambda _: self._at("written"))
        self.cluster.on_write.append(lambda _: self._at("side by side"))
        self.cluster.on_report.append(lambda: self._at("acknowledged"))

    def _at(self, point: Point) -> None:
        self._seen[point] += 1
        if (
            self._is_child
            or self.clock.seconds > self.plan.duration_seconds
            or self._seen[point] % self._stride
        ):
            return
        if not self.newest.is_running or not self._on_point(point, self._seen[point]):
            return
        self._is_child = True
        self.gaps_since = min(self.gaps_since, self.clock.seconds)
        if point == "side by side":
            self.start_beside(SIDE_BY_SIDE_SECONDS)
        else:
            self.newest.kill(write_in_flight=False)


def crash_everywhere(seed: int, stride: int, jobs: int, tally: CrashTally) -> None:
    """Kill the process of a seed's short session at every `stride`-th point of each kind.

    Args:
        seed: seed of the session.
        stride: every how many points to crash.
        jobs: number of children at a time.
        tally: totals to update.
    """
    children: dict[int, tuple[int, Point, int]] = {}
    report_to = -1

    def collect(child: int) -> None:
        reading, point, number = children.pop(child)
        with os.fdopen(reading, "rb") as pipe:
            violations = pickle.loads(pipe.read() or pickle.dumps({"harness": "the child died"}))  # noqa: S301 - of this process
        os.waitpid(child, 0)
        tally.points[point] += 1
        if violations:
            tally.broken.append(Crashed(seed, point, number, violations))

    def on_point(point: Point, number: int) -> bool:
        nonlocal report_to
        while len(children) >= jobs:
            collect(next(iter(children)))
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()
        child = os.fork()
        if child:
            os.close(writing)
            children[child] = reading, point, number
            return False
        os.close(reading)
        asyncio._set_running_loop(loop)  # asyncio stores the running loop per process
        report_to = writing
        return True

    session = _CrashSession(short_plan(seed), stride, on_point)
    outcome, _ = run_session(session)
    if report_to >= 0:  # a child
        with os.fdopen(report_to, "wb") as pipe:
            pipe.write(pickle.dumps(outcome.violations))
        os._exit(0)
    for child in list(children):
        collect(child)
    if outcome.violations:
        tally.broken.append(Crashed(seed, "written", 0, outcome.violations))


def crash_sessions(seeds: range, stride: int, jobs: int) -> CrashTally:
    """Run `crash_everywhere` for each seed.

    Args:
        seeds: seeds of the sessions.
        stride: every how many points to crash.
        jobs: number of children at a time.
    """
    tally = CrashTally()
    for call in (partial(crash_everywhere, seed, stride, jobs, tally) for seed in seeds):
        call()
    return tally
