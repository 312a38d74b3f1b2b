"""Benchmark of the consumer's wire-to-commit latency at constant rates, with PostgreSQL and fsync on.

    python benchmarks/sink_latency.py --rates 1000,10000,50000 --seconds 15

Latency is measured from the produce call to the database's response to COMMIT, by the consumer's histogram
(marketfeed_consumer_wire_to_commit_seconds), whose buckets grow by a seventh. Each rate has a separate consumer process
and database; the first seconds are excluded. The last line is JSON. The defaults take about two minutes.
"""

import argparse
import json
import re
import sys
import time
import urllib.request
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import sink_data
import sink_stack
from confluent_kafka import Producer
from sink_bench import Bench, consumer_environment, cpu, started

from marketfeed_wire import encode

WARM_UP_SECONDS = 4.0
STEP_SECONDS = 0.002
"""Interval of the producer."""
_BUCKET = re.compile(r'wire_to_commit_seconds_bucket\{(?=.*table="trades").*\ble="([^"]+)".*\} (\S+)')


def buckets(url: str) -> dict[float, float]:
    """Return upper bound in seconds -> cumulative row count of the consumer."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:  # noqa: S310 - local process
        return {float(bound): float(count) for bound, count in _BUCKET.findall(response.read().decode())}


def quantile_ms(before: dict[float, float], after: dict[float, float], q: float) -> float:
    """Return the `q` quantile of the rows between two scrapes, as the bucket's upper bound in milliseconds.

    Args:
        before: Buckets of the first scrape.
        after: Buckets of the second scrape.
        q: Quantile, from 0 to 1.
    """
    counts = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
    total = counts[float("inf")]
    return 1000 * next(bound for bound, count in sorted(counts.items()) if count >= q * total)


def flow(producer: Producer, topic: str, rate: int, seconds: float, state: dict[str, int]) -> int:
    """Publish trades at `rate` per second; return their number.

    Args:
        producer: Kafka producer.
        topic: Topic of the trades.
        rate: Trades per second.
        seconds: Duration.
        state: Last trade id of each symbol, updated.
    """
    began, sent, turn = time.monotonic(), 0, 0
    while (elapsed := time.monotonic() - began) < seconds:
        now_us = time.time_ns() // 1000
        for _ in range(int(elapsed * rate) - sent):
            symbol = sink_data.SYMBOLS[turn % len(sink_data.SYMBOLS)]
            turn += 1
            state[symbol] += 1
            trade = sink_data.one(symbol, state[symbol], now_us)
            producer.produce(topic, encode(trade), symbol.encode(), sink_data.partition_of(symbol))
            sent += 1
        producer.poll(0)
        time.sleep(STEP_SECONDS)
    if producer.flush(30):
        raise SystemExit("Kafka did not acknowledge all messages")
    return sent


def measure(bench: Bench, rate: int, seconds: float, **settings: str) -> dict[str, Any]:
    """Measure a rate; return latency quantiles and CPU usage.

    Args:
        bench: The environment.
        rate: Trades per second.
        seconds: Duration.
        settings: Further settings of the consumer.
    """
    url, topic, port_file = bench.database(), f"rate-{rate}-{time.time_ns()}", bench.folder / f"port-{rate}"
    port_file.unlink(missing_ok=True)
    sink_data.create(bench.broker, topic)
    producer = Producer(
        {"bootstrap.servers": bench.broker, "linger.ms": 1, "acks": "all", "enable.idempotence": True,
         "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000}
    )  # fmt: skip
    environment = consumer_environment(bench, url, topic, METRICS_PORT_FILE=str(port_file), **settings)
    command: list[str | Path] = [sys.executable, "-m", "marketfeed_consumers"]
    state: dict[str, int] = defaultdict(lambda: 1000)
    with ExitStack() as stack, psycopg.connect(url, autocommit=True) as watch:
        pid = stack.enter_context(sink_stack.running(command, bench.folder / "latency.log", env=environment))
        sink_stack.until(port_file.exists, "the consumer")
        address = f"http://127.0.0.1:{port_file.read_text().strip()}"
        query = "SELECT count(*) FROM consumer_offsets"
        sink_stack.until(lambda: watch.execute(query).fetchone() == (sink_data.PARTITIONS,), "its partitions")
        flow(producer, topic, rate, WARM_UP_SECONDS, state)
        time.sleep(0.5)
        before, used = buckets(address), cpu(pid)
        sent = flow(producer, topic, rate, seconds, state)

        def stored() -> bool:
            return buckets(address).get(float("inf"), 0) - before.get(float("inf"), 0) >= sent

        sink_stack.until(stored, f"{sent} trades to be stored", 60)
        after = buckets(address)
        return {
            "rows_per_second": rate, "rows": sent,
            "p50_ms": round(quantile_ms(before, after, 0.5), 2), "p99_ms": round(quantile_ms(before, after, 0.99), 2),
            "consumer_cpu_percent": round(100 * (cpu(pid) - used) / seconds),
        }  # fmt: skip


def idle_cpu_percent(bench: Bench, seconds: float) -> float:
    """Return the CPU usage of a consumer of four idle partitions, in percent."""
    url, topic = bench.database(), f"idle-{time.time_ns()}"
    sink_data.create(bench.broker, topic)
    command: list[str | Path] = [sys.executable, "-m", "marketfeed_consumers"]
    environment = consumer_environment(bench, url, topic)
    with sink_stack.running(command, bench.folder / "idle.log", env=environment) as pid:
        time.sleep(WARM_UP_SECONDS + 4)
        before = cpu(pid)
        time.sleep(seconds)
        return round(100 * (cpu(pid) - before) / seconds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", default="1000,10000,50000", help="rows per second, separated by commas")
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of each rate")
    arguments = parser.parse_args()
    with started(0) as bench:
        runs = []
        for rate in map(int, arguments.rates.split(",")):
            runs.append(measure(bench, rate, arguments.seconds))
            print(runs[-1], flush=True)
        idle = idle_cpu_percent(bench, min(10.0, arguments.seconds))
        result = {"idle_cpu_percent": idle, "rates": runs}
        print(json.dumps({"benchmark": "sink_latency", **sink_stack.machine(bench.url()), **result}))


if __name__ == "__main__":
    main()
