"""How the rate of marketfeed's consumer holds as the table grows: a million trades at a time, up to --millions.

    python benchmarks/sink_growth.py --millions 20

One consumer process and one table all the time, PostgreSQL with fsync on. The process is held (SIGSTOP) while a million
is published, and timed from when it is let go until the last of them is committed. The last line is JSON.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import psycopg
import sink_data
import sink_stack
from sink import Bench, consumer_environment

from marketfeed_wire import encode

MILLION = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=int, default=20)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marketfeed-bench-")))
        broker = stack.enter_context(sink_stack.kafka(folder))
        bench = Bench(folder, broker, stack.enter_context(sink_stack.postgres()), 0)
        rates = measure(stack, bench, arguments.millions)
        print(json.dumps({"benchmark": "sink_growth", "cores": os.cpu_count(), "rows_per_second": rates}))


def measure(stack: ExitStack, bench: Bench, millions: int) -> list[int]:
    """Rows a second of each million."""
    url = bench.database()
    sink_data.create(bench.broker, "growing")
    flow = sink_data.trades(millions * MILLION)
    environment = consumer_environment(bench, url, "growing")
    command: list[str | Path] = [sys.executable, "-m", "marketfeed_consumers"]
    pid = stack.enter_context(sink_stack.running(command, bench.folder / "growth.log", env=environment))
    watch = stack.enter_context(psycopg.connect(url, autocommit=True))
    owned = "SELECT count(*) FROM consumer_offsets"
    sink_stack.until(lambda: watch.execute(owned).fetchone() == (sink_data.PARTITIONS,), "its partitions")
    stored = "SELECT sum(next_offset) FROM consumer_offsets"
    rates = []
    for number in range(1, millions + 1):
        os.kill(pid, signal.SIGSTOP)
        records = ((trade.symbol, encode(trade)) for trade in islice(flow, MILLION))
        sink_data.publish(bench.broker, "growing", records)
        began = time.monotonic()
        os.kill(pid, signal.SIGCONT)
        sink_stack.until(lambda end=number * MILLION: watch.execute(stored).fetchone() == (end,), "a million")  # type: ignore[misc]
        rates.append(round(MILLION / (time.monotonic() - began)))
        print(f"{number:3} million rows  {rates[-1]:9,} rows/s", flush=True)
    row = watch.execute("SELECT (SELECT count(*) FROM trades), pg_total_relation_size('trades')").fetchone()
    assert row is not None  # noqa: S101
    if row[0] != millions * MILLION:
        raise SystemExit(f"{row[0]} rows are stored")
    print(f"{row[1] / 2**30:.1f} GiB with its key", flush=True)
    return rates


if __name__ == "__main__":
    main()
