"""The commands that run beside the consumers, each in a task of its own, and their operator."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import psycopg

from marketfeed_consumers.admin import audit, offsets, rebuild, retention
from marketfeed_consumers.database import connections as consumer_database
from marketfeed_consumers.database.dialects import Dialect
from marketfeed_service.errors import ServiceError
from marketfeed_simtest.consumers import faults
from marketfeed_simtest.consumers.clients import Admin, Reach
from marketfeed_simtest.consumers.database import Database
from marketfeed_simtest.consumers.definitions import judge_audit
from marketfeed_simtest.consumers.faults import EachFault, kind_of
from marketfeed_simtest.consumers.oracle import Oracle
from marketfeed_simtest.consumers.tasks import Tasks
from marketfeed_simtest.consumers.topics import Brokers

_HOUR_US: Final = 3_600_000_000


class Commands:
    """Runs commands; ends refusals by `reset-offsets`, as an on-call engineer does.

    Attributes:
        running: number of running commands.
        reached: ended commands, and results of audits.
    """

    def __init__(
        self,
        tasks: Tasks,
        brokers: Brokers,
        database: Database,
        oracle: Oracle,
        groups: list[str],
        rng: random.Random,
        step_seconds: Callable[[], float],
        start_again: Callable[[str], None],
    ) -> None:
        self.running = 0
        self.reached: Counter[str] = Counter()
        self._tasks = tasks
        self._brokers = brokers
        self._database = database
        self._oracle = oracle
        self._groups = groups
        self._rng = rng
        self._step_seconds = step_seconds
        self._start_again = start_again
        self._resetting: set[tuple[str, str]] = set()

    def begin(self, fault: EachFault) -> None:
        """Run a command in a task of its own, and retry it until the database is available."""

        def work() -> None:
            while not self._try_command(fault):
                self._tasks.sleep(1.0)
            self.reached[f"command {kind_of(fault)}"] += 1
            self.running -= 1

        self.running += 1
        self._tasks.spawn(kind_of(fault), work)

    def _try_command(self, fault: EachFault) -> bool:
        self._database.look()
        try:
            connection, dialect = self._database.connect()
            with connection:
                self._do(fault, connection, dialect)
        except (psycopg.Error, ServiceError):
            return False
        self._database.look()
        return True

    def _do(self, fault: EachFault, connection: Any, dialect: Dialect) -> None:
        retry = consumer_database.retry_conflicts(connection, self._rng)
        match fault:
            case faults.Retain():
                self._retain(fault, connection, retry)
            case faults.Rebuild(table="top_of_book"):
                for _ in rebuild.tops(connection, rebuild.Scope(), retry):
                    self._tasks.sleep(self._step_seconds())
            case faults.Rebuild():
                self._rebuild_candles(connection, retry)
            case faults.Audit():
                self.judge_audit(connection, dialect, deep=fault.deep)
            case faults.Reset():
                for group in self._groups:
                    self._reset(connection, group, fault.topic)

    def _rebuild_candles(self, connection: Any, retry: Any) -> None:
        self._oracle.retention.rebuilds += 1
        self._oracle.retention.rebuilding += 1
        try:
            for _ in rebuild.candles(connection, rebuild.Scope(), retry):
                self._tasks.sleep(self._step_seconds())
            self._database.look()
        finally:
            self._oracle.retention.rebuilding -= 1

    def _retain(self, fault: faults.Retain, connection: Any, retry: Any) -> None:
        now_us = self._tasks.clock.wall_us()
        limit = retention.Clocks(now_us, now_us).limit(fault.kept_hours * _HOUR_US)
        self._delete(fault.table, connection, limit, retry)
        if fault.table in retention.CONFLICTS:
            self._delete(retention.CONFLICTS[fault.table], connection, limit, retry)

    def _delete(self, table: str, connection: Any, limit: retention.Limit, retry: Any) -> None:
        run = self._oracle.retention.begin(table, limit.before_us)
        if table == "dead_letters":
            steps = retention.expire_dead_letters(connection, limit, retry)
        elif table in retention.CONFLICTS.values():
            steps = retention.expire_conflicts(connection, table, limit, retry)
        else:
            steps = retention.expire(connection, table, limit, retry, self._tasks.sleep)
        for _ in steps:
            self._database.look()
            self._tasks.sleep(self._step_seconds())
        self._database.look()
        self._oracle.retention.end(run)

    def judge_audit(self, connection: Any, dialect: Dialect, *, deep: bool) -> None:
        """Run the audit and check its result.

        Args:
            connection: connection to the database.
            dialect: dialect of the database.
            deep: whether rows are counted.
        """
        now_us = self._tasks.clock.wall_us()
        report = audit.audit(connection, dialect, audit.Scope(), deep=deep, now_us=now_us)
        self.reached["audit complete" if report.is_complete else "audit not complete"] += 1
        judge_audit(self._oracle, report)

    def _reset(self, connection: Any, group: str, topic: str) -> None:
        retry = consumer_database.retry_conflicts(connection, self._rng)
        admin: Any = Admin(self._tasks, self._brokers, Reach(self._brokers))
        retry(
            lambda: offsets.reset(
                connection, admin, group, topic, "earliest", None, self._tasks.clock.wall_us()
            )
        )
        self._database.look()
        self._oracle.reset(group, topic)
        self._start_again(
            group
        )  # as the command's help states: a consumer without a commit would not be fenced

    def watch(self) -> None:
        """Reset a topic's offsets some time after a refusal, as an on-call engineer does."""
        rows = self._oracle.tables["consumer_offsets"]
        for group, topic in sorted({(key[0], key[1]) for key, row in rows.items() if row["refusal"]}):
            if (group, topic) not in self._resetting:
                self._resetting.add((group, topic))
                self.running += 1
                self._tasks.call_in(self._rng.uniform(2, 9), lambda g=group, t=topic: self._end_refusal(g, t))  # type: ignore[misc]
        self._tasks.call_in(1.0, self.watch)

    def _end_refusal(self, group: str, topic: str) -> None:
        def work() -> None:
            while True:
                try:
                    connection, _ = self._database.connect()
                    with connection:
                        self._reset(connection, group, topic)
                except (psycopg.Error, ServiceError):
                    self._tasks.sleep(1.0)
                    continue
                break
            self.reached["refusal ended by reset-offsets"] += 1
            self._resetting.discard((group, topic))
            self.running -= 1

        self._tasks.spawn("reset-offsets", work)
