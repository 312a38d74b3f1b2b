"""Benchmark of the operator at scale on a real API server: convergence, API calls, memory, latency of an edit.

    python benchmarks/operator_scale.py [--feeds 200] [--shards 10] [--edits 300]

Starts etcd, kube-apiserver and kube-controller-manager (built once, see operator/tests/operator_control_plane.py) and
an operator with its ServiceAccount, without nodes: pods stay pending. Prints one JSON line. The defaults take five to
ten minutes on two cores.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "operator" / "tests"))

from operator_control_plane import control_plane
from operator_support import KINDS, Operator, admin_client, eventually, install, launch, operator_token

from marketfeed_operator.cluster import FEEDS, Cluster
from marketfeed_operator.kinds import CONFIG_MAP
from marketfeed_wire.assignment import FILE_NAME

NAMESPACE = "scale"
SYMBOLS_PER_SHARD = 10
POLL_SECONDS = 0.005
FEED_LABEL = "marketfeed.dev/feed"


def body(number: int, symbols: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": FEEDS.api_version,
        "kind": FEEDS.kind,
        "metadata": {"name": f"feed-{number:03}", "namespace": NAMESPACE},
        "spec": {
            "venue": "binance_us",
            "symbols": symbols,
            "shardSize": SYMBOLS_PER_SHARD + 1,
            "kafka": {"bootstrapServers": "kafka:9092"},
            "storage": {"engine": "postgresql", "dsnSecretName": "database"},
        },
    }


def symbols_of(shards: int) -> list[str]:
    return [f"S{number:04}USDT" for number in range(shards * (SYMBOLS_PER_SHARD + 1) - 5)]


async def converge(cluster: Cluster, operator: Operator, feeds: int, shards: int) -> float:
    """Return the seconds from the first created MarketFeed to the last created child.

    The operator's metric is polled, because listing thousands of objects would affect the measurement. The objects are
    listed at the end and compared with the expected numbers.

    Args:
        cluster: Client of the API server.
        operator: The operator.
        feeds: Number of feeds.
        shards: Number of shards per feed.
    """
    # A ServiceAccount, four NetworkPolicies, three PodDisruptionBudgets, a Job and two Services per feed; a ConfigMap
    # and a Deployment per shard. StatefulSets depend on the Job, which needs nodes.
    expected = {
        "ServiceAccount": feeds, "NetworkPolicy": 4 * feeds, "PodDisruptionBudget": 3 * feeds, "Job": feeds,
        "Service": 2 * feeds, "ConfigMap": shards * feeds, "Deployment": shards * feeds,
    }  # fmt: skip
    started = time.perf_counter()
    gate = asyncio.Semaphore(8)

    async def declare(number: int) -> None:
        async with gate:
            await cluster.apply(FEEDS, body(number, symbols_of(shards)), manager="benchmark")

    await asyncio.gather(*(declare(number) for number in range(feeds)))

    async def all_made() -> bool:
        return await made(operator) >= sum(expected.values())

    await eventually(all_made, seconds=3600)
    seconds = time.perf_counter() - started
    for kind, number in expected.items():
        found = len(await cluster.list_all(KINDS[kind], NAMESPACE, FEED_LABEL))
        if found != number:
            raise SystemExit(f"{found} objects of kind {kind}, expected {number}")
    return seconds


async def made(operator: Operator) -> float:
    return await asyncio.to_thread(operator.total, "marketfeed_operator_children_total", result="created")


async def idle(operator: Operator) -> None:
    """Wait until the operator sends no further API requests."""
    before, unchanged = -1.0, 0
    while unchanged < 5:
        await asyncio.sleep(1)
        now = await asyncio.to_thread(operator.total, "marketfeed_operator_api_requests_total")
        unchanged = unchanged + 1 if now == before else 0
        before = now


async def edit(cluster: Cluster, number: int, symbols: list[str], new: str) -> float:
    """Edit a MarketFeed; return the seconds from the response to the changed ConfigMap.

    Args:
        cluster: Client of the API server.
        number: Number of the feed.
        symbols: Its symbols.
        new: Symbol to add.
    """
    await cluster.apply(FEEDS, body(number, [*symbols, new]), manager="benchmark")
    responded = time.perf_counter()
    while True:
        found = await cluster.list_all(CONFIG_MAP, NAMESPACE, f"{FEED_LABEL}=feed-{number:03}")
        if any(new in item["data"][FILE_NAME] for item in found):
            return time.perf_counter() - responded
        await asyncio.sleep(POLL_SECONDS)


def edit_to_child(latencies: list[float]) -> dict[str, int]:
    """Return percentiles of the latencies from an edit to its child."""
    ordered = sorted(latencies)
    return {
        "edit_to_child_p50_ms": round(statistics.median(ordered) * 1000),
        "edit_to_child_p99_ms": round(ordered[math.ceil(len(ordered) * 0.99) - 1] * 1000),
        "edit_to_child_max_ms": round(ordered[-1] * 1000),
    }


def memory_mib(process: int) -> tuple[float, float]:
    """Return the current and peak resident memory of a process in MiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return tuple(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


async def measure(operator: Operator, kubeconfig: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    async with admin_client(kubeconfig) as cluster:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await cluster.apply(KINDS["Namespace"], namespace, manager="benchmark")
        seconds = await converge(cluster, operator, arguments.feeds, arguments.shards)
        print(f"converged in {seconds:.1f} s; waiting until the operator is idle", file=sys.stderr)
        await idle(operator)
        calls = await asyncio.to_thread(operator.total, "marketfeed_operator_api_requests_total")
        symbols, rng = symbols_of(arguments.shards), random.Random(1)  # noqa: S311 - not for security
        chosen = [rng.randrange(arguments.feeds) for _ in range(arguments.edits)]
        latencies = [
            await edit(cluster, number, symbols, f"NEW{count:04}USDT") for count, number in enumerate(chosen)
        ]
        await idle(operator)
        after = await asyncio.to_thread(operator.total, "marketfeed_operator_api_requests_total")
        now, peak = memory_mib(operator.process.pid)
    return {
        "benchmark": "operator_scale",
        "feeds": arguments.feeds,
        "shards_per_feed": arguments.shards,
        "cores": os.cpu_count(),
        "converge_seconds": round(seconds, 1),
        "api_calls_per_symbol_change": round((after - calls) / arguments.edits, 2),
        "edits": arguments.edits,
        **edit_to_child(latencies),
        "operator_rss_mib": round(now),
        "operator_peak_rss_mib": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--feeds", type=int, default=200)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--edits", type=int, default=300)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        plane = running.enter_context(control_plane(folder / "apiserver", controller_qps=20))
        asyncio.run(install(plane.kubeconfig))
        token = asyncio.run(operator_token(plane.kubeconfig))
        kubeconfig = plane.kubeconfig_for(folder / "operator.kubeconfig", token)
        # Default intervals; without leader election, whose API calls would be counted.
        operator = launch(
            folder, kubeconfig, running,
            RESYNC_SECONDS="60", AUDIT_SECONDS="300", REPORT_SECONDS="5", LEADER_ELECTION="false",
        )  # fmt: skip
        operator.await_log("operator started")
        print(json.dumps(asyncio.run(measure(operator, plane.kubeconfig, arguments))))


if __name__ == "__main__":
    main()
