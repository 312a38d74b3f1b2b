"""One session: running consumers, their faults, the commands beside them, and the oracle's checks."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from marketfeed_simtest.clock import Clock
from marketfeed_simtest.consumers import faults
from marketfeed_simtest.consumers.commands import Commands
from marketfeed_simtest.consumers.database import MakeDatabase, StoreDatabase
from marketfeed_simtest.consumers.faults import TOPICS, EachFault, kind_of
from marketfeed_simtest.consumers.group import Group
from marketfeed_simtest.consumers.life import DRAIN_SECONDS, Life
from marketfeed_simtest.consumers.oracle import Oracle
from marketfeed_simtest.consumers.plan import Plan
from marketfeed_simtest.consumers.publisher import Publisher
from marketfeed_simtest.consumers.tasks import Tasks
from marketfeed_simtest.consumers.topics import Brokers, Partition
from marketfeed_simtest.log_lines import LogLines

_TICK_SECONDS: Final = 0.5
_SETTLING_SECONDS: Final = 120.0
_REFUSING_SECONDS: Final = 60.0


@dataclass(slots=True)
class Outcome:
    """Result of a session.

    Attributes:
        violations: invariant -> its first violation.
        digest: digest of all rows and of the processes' ends.
        seconds: duration in virtual time.
        reached: states reached -> how often.
    """

    violations: dict[str, str]
    digest: str
    seconds: float
    records: int
    lives: int
    commits: int
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)


class Session:
    """A running plan."""

    def __init__(self, plan: Plan, make_database: MakeDatabase) -> None:
        self.plan = plan
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        self.log = LogLines(self.clock)
        self.brokers = Brokers(self.clock, _rng("kafka", plan), TOPICS, plan.partitions)
        self.oracle = Oracle(self.clock, self.brokers, plan.groups)
        self.database = make_database(self._committed)
        self.commits = 0
        self.struck: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self.lives: list[Life] = []
        self.endings: list[str] = []
        self._rng = _rng("world", plan)
        self._steps = _rng("steps", plan)
        self._slow = (0.0, 0.0)
        self._desired = plan.processes
        self._over = False
        self._kafka_away_at = -1e9
        self._groups = {f"g{number}": Group(self.tasks, self.brokers) for number in range(plan.groups)}
        self.commands = Commands(
            self.tasks,
            self.brokers,
            self.database,
            self.oracle,
            list(self._groups),
            self._rng,
            self._step_seconds,
            self._stop_group,
        )
        self._slots: dict[tuple[str, int], Life | None] = {}
        self.publisher = Publisher(plan, self.clock, self.brokers, self.oracle.published, self.tasks.call_in)

    def _committed(self, changes: Any) -> None:
        self.commits += 1
        self.oracle.committed(changes)

    # --- processes ---

    def _start(self, group: str, slot: int) -> None:
        if self._over or slot >= self._desired or self._slots.get((group, slot)) is not None:
            return
        number = len(self.lives)
        self.log.life = number
        life = Life(
            f"{group}-{slot}:{number}",
            self.plan,
            group,
            self.tasks,
            self.brokers,
            self._groups[group],
            self.database,
            step_seconds=self._step_seconds,
            on_hint=lambda partition, offset: self._hinted(group, partition, offset),
            on_end=lambda life: self._ended(group, slot, life),
        )
        self.lives.append(life)
        self._slots[group, slot] = life

    def _hinted(self, group: str, partition: Partition, offset: int) -> None:
        self.database.look()
        self.oracle.hinted(group, partition, offset)

    def _ended(self, group: str, slot: int, life: Life) -> None:
        name = type(life.error).__name__ if life.error else "stopped"
        self.endings.append(f"{life.name} {name}")
        self.reached[f"process ended: {name}"] += 1
        away = self.clock.seconds - self._kafka_away_at < 30 or "Kafka" in self._topics_missing()
        self.oracle.ended(group, life.name, life.error, kafka_was_away=away)
        self._slots[group, slot] = None
        self.tasks.call_in(self._rng.uniform(0.5, 3), lambda: self._start(group, slot))

    def _topics_missing(self) -> str:
        return "Kafka" if len(self.brokers.topics) < len(TOPICS) else ""

    def _step_seconds(self) -> float:
        seconds, until = self._slow
        if self.clock.seconds < until:
            return self._steps.uniform(0, 2 * seconds)
        return self._steps.choice((0.0, 0.0, 0.0, 0.0, 0.001, 0.01))

    def _stop_group(self, group: str) -> None:
        for (own, _), life in self._slots.items():
            if own == group and life is not None:
                life.stop()

    def _each(self, number: int) -> Iterator[tuple[str, int, Life]]:
        for (group, slot), life in list(self._slots.items()):
            if slot == number and life is not None:
                yield group, slot, life

    # --- faults ---

    def _apply(self, fault: EachFault) -> None:
        if self._over:
            return
        self.struck[kind_of(fault)] += 1
        match fault:
            case (
                faults.Crash() | faults.Restart() | faults.Freeze() | faults.Isolate() | faults.LoseCommits()
            ):
                for group, slot, life in self._each(fault.process):
                    self._to_process(fault, group, slot, life)
            case faults.Scale():
                self._scale(fault.processes)
            case faults.Statement() | faults.DatabaseDown() | faults.DatabaseSlow():
                self._to_database(fault)
            case faults.Retain() | faults.Rebuild() | faults.Audit() | faults.Reset():
                self.commands.begin(fault)
            case faults.Outage() | faults.Elect() | faults.Cut() | faults.Recreate() | faults.Expire():
                self._to_kafka(fault)
            case _:
                self.publisher.apply(fault)

    def _scale(self, processes: int) -> None:
        self._desired = processes
        for (_, slot), life in self._slots.items():
            if slot >= processes and life is not None:
                life.stop()
        for group in self._groups:
            for slot in range(processes):
                self._start(group, slot)

    def _to_database(self, fault: faults.Statement | faults.DatabaseDown | faults.DatabaseSlow) -> None:
        match fault:
            case faults.Statement():
                self.database.strike(fault)
            case faults.DatabaseDown():
                self.database.shut()
                self.tasks.call_in(fault.seconds, self.database.open_again)
            case faults.DatabaseSlow():
                self._slow = (fault.step_seconds, self.clock.seconds + fault.seconds)

    def _to_process(self, fault: Any, group: str, slot: int, life: Life) -> None:
        match fault:
            case faults.Crash():
                life.kill()
                self.endings.append(f"{life.name} killed")
                self._slots[group, slot] = None
                self.tasks.call_in(fault.pause_seconds, lambda: self._start(group, slot))
            case faults.Restart():
                life.stop()
            case faults.Freeze():
                life.freeze(fault.seconds)
            case faults.Isolate():
                self._kafka_away_at = self.clock.seconds + fault.seconds
                life.isolate(fault.seconds)
            case faults.LoseCommits():
                life.reach.refuses_commits_until = self.clock.seconds + fault.seconds

    def _to_kafka(self, fault: Any) -> None:
        if isinstance(fault, faults.Outage):
            self.brokers.down_until = self.clock.seconds + fault.seconds
            self._kafka_away_at = self.brokers.down_until
            return
        topic = self.brokers.topics.get(fault.topic)
        if topic is None:
            return
        if isinstance(fault, faults.Recreate):
            self.brokers.delete(fault.topic)
            self._kafka_away_at = self.clock.seconds + fault.seconds
            if fault.seconds:
                self.tasks.call_in(fault.seconds, lambda: self._create(fault.topic))
            else:
                self._create(fault.topic)
            return
        before = [(log.low, log.end) for log in topic.logs]
        for log in topic.logs:
            match fault:
                case faults.Elect():
                    log.elect()
                case faults.Cut():
                    log.cut(log.end - fault.records)
                case faults.Expire():
                    log.delete_before(log.end - fault.kept)
        self.brokers.changed()
        if not isinstance(fault, faults.Elect):
            held = enumerate((log.low, log.end) for log in topic.logs)
            self.oracle.log_changed(fault.topic, {number for number, now in held if now != before[number]})

    def _create(self, topic: str) -> None:
        self.brokers.create(topic)
        self.oracle.log_changed(topic, is_new=True)

    # --- the whole ---

    def _tick(self) -> None:
        if self.clock.seconds < self.plan.duration_seconds:
            self.publisher.tick(_TICK_SECONDS)
            self.tasks.call_in(_TICK_SECONDS, self._tick)

    def _heal(self) -> None:
        self.brokers.down_until = 0.0
        self.database.calm()
        self.database.open_again()
        self._slow = (0.0, 0.0)
        for life in self.lives:
            life.thaw()
        self.brokers.changed()

    def _run(self) -> None:
        for group in self._groups:
            for slot in range(self._desired):
                self._start(group, slot)
        for fault in self.plan.faults:
            self.tasks.call_at(fault.after_seconds, lambda fault=fault: self._apply(fault))  # type: ignore[misc]
        self._tick()
        self.commands.watch()
        self._advance(self.plan.duration_seconds)
        self._heal()
        self._settle()
        if not self.oracle.violations:
            self._last_audit()
        self._stop()
        self.database.look()
        if not self.oracle.violations:
            self.oracle.judge_end()

    def _advance(self, seconds: float) -> None:
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            self.tasks.run_until(min(until, self.clock.seconds + 1.0))
            self.database.look()

    def _settle(self) -> None:
        began = self.clock.seconds
        self._advance(10.0)
        while self.oracle.unfinished() or self.oracle.not_refused() or self.commands.running:
            took = self.clock.seconds - began
            if took > _REFUSING_SECONDS and (text := self.oracle.not_refused()):
                self.oracle.violate("not_refused", text)
                return
            if took > _SETTLING_SECONDS:
                text = self.oracle.unfinished() or f"{self.commands.running} commands still run"
                self.oracle.violate("not_complete", f"{text}; {self._troubles()}")
                return
            self._advance(1.0)

    def _troubles(self) -> str:
        return ", ".join(self.endings[-3:])

    def _last_audit(self) -> None:
        self.commands.begin(faults.Audit(deep=True))
        self._advance(2.0)

    def _stop(self) -> None:
        self._over = True
        stopping = [life for life in self._slots.values() if life is not None]
        for life in stopping:
            life.stop()
        self._advance(DRAIN_SECONDS + 5.0)
        for life in stopping:
            if not life.is_over:
                self.oracle.violate("no_stop", life.name)
            elif life.error is not None and type(life.error).__name__ != "LogLost":
                self.oracle.violate("no_stop", f"{life.name}: {life.error!r}")

    def run(self) -> Outcome:
        """Run and check it."""
        with self.tasks.installed(), self.log.captured():
            try:
                self._run()
            finally:
                self._over = True
                self.tasks.end()
        return Outcome(
            violations=self.oracle.violations,
            digest=self._digest(),
            seconds=self.clock.seconds,
            records=self.publisher.records,
            lives=len(self.lives),
            commits=self.commits,
            faults=self.struck,
            reached=self.reached
            + self.commands.reached
            + Counter({f"log: {event}": n for event, n in self.log.events.items()}),
        )

    def _digest(self) -> str:
        text = repr(
            (
                sorted((table, sorted(rows.items(), key=repr)) for table, rows in self.oracle.tables.items()),
                self.endings,
            )
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _rng(name: str, plan: Plan) -> random.Random:
    return random.Random(f"{name} {plan.seed}")  # noqa: S311 - a session that can be repeated


def run(
    plan: Plan, make_database: MakeDatabase = StoreDatabase, *, keep_log: bool = False
) -> tuple[Outcome, LogLines]:
    """Run a plan; return its outcome and its log.

    Args:
        plan: plan of the session.
        make_database: factory of its database.
        keep_log: whether to keep the lines of the log.
    """
    session = Session(plan, make_database)
    session.log.keep = keep_log
    return session.run(), session.log
