"""Benchmark of edits of fifty feeds under hostile conditions: two operators, a hostile feed, a hostile pod, an
exhausted quota and a deleted namespace at the same time, on a real API server.

    python benchmarks/operator_hostile.py [--feeds 50] [--edits 300]

Prints one JSON line with the latency from the response to an edit to the changed child, and whether the operators are
alive. Exits with 1 if one of them exited or the 99th percentile is a second or more. About five minutes on two cores.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from operator_scale import FEEDS, NAMESPACE, body, edit, edit_to_child, made, symbols_of

sys.path.insert(0, str(Path(__file__).parents[1] / "operator" / "tests"))

from operator_control_plane import control_plane
from operator_support import (
    KINDS,
    SYSTEM,
    Operator,
    admin_client,
    eventually,
    home_in,
    install,
    launch,
    operator_token,
)

from marketfeed_devtools.hostile import Hostile
from marketfeed_devtools.ports import free_port
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.kinds import CONFIG_MAP, POD, Kind

SHARDS = 2
SECOND = "second-operator"
HOSTILE = "hostile"
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
P99_SECONDS = 1.0


async def namespace(cluster: Cluster, name: str) -> None:
    await cluster.apply(
        KINDS["Namespace"],
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        manager="benchmark",
    )


async def feed(cluster: Cluster, where: str, name: str, **spec: Any) -> None:
    declared = body(0, ["AA"])
    declared["metadata"] = {"name": name, "namespace": where}
    declared["spec"] = {**declared["spec"], **spec}
    await cluster.apply(
        FEEDS, {key: value for key, value in declared.items() if value is not None}, manager="benchmark"
    )


@contextlib.asynccontextmanager
async def hostile_pod(cluster: Cluster, port: int, rng: random.Random) -> AsyncIterator[None]:
    """Run a pod with the labels of a feed's pod and random content of /status.

    Args:
        cluster: Client of the API server.
        port: Port of the pod's metrics.
        rng: Random number generator of the content.
    """
    hostile = Hostile(rng, [{"reason": "x", "symbols": {}}])
    app = web.Application()

    async def status(_: web.Request) -> web.Response:
        return web.Response(body=hostile.body())

    app.router.add_get("/status", status)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    address = "127.0.66.6"
    await web.TCPSite(runner, address, port).start()
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "mallory", "namespace": HOSTILE,
            "labels": {
                "marketfeed.dev/feed": "many", "app.kubernetes.io/component": "ingestion",
                "app.kubernetes.io/managed-by": "marketfeed-operator", "marketfeed.dev/shard": "0",
            },
        },
        "spec": {"automountServiceAccountToken": False, "containers": [{"name": "c", "image": "x"}]},
    }  # fmt: skip
    await cluster.apply(POD, pod, manager="mallory")
    running = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    await cluster.merge(f"{POD.path(HOSTILE, 'mallory')}/status", {"status": running})
    try:
        yield
    finally:
        await runner.cleanup()


async def create_hostile_objects(cluster: Cluster, venue: str) -> None:
    """Create feeds, a quota and a deleted namespace that may affect other feeds."""
    for name in (HOSTILE, "full", "deleted"):
        await namespace(cluster, name)
    quota = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full", "namespace": "full"},
        "spec": {"hard": {"pods": "0", "count/configmaps": "1"}},
    }  # fmt: skip
    await cluster.apply(QUOTA, quota, manager="benchmark")
    await feed(cluster, "full", "refused")
    await feed(cluster, "deleted", "goes")
    symbols = [f"H{number:04}USDT" for number in range(2000)]
    await feed(cluster, HOSTILE, "many", symbols=symbols, shardSize=1)
    spec = body(0, ["AA"])["spec"]
    del spec["symbols"]
    spec |= {"symbolSelector": {"quoteAssets": ["USDT"]}, "endpoints": {"rest": venue}}
    declared = {
        "apiVersion": FEEDS.api_version, "kind": FEEDS.kind,
        "metadata": {"name": "listed", "namespace": HOSTILE}, "spec": spec,
    }  # fmt: skip
    await cluster.apply(FEEDS, declared, manager="benchmark")
    await cluster._request("delete", KINDS["Namespace"].path(None, "deleted"))


async def nothing_created(operators: list[Operator]) -> None:
    """Wait until neither operator has created a child for some seconds; leases are still renewed."""
    before, unchanged = -1.0, 0
    while unchanged < 5:
        await asyncio.sleep(1)
        now = sum([await made(operator) for operator in operators])
        unchanged = unchanged + 1 if now == before else 0
        before = now


async def measure(
    operators: list[Operator], cluster: Cluster, pod_port: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    rng = random.Random(arguments.seed)  # noqa: S311 - not for security
    await namespace(cluster, NAMESPACE)
    symbols = symbols_of(SHARDS)
    for number in range(arguments.feeds):
        await cluster.apply(FEEDS, body(number, symbols), manager="benchmark")

    async def converged() -> bool:
        found = await cluster.list_all(CONFIG_MAP, NAMESPACE, "marketfeed.dev/feed")
        return len(found) == SHARDS * arguments.feeds

    await eventually(converged, seconds=600)
    await nothing_created(operators)
    hostile = Hostile(rng, [{"symbols": [{"symbol": "AUSDT", "status": "TRADING", "quoteAsset": "USDT"}]}])
    async with hostile.serving() as venue, hostile_pod_after(cluster, pod_port, rng, venue):
        latencies = []
        for count in range(arguments.edits):
            number = rng.randrange(arguments.feeds)
            latencies.append(await edit(cluster, number, symbols, f"NEW{count:04}USDT"))
        made = len(await cluster.list_all(CONFIG_MAP, HOSTILE, "marketfeed.dev/feed"))
    return {
        "benchmark": "operator_hostile",
        "seed": arguments.seed,
        "feeds": arguments.feeds,
        "cores": os.cpu_count(),
        "edits": arguments.edits,
        "hostile_shards_made_meanwhile": made,
        **edit_to_child(latencies),
        "operators_alive": [operator.process.poll() is None for operator in operators],
    }


@contextlib.asynccontextmanager
async def hostile_pod_after(
    cluster: Cluster, port: int, rng: random.Random, venue: str
) -> AsyncIterator[None]:
    await create_hostile_objects(cluster, venue)
    async with hostile_pod(cluster, port, rng):
        yield


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--feeds", type=int, default=50)
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        plane = running.enter_context(control_plane(folder / "apiserver", controller_qps=20))
        asyncio.run(install(plane.kubeconfig))
        token = asyncio.run(operator_token(plane.kubeconfig))
        pod_port = free_port()
        return asyncio.run(_run(plane, token, folder, running, pod_port, arguments))


async def _run(
    plane: Any,
    token: str,
    folder: Path,
    running: contextlib.ExitStack,
    pod_port: int,
    arguments: argparse.Namespace,
) -> int:
    async with admin_client(plane.kubeconfig) as cluster:
        await namespace(cluster, SECOND)
        await home_in(cluster, SECOND)
        operators = []
        for name, where in (("first", SYSTEM), ("second", SECOND)):
            place = folder / name
            place.mkdir()
            kubeconfig = plane.kubeconfig_for(place / "kubeconfig", token)
            operators.append(
                launch(
                    place, kubeconfig, running, RESYNC_SECONDS="60", AUDIT_SECONDS="300", REPORT_SECONDS="5",
                    POD_METRICS_PORT=str(pod_port), OPERATOR_NAMESPACE=where, LISTING_SECONDS="10",
                )
            )  # fmt: skip
            await asyncio.to_thread(operators[-1].await_log, " leading ")
        found = await measure(operators, cluster, pod_port, arguments)
    print(json.dumps(found))
    return 0 if all(found["operators_alive"]) and found["edit_to_child_p99_ms"] < P99_SECONDS * 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
