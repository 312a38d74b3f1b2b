"""Benchmark of maintenance on a large table: audits, and retention concurrent with a consumer at full speed.

    python benchmarks/sink_upkeep.py --millions 10 --rounds 3

The consumer fills the table. Then the audit from the stored ranges, the query of the metrics and the deep audit are
timed, and a million trades are stored in turns without and with concurrent retention. The audit is also timed on the
candles of a billion trades, without their rows, which it does not read. PostgreSQL with fsync on. The last line is
JSON. The defaults take about six minutes.
"""

import argparse
import json
import random
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import sink_data
import sink_stack
from sink_bench import Bench, started
from sink_table import MILLION, Table, table

from marketfeed_consumers.admin import audit, completeness, retention
from marketfeed_consumers.database import connections


class Retention:
    """Retention in a thread between `start` and `stop`."""

    def __init__(self, url: str, before_us: int) -> None:
        self.rows = 0
        self._url, self._before_us = url, before_us
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection, _ = connections.connect(self._url)
        with connection:
            retry = connections.retry_conflicts(connection, random.Random(1))  # noqa: S311 - jitter
            limit = retention.Limit(self._before_us, time.time_ns() // 1000)
            for done in retention.expire(connection, "trades", limit, retry):
                self.rows += done.deleted
                if self._stop.is_set():
                    return
        if not self._stop.is_set():
            print("retention had no more rows to delete: its rate is too low", flush=True)


@dataclass
class Turn:
    """A turn that stores a million trades."""

    seconds: float
    deleted: int

    @property
    def rate(self) -> int:
        return round(MILLION / self.seconds)

    @property
    def deleted_a_second(self) -> int:
        return round(self.deleted / self.seconds)


def grow(growing: Table, concurrent: Retention | None = None) -> Turn:
    """Store a million trades, with `concurrent` retention meanwhile."""
    if concurrent is None:
        return Turn(growing.grow(), 0)
    elapsed = growing.grow(concurrent.start)
    concurrent.stop()
    return Turn(elapsed, concurrent.rows)


def seconds(action: Callable[[], object]) -> float:
    """Return the duration of the second of two calls of `action`, with warm caches."""
    elapsed = 0.0
    for _ in range(2):
        began = time.monotonic()
        action()
        elapsed = time.monotonic() - began
    return round(elapsed, 4)


def audits(url: str, rows: int) -> dict[str, float]:
    """Return the seconds of each kind of audit; all of them must report complete data."""
    connection, dialect = connections.connect(url)

    def audited(*, deep: bool) -> None:
        report = audit.audit(connection, dialect, audit.Scope(), deep=deep)
        if not report.is_complete or sum(hour.stored for hour in report.hours) != rows:
            raise SystemExit("the audit reports missing trades")

    with connection:
        durations = {
            "ledger_seconds": seconds(lambda: audited(deep=False)),
            "deep_seconds": seconds(lambda: audited(deep=True)),
        }
    connection, dialect = connections.connect(url)
    with connection:
        return {
            **durations,
            "metrics_seconds": seconds(lambda: completeness.figures(connection, time.time_ns() // 1000)),
        }


_CANDLES = """
INSERT INTO candles_1m SELECT 'binance_us', 'S' || lpad(symbol::text, 3, '0'), %(begin_us)s + minute * 60000000::bigint,
    1, 1, 1, 1, 1, 1, 1, 600, minute * 600, minute * 600 + 599
FROM generate_series(1, 100) AS symbol, generate_series(0, 16666) AS minute
"""
"""100 symbols with ten trades per second each, for eleven and a half days."""


def billion(bench: Bench) -> dict[str, float]:
    """Return the seconds to audit a billion trades from their candles, for all and for the last eleven hours."""
    url = bench.database()
    with psycopg.connect(url, autocommit=True) as filling:
        filling.execute(_CANDLES, {"begin_us": sink_data.BEGIN_US})
        filling.execute("ANALYZE candles_1m")
    connection, dialect = connections.connect(url)
    since_us = sink_data.BEGIN_US + 16_000 * 60_000_000
    with connection:
        return {
            "all_seconds": seconds(lambda: audit.audit(connection, dialect, audit.Scope())),
            "last_hours_seconds": seconds(
                lambda: audit.audit(connection, dialect, audit.Scope(since_us=since_us))
            ),
        }


def measure(bench: Bench, millions: int, rounds: int) -> dict[str, Any]:
    audited_billion = billion(bench)
    print(f"audits of a billion trades: {audited_billion}", flush=True)
    url = bench.database()
    with table(bench, url) as growing:
        for _ in range(millions):
            print(f"{growing.millions + 1:3} million rows  {grow(growing).rate:9,} rows/s", flush=True)
        audited = audits(url, millions * MILLION)
        print(f"audits: {audited}", flush=True)
        # New trades are younger than all existing ones.
        before_us = sink_data.BEGIN_US + millions * MILLION * 1000
        alone: list[Turn] = []
        concurrent: list[Turn] = []
        for _ in range(rounds):
            alone.append(grow(growing))
            concurrent.append(grow(growing, Retention(url, before_us)))
            print(
                f"alone {alone[-1].rate:9,} rows/s   with retention {concurrent[-1].rate:9,} rows/s, "
                f"{concurrent[-1].deleted_a_second:,} deleted per second",
                flush=True,
            )
    return {
        "rows": millions * MILLION,
        "audit": audited,
        "audit_of_a_billion": audited_billion,
        "rows_per_second_alone": [turn.rate for turn in alone],
        "rows_per_second_beside_retention": [turn.rate for turn in concurrent],
        "deleted_per_second": [turn.deleted_a_second for turn in concurrent],
        "share_kept_median": round(
            statistics.median(b.rate / a.rate for a, b in zip(alone, concurrent, strict=True)), 2
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with started(0) as bench:
        result = measure(bench, arguments.millions, arguments.rounds)
        print(json.dumps({"benchmark": "sink_upkeep", **sink_stack.machine(bench.url()), **result}))


if __name__ == "__main__":
    main()
