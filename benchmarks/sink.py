"""Benchmark from Kafka to PostgreSQL: marketfeed, Debezium's JDBC sink and plain COPY in one run.

    python benchmarks/sink.py --rows 1000000 --rounds 3

Contenders run in turns, each with a new database on the same server (fsync on). marketfeed's processes own their
partitions and are then paused (SIGSTOP) while the messages are published; the rate is messages per second from the
resume to the last COMMIT. Debezium's rate is rows per second between the server's first and last row count. The last
line is JSON. Three rounds take about six minutes.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import psycopg
import sink_cores
import sink_data
import sink_debezium
import sink_stack

from marketfeed_consumers.database import schema
from marketfeed_consumers.database.tables import trades as trades_table

_ONE_CORE, _CORE_EACH = "marketfeed pinned to one core", "marketfeed x2 pinned to one core each"


@dataclass
class Run:
    """A turn of a contender."""

    rows: int
    seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


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


def floor(bench: Bench) -> Run:
    """Measure COPY of prepared rows with an offsets row, 20,000 per transaction: the limit of the database."""
    url, chunks = bench.database(), bench.copy_chunks
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.execute("CREATE TABLE floor_offsets (id int PRIMARY KEY, next_offset bigint)")
        connection.execute("INSERT INTO floor_offsets VALUES (1, 0)")
        connection.commit()
        own, began = cpu(os.getpid()), time.monotonic()
        for chunk in chunks:
            connection.execute("UPDATE floor_offsets SET next_offset = next_offset + 20000 WHERE id = 1")
            with connection.cursor() as cursor, cursor.copy(trades_table.COPY) as copy:
                for start in range(0, len(chunk), 65536):
                    copy.write(chunk[start : start + 65536])
            connection.commit()
        seconds = time.monotonic() - began
        return Run(bench.rows, seconds, cpu(os.getpid()) - own, cpu(connection.info.backend_pid))


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


Records = Callable[[int], Iterator[tuple[str, bytes]]]


def marketfeed(
    bench: Bench, flows: dict[str, Records], trades: int, processes: int = 1, pinned_to: Sequence[int] = ()
) -> Run:
    """Measure `marketfeed-consumer` with all guarantees: a topic per flow, with `trades` new trades in total.

    Args:
        bench: The environment.
        flows: Messages of each flow.
        trades: Expected number of stored trades.
        processes: Number of processes.
        pinned_to: Core of each process; empty for any core.
    """
    url = bench.database()
    topics = {f"{name}-{time.time_ns()}": records for name, records in flows.items()}
    sink_data.create(bench.broker, *topics)
    named = dict(zip(("MARKET_TRADES_TOPIC", "MARKET_BOOK_TOPIC"), topics, strict=False))
    environment = consumer_environment(bench, url, ",".join(topics), **named)

    def publish() -> int:
        return sum(
            sink_data.publish(bench.broker, topic, records(bench.rows)) for topic, records in topics.items()
        )

    with psycopg.connect(url, autocommit=True) as watch:
        partitions = sink_data.PARTITIONS * len(topics)
        with consumers(bench, watch, environment, partitions, processes, pinned_to) as pids:
            used = sum(map(cpu, pids)), bench.server_cpu(url)
            seconds = drained(watch, pids, publish)
            client, server = sum(map(cpu, pids)) - used[0], bench.server_cpu(url) - used[1]
        check(watch, trades)
    sink_data.delete(bench.broker, *topics)
    return Run(bench.rows * len(topics), seconds, client, server)


def debezium(bench: Bench) -> Run:
    """Measure Debezium's JDBC sink; see sink_debezium.py."""
    url, topic = bench.database(), f"peer-{time.time_ns()}"
    sink_data.create(bench.broker, topic)
    sink_data.publish(bench.broker, topic, sink_data.plain(bench.rows))
    with ExitStack() as stack, psycopg.connect(url, autocommit=True) as watch:
        pid = sink_debezium.start(stack, bench.folder, bench.broker, url, topic, tasks=1)
        used = cpu(pid)
        rows, seconds = sink_debezium.drain(watch, bench.rows, bench.folder / "connect.log")
        run = Run(rows, seconds, cpu(pid) - used, bench.server_cpu(url))
    sink_data.delete(bench.broker, topic)
    return run


def check(connection: psycopg.Connection[Any], trades: int) -> None:
    """Verify the number of stored trades and of trades in candles."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM trades), (SELECT sum(trade_count) FROM candles_1m)"
    ).fetchone()
    if row != (trades, trades):
        raise SystemExit(f"stored trades and trades in candles are {row}, expected {trades}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="names of contenders, separated by commas")
    arguments = parser.parse_args()
    only = set(filter(None, arguments.only.split(",")))
    if not only or "debezium" in only:
        sink_stack.jars("debezium")  # downloaded before the measurement
    with started(arguments.rows) as bench:
        result = measure(bench, arguments.rounds, only)
        print(
            json.dumps({"benchmark": "sink", "rows": bench.rows, **sink_stack.machine(bench.url()), **result})
        )


def measure(bench: Bench, rounds: int, only: set[str]) -> dict[str, Any]:
    new = {"new": sink_data.plain}
    cores = sink_cores.cores()[:2]
    contenders: dict[str, Callable[[], Run]] = {
        "floor": lambda: floor(bench),
        "marketfeed": lambda: marketfeed(bench, new, bench.rows),
        "marketfeed x2": lambda: marketfeed(bench, new, bench.rows, processes=2),
        _ONE_CORE: lambda: marketfeed(bench, new, bench.rows, pinned_to=cores[:1]),
        _CORE_EACH: lambda: marketfeed(bench, new, bench.rows, len(cores), pinned_to=cores),
        "debezium": lambda: debezium(bench),
        "marketfeed 50% duplicates": lambda: marketfeed(
            bench, {"doubled": sink_data.doubled}, bench.rows // 2
        ),
        "marketfeed trades+quotes": lambda: marketfeed(
            bench, {**new, "quotes": sink_data.quotes}, bench.rows
        ),
    }
    if len(cores) < 2:
        print("one core: skipping two processes with one core each", flush=True)
        del contenders[_CORE_EACH]
    runs: dict[str, list[Run]] = {name: [] for name in contenders if not only or name in only}
    for turn in range(rounds):
        for name, own in runs.items():
            own.append(contenders[name]())
            last = own[-1]
            print(
                f"round {turn + 1}  {name:35} {last.rate:9,.0f} rows/s   client {last.client_cpu_seconds:5.1f} s"
                f"   server {last.server_cpu_seconds:5.1f} s",
                flush=True,
            )
    return {"contenders": {name: summary(own) for name, own in runs.items()}, "ratios": ratios(runs)}


def summary(own: Sequence[Run]) -> dict[str, float]:
    """Return rates, and the lowest CPU microseconds per row."""
    rates = [run.rate for run in own]
    return {
        "rows_per_second_best": round(max(rates)),
        "rows_per_second_median": round(statistics.median(rates)),
        "client_cpu_us_a_row": round(min(1e6 * run.client_cpu_seconds / run.rows for run in own), 2),
        "server_cpu_us_a_row": round(min(1e6 * run.server_cpu_seconds / run.rows for run in own), 2),
    }


def ratios(runs: dict[str, list[Run]]) -> dict[str, dict[str, float]]:
    """Return ratios of contenders: of their best rates, and the median over the rounds."""
    found = {}
    for one, other in (
        ("marketfeed", "floor"),
        ("marketfeed", "debezium"),
        ("marketfeed x2", "marketfeed"),
        (_CORE_EACH, _ONE_CORE),
    ):
        if one in runs and other in runs:
            pairs = [a.rate / b.rate for a, b in zip(runs[one], runs[other], strict=True)]
            best = max(run.rate for run in runs[one]) / max(run.rate for run in runs[other])
            found[f"{one} / {other}"] = {
                "best": round(best, 2),
                "median_of_pairs": round(statistics.median(pairs), 2),
            }
    return found


if __name__ == "__main__":
    main()
