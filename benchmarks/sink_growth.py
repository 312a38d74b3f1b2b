"""Benchmark of the consumer's rate with a growing table, a million trades at a time up to --millions.

    python benchmarks/sink_growth.py --millions 20

One consumer process and one table, PostgreSQL with fsync on. The process is paused (SIGSTOP) while a million trades are
published, and timed from its resume to the last commit. The last line is JSON. Twenty millions take about five minutes.
"""

import argparse
import json
import statistics
import time

import sink_stack
from sink_bench import Bench, started
from sink_table import MILLION, table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=int, default=20)
    arguments = parser.parse_args()
    with started(0) as bench:
        rates, size_bytes = measure(bench, arguments.millions)
        first, last = rates[: max(1, len(rates) // 5)], rates[-max(1, len(rates) // 5) :]
        result = {
            "rows_per_second": rates,
            "table_gib": round(size_bytes / 2**30, 2),
            "last_fifth_over_first": round(statistics.median(last) / statistics.median(first), 2),
        }
        print(json.dumps({"benchmark": "sink_growth", **sink_stack.machine(bench.url()), **result}))


def measure(bench: Bench, millions: int) -> tuple[list[int], int]:
    """Return the rows per second of each million, and the final size of the table with its key in bytes."""
    rates: list[int] = []
    with table(bench, bench.database()) as growing:
        for number in range(1, millions + 1):
            began = time.monotonic()
            rates.append(round(MILLION / growing.grow()))
            turn = time.monotonic() - began
            print(f"{number:3} million rows  {rates[-1]:9,} rows/s   turn {turn:4.1f} s", flush=True)
        row = growing.watch.execute(
            "SELECT (SELECT count(*) FROM trades), pg_total_relation_size('trades')"
        ).fetchone()
        assert row is not None  # noqa: S101
        if row[0] != millions * MILLION:
            raise SystemExit(f"{row[0]} rows are stored, expected {millions * MILLION}")
        return rates, int(row[1])


if __name__ == "__main__":
    main()
