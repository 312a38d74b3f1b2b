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
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import sink_cores
import sink_data
import sink_debezium
import sink_stack
from sink_bench import Bench, consumer_environment, consumers, cpu, drained, started

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
