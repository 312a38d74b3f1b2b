"""Environment of the sink benchmark's contenders, and consumers under measurement."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import psycopg
import sink_cores
import sink_data
import sink_stack

from marketfeed_consumers.database import schema
from marketfeed_consumers.database.tables import trades as trades_table


class Bench:
    """Environment of the contenders."""

    def __init__(self, folder: Path, broker: str, url: sink_stack.Url, rows: int) -> None:
        self.folder, self.broker, self.url, self.rows = folder, broker, url, rows
        self._databases = 0

    @cached_property
    def copy_chunks(self) -> list[bytes]:
        """Rows in COPY's text format, 20,000 per chunk."""
        trades = sink_data.trades(self.rows)
        chunks = []
        while batch := list(islice(trades, 20_000)):
            chunks.append(
                "".join(
                    trades_table.copy_text((one.venue, one.symbol, one.id_series), [one]) for one in batch
                ).encode()
            )
        return chunks

    def database(self) -> str:
        self._databases += 1
        name = f"bench{self._databases}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for (old,) in connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE 'bench%'"
            ).fetchall():
                connection.execute(f"DROP DATABASE {old} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")
            connection.execute("CHECKPOINT")
        schema.migrate(self.url(name), 10)
        return self.url(name)

    def server_cpu(self, url: str) -> float:
        """Return the CPU seconds of the database's backends so far."""
        with psycopg.connect(url) as connection:
            pids = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
        return sum(cpu(pid) for (pid,) in pids)


@contextmanager
def started(rows: int) -> Iterator[Bench]:
    """Start the environment."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marketfeed-bench-")))
        broker = stack.enter_context(sink_stack.kafka(folder))
        yield Bench(folder, broker, stack.enter_context(sink_stack.postgres()), rows)


def cpu(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def consumer_environment(bench: Bench, url: str, topics: str, **settings: str) -> dict[str, str]:
    """Return the environment of a consumer of `topics` (trades first) with a separate group.

    Args:
        bench: The environment of the benchmark.
        url: URL of the database.
        topics: Topics, separated by commas.
        settings: Further settings.
    """
    return {
        **os.environ, "KAFKA_BROKER": bench.broker, "KAFKA_GROUP": f"bench-{time.time_ns()}", "DATABASE_URL": url,
        "MARKET_TRADES_TOPIC": topics.split(",")[0], "CONSUMER_TOPICS": topics, "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0", "LOG_LEVEL": "WARNING",
        "KAFKA_SESSION_TIMEOUT_MS": "600000",  # longer than a process is paused on a slow machine
        **settings,
    }  # fmt: skip


_SHARES = "SELECT count(*) FROM consumer_offsets GROUP BY owner"
_OFFSETS = "SELECT coalesce(sum(next_offset), 0) FROM consumer_offsets"


@contextmanager
def consumers(
    bench: Bench,
    watch: psycopg.Connection[Any],
    environment: dict[str, str],
    partitions: int,
    processes: int = 1,
    pinned_to: Sequence[int] = (),
) -> Iterator[list[int]]:
    """Start processes that own equal shares of `partitions`; yield their ids.

    Args:
        bench: The environment.
        watch: Connection to the database.
        environment: Environment of the processes.
        partitions: Number of partitions.
        processes: Number of processes.
        pinned_to: Core of each process and its database session; empty for any core.
    """
    command: list[str | Path] = [
        sys.executable,
        *os.environ.get("BENCH_CONSUMER", "-m marketfeed_consumers").split(),
    ]
    logs = [bench.folder / f"consumer{number}.log" for number in range(processes)]
    shares = [(partitions // processes,)] * processes
    with ExitStack() as stack:
        pids = []
        for log, core in zip(logs, pinned_to or [None] * processes, strict=True):
            with sink_cores.start_on(core):
                pids.append(stack.enter_context(sink_stack.running(command, log, env=environment)))

        def owned() -> bool:
            for pid, log in zip(pids, logs, strict=True):
                if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    raise SystemExit(f"a consumer exited:\n{log.read_text()}")
            return watch.execute(_SHARES).fetchall() == shares

        sink_stack.until(owned, "the consumers to own their partitions")
        if pinned_to:
            sink_cores.pin_sessions(watch, pids, pinned_to)
        yield pids


def drained(watch: psycopg.Connection[Any], pids: Sequence[int], publish: Callable[[], int]) -> float:
    """Return the seconds in which the processes store the messages that `publish` produces while they are paused.

    Args:
        watch: Connection to the database.
        pids: Process ids.
        publish: Publishes the messages and returns their number.
    """
    stored = int(watch.execute(_OFFSETS).fetchone()[0])  # type: ignore[index] - always one row
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        end = (stored + publish(),)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    began = time.monotonic()
    sink_stack.until(
        lambda: watch.execute(_OFFSETS).fetchone() == end, f"{end[0]:,} messages to be stored", 300
    )
    return time.monotonic() - began
