"""From Kafka into PostgreSQL: marketfeed beside Debezium's JDBC sink and a bare COPY, in one run.

    python benchmarks/sink.py --rows 1000000 --rounds 3

Contenders take turns, each with a fresh database on the same server (fsync on). A rate is rows a second from the
moment a sink owns its partitions to the moment its last row is committed. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import sink_data
import sink_debezium
import sink_stack

from marketfeed_consumers import schema
from marketfeed_consumers.tables import trades as trades_table


@dataclass
class Run:
    """One contender's turn."""

    rows: int
    seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds if self.seconds else float("nan")  # too few rows to time


class Bench:
    """The stack and what the contenders share."""

    def __init__(self, folder: Path, broker: str, url: Callable[[str], str], rows: int) -> None:
        self.folder, self.broker, self.url, self.rows = folder, broker, url, rows
        self._databases = 0

    def database(self) -> str:
        self._databases += 1
        name = f"bench{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for (old,) in connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE 'bench%'"
            ).fetchall():
                connection.execute(f"DROP DATABASE {old} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")
            connection.execute("CHECKPOINT")
        schema.migrate(self.url(name), 10)
        return self.url(name)

    def server_cpu(self, url: str) -> float:
        """Seconds that the backends of our database have used so far."""
        with psycopg.connect(url) as connection:
            pids = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
        return sum(cpu(pid) for (pid,) in pids)


def cpu(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def floor(bench: Bench) -> Run:
    """Ready-made rows by COPY and an offsets row, 20,000 a transaction: what the database can take."""
    url = bench.database()
    lines = [
        trades_table.copy_text((one.venue, one.symbol), [one]).encode()
        for one in sink_data.trades(bench.rows)
    ]
    pieces = [b"".join(lines[start : start + 20_000]) for start in range(0, len(lines), 20_000)]
    del lines
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.execute("CREATE TABLE floor_offsets (id int PRIMARY KEY, next_offset bigint)")
        connection.execute("INSERT INTO floor_offsets VALUES (1, 0)")
        connection.commit()
        own, began = cpu(os.getpid()), time.monotonic()
        for piece in pieces:
            connection.execute("UPDATE floor_offsets SET next_offset = next_offset + 20000 WHERE id = 1")
            with connection.cursor() as cursor, cursor.copy(trades_table.COPY) as copy:
                for start in range(0, len(piece), 65536):
                    copy.write(piece[start : start + 65536])
            connection.commit()
        seconds = time.monotonic() - began
        return Run(bench.rows, seconds, cpu(os.getpid()) - own, cpu(connection.info.backend_pid))


def consumer_environment(bench: Bench, url: str, topics: str, **settings: str) -> dict[str, str]:
    """Of a consumer of `topics` (its trades' topic first) in a group of its own."""
    return {
        **os.environ, "KAFKA_BROKER": bench.broker, "KAFKA_GROUP": f"bench-{time.time_ns()}", "DATABASE_URL": url,
        "MARKET_TRADES_TOPIC": topics.split(",")[0], "CONSUMER_TOPICS": topics, "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0", "LOG_LEVEL": "WARNING", **settings,
    }  # fmt: skip


_PROGRESS = "SELECT count(DISTINCT owner), coalesce(sum(next_offset), 0) FROM consumer_offsets"


def marketfeed(
    bench: Bench, topics: str, messages: int, trades: int, processes: int = 1, **settings: str
) -> Run:
    """`marketfeed-consumer`, every guarantee on: `messages` of `topics`, of which `trades` are new trades."""
    url = bench.database()
    environment = consumer_environment(bench, url, topics, **settings)
    command: list[str | Path] = [
        sys.executable,
        *os.environ.get("BENCH_CONSUMER", "-m marketfeed_consumers").split(),
    ]
    with ExitStack() as stack, psycopg.connect(url, autocommit=True) as watch:
        pids = [
            stack.enter_context(
                sink_stack.running(command, bench.folder / f"consumer{number}.log", env=environment)
            )
            for number in range(processes)
        ]
        began = ended = 0.0
        stored = at_begin = 0
        used: list[float] = []
        while stored < messages:
            row = watch.execute(_PROGRESS).fetchone()
            assert row is not None  # noqa: S101
            now = time.monotonic()
            stored, ended = int(row[1]), now
            if stored == 0 or row[0] < processes:
                # Nobody has stored anything yet, or one has while the other is still joining the group.
                began, at_begin, used = now, stored, [cpu(pid) for pid in pids]
            if not all(psutil.pid_exists(pid) for pid in pids):
                raise SystemExit((bench.folder / "consumer0.log").read_text())
            time.sleep(0.02)
        client = sum(cpu(pid) for pid in pids) - sum(used)
        run = Run(messages - at_begin, ended - began, client, bench.server_cpu(url))
    with psycopg.connect(url) as connection:
        check(connection, trades)
    return run


def debezium(bench: Bench, topic: str) -> Run:
    """Debezium's JDBC sink: see sink_debezium.py."""
    url = bench.database()
    with ExitStack() as stack, psycopg.connect(url, autocommit=True) as watch:
        pid = sink_debezium.start(stack, bench.folder, bench.broker, url, topic, tasks=1)
        used = cpu(pid)
        rows, seconds = sink_debezium.drain(watch, bench.rows, bench.folder / "connect.log")
        return Run(rows, seconds, cpu(pid) - used, bench.server_cpu(url))


def check(connection: psycopg.Connection[Any], trades: int) -> None:
    """A rate of rows that are not there is worth nothing."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM trades), (SELECT sum(trade_count) FROM candles_1m)"
    ).fetchone()
    if row != (trades, trades):
        raise SystemExit(f"stored are {row} trades and trades in candles, not {trades}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma separated names of contenders")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marketfeed-bench-")))
        broker = stack.enter_context(sink_stack.kafka(folder))
        bench = Bench(folder, broker, stack.enter_context(sink_stack.postgres()), arguments.rows)
        print(json.dumps(measure(bench, arguments.rounds, set(filter(None, arguments.only.split(","))))))


def measure(bench: Bench, rounds: int, only: set[str]) -> dict[str, Any]:
    contenders: dict[str, Callable[[], Run]] = {
        "floor": lambda: floor(bench),
        "marketfeed": lambda: marketfeed(bench, "new", bench.rows, bench.rows),
        "marketfeed x2": lambda: marketfeed(bench, "new", bench.rows, bench.rows, processes=2),
        "debezium": lambda: debezium(bench, "new"),
        "marketfeed 50% duplicates": lambda: marketfeed(bench, "doubled", bench.rows, bench.rows // 2),
        "marketfeed trades+quotes": lambda: marketfeed(
            bench, "new,quotes", 2 * bench.rows, bench.rows, MARKET_BOOK_TOPIC="quotes"
        ),
    }
    topics = {"new": sink_data.plain, "doubled": sink_data.doubled, "quotes": sink_data.quotes}
    sink_data.create(bench.broker, *topics)
    for topic, records in topics.items():
        sink_data.publish(bench.broker, topic, records(bench.rows))
    runs: dict[str, list[Run]] = {name: [] for name in contenders if not only or name in only}
    for turn in range(rounds):
        for name, own in runs.items():
            own.append(contenders[name]())
            last = own[-1]
            print(
                f"round {turn + 1}  {name:28} {last.rate:9,.0f} rows/s   client {last.client_cpu_seconds:5.1f} s"
                f"   server {last.server_cpu_seconds:5.1f} s",
                flush=True,
            )
    return {
        "benchmark": "sink", "rows": bench.rows, "cores": os.cpu_count(),
        **{
            name: {
                "rows_per_second_best": round(max(run.rate for run in own)),
                "rows_per_second_median": round(statistics.median(run.rate for run in own)),
            }
            for name, own in runs.items()
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
