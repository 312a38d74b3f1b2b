"""One process: the real consumer's loop and writer, in the world of a session."""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import psycopg

from marketfeed_consumers.consumer import Consumer
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.dialects import Dialect
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import State
from marketfeed_consumers.storage.writer import Writer
from marketfeed_consumers.world import World
from marketfeed_service import settings as service_settings
from marketfeed_simtest.consumers.clients import Admin, Client, Reach
from marketfeed_simtest.consumers.database import Database
from marketfeed_simtest.consumers.faults import TOPICS
from marketfeed_simtest.consumers.group import SESSION_SECONDS, Group
from marketfeed_simtest.consumers.plan import Plan
from marketfeed_simtest.consumers.tasks import Killed, Task, Tasks, Thread
from marketfeed_simtest.consumers.topics import Brokers, Partition

DRAIN_SECONDS = 5


@cache
def read_settings(group: str, batch_rows: int, linger_ms: int) -> ConsumerSettings:
    """Return the settings of a session's consumers.

    Args:
        group: consumer group.
        batch_rows: BATCH_MAX_ROWS.
        linger_ms: BATCH_LINGER_MS.
    """
    tables = dict(zip(("TRADES", "BOOK", "GAPS", "REJECTED"), TOPICS, strict=True))
    return service_settings.read(
        ConsumerSettings,
        {
            "DATABASE_URL": "postgresql://nobody@database.invalid/market",
            "KAFKA_BROKER": "kafka.invalid:9092",
            "KAFKA_GROUP": group,
            "KAFKA_SESSION_TIMEOUT_MS": str(int(SESSION_SECONDS * 1000)),
            "BATCH_MAX_ROWS": str(batch_rows),
            "BATCH_LINGER_MS": str(linger_ms),
            "AUDIT_INTERVAL_SECONDS": "0",
            "DRAIN_DEADLINE_SECONDS": str(DRAIN_SECONDS),
            **{f"MARKET_{name}_TOPIC": topic for name, topic in tables.items()},
        },
    )


class Life:
    """A process.

    Attributes:
        step_seconds: function that draws the duration of a transaction's step.
        error: error that it ended with; None after SIGTERM.
        is_over: whether it has ended.
        reach: reachability of Kafka.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        group_name: str,
        tasks: Tasks,
        brokers: Brokers,
        group: Group,
        database: Database,
        *,
        step_seconds: Callable[[], float],
        on_hint: Callable[[Partition, int], None],
        on_end: Callable[["Life"], None],
    ) -> None:
        self.name = name
        self.group_name = group_name
        self.error: BaseException | None = None
        self.is_over = False
        self.is_stopping = False
        self.reach = Reach(brokers)
        self.client: Client | None = None
        self._settings = read_settings(group_name, plan.batch_rows, plan.linger_ms)
        self._rng = random.Random(f"{plan.seed} {name}")  # noqa: S311 - jitter
        self._tasks = tasks
        self._brokers = brokers
        self._group = group
        self._database = database
        self._step_seconds = step_seconds
        self._on_hint = on_hint
        self._on_end = on_end
        self._loop: Consumer | None = None
        self._own: list[Task] = []
        self._connections: list[Any] = []
        self._is_cut = tasks.event()
        self._spawn(name, self._run)

    def _spawn(self, name: str, function: Callable[[], None]) -> Task:
        task = self._tasks.spawn(name, function)
        self._own.append(task)
        return task

    def _run(self) -> None:
        try:
            self._live()
        except Killed:
            raise
        except BaseException as error:  # noqa: BLE001 - the session judges it
            self.error = error
        self.is_over = True
        self._close()
        self._tasks.call_in(0, lambda: self._on_end(self))

    def _live(self) -> None:
        while not (self._database.is_up and self.reach.is_there):
            self._tasks.sleep(0.5)
            if self.is_stopping:
                return
        world = World(
            make_client=self._make_client,
            make_admin=lambda _: Admin(self._tasks, self._brokers, self.reach),  # type: ignore[arg-type, return-value]
            connect=self._connect,
            cut=self._cut,
            make_thread=lambda: Thread(self._tasks, self._spawn, self._take_a_step),
            make_event=self._tasks.event,
            wait=self._tasks.wait,
            monotonic=lambda: self._tasks.clock.seconds,
        )
        writer = Writer(
            "postgresql://database.invalid/market",
            clock_us=self._tasks.clock.wall_us, rng=self._rng, at=self._at, world=world,
        )  # fmt: skip
        self._loop = Consumer(self._settings, writer, State(), name=self.name, world=world)
        if self.is_stopping:
            self._loop.stop()
        try:
            self._loop.run()
        finally:
            writer.close()

    def _make_client(self, _config: dict[str, Any]) -> Any:
        client = Client(self._tasks, self._brokers, self._group, self.reach, self._on_hint)
        self.client = self.client or client
        return client

    def _connect(self, _url: str) -> tuple[DatabaseConnection, Dialect]:
        self._tasks.sleep(self._step_seconds())
        connection, dialect = self._database.connect()
        self._connections.append(connection)
        return connection, dialect

    def _cut(self, connection: DatabaseConnection) -> None:
        self._database.cut(connection)
        self._is_cut.set()

    def _take_a_step(self) -> None:
        self._tasks.sleep(self._step_seconds())

    def _at(self, point: str) -> None:
        """Run a step of a transaction, during which others run."""
        if point in ("committed", "leases acquired"):
            self._database.look()
        seconds = self._step_seconds()
        if seconds and self._is_cut.wait(seconds):
            self._is_cut.clear()
            raise psycopg.OperationalError("the connection was closed")

    def stop(self) -> None:
        """SIGTERM."""
        self.is_stopping = True
        if self._loop is not None:
            self._loop.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self.is_over = self.reach.is_dead = True
        for task in self._own:
            self._tasks.kill(task)
        self._close()
        client = self.client
        if client is not None:
            self._tasks.call_in(SESSION_SECONDS, client.abandon)

    def freeze(self, seconds: float) -> None:
        """Freeze the process (SIGSTOP), and resume it later (SIGCONT)."""
        until = self._tasks.clock.seconds + seconds
        for task in self._own:
            task.frozen_until = until
        self._lose_after(seconds)

    def isolate(self, seconds: float) -> None:
        """Cut the process off from Kafka."""
        self.reach.cut_until = self._tasks.clock.seconds + seconds
        self._lose_after(seconds)

    def _lose_after(self, seconds: float) -> None:
        def lose() -> None:
            if self.client is not None and not self.is_over:
                self._group.lose(self.client)

        if seconds > SESSION_SECONDS:
            self._tasks.call_in(SESSION_SECONDS, lose)

    def thaw(self) -> None:
        """Remove freezes and network outages."""
        self.reach.cut_until = 0.0
        self.reach.refuses_commits_until = 0.0

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()
