"""Stands in for nodes, which the API server of the tests does not have: pods become ready and serve /status.

It replaces the machines only: the API server, its controllers and the operator are real. The responses of a pod are
computed from its ConfigMap, as by a worker that follows it.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from marketfeed_operator.cluster import Cluster
from marketfeed_operator.errors import ApiError
from marketfeed_operator.kinds import CONFIG_MAP, POD
from marketfeed_wire.assignment import FILE_NAME, decode_assignment
from marketfeed_wire.status import ConsumerStatus, PartitionStatus, SymbolStatus, WorkerStatus

_addresses = itertools.count(2)


class Kubelet:
    """Runs the pods of one namespace.

    Attributes:
        port: port of every pod's /status.
        deaf: names of shards whose workers do not follow their file, so that new symbols are not live.
        broken: images that cannot be pulled.
        failing_jobs: whether Jobs fail.
    """

    def __init__(self, cluster: Cluster, namespace: str, port: int, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self._cluster = cluster
        self._namespace = namespace
        self.port = port
        self.deaf: set[str] = set()
        self.broken: set[str] = set()
        self.failing_jobs = False
        self._pods: dict[str, dict[str, Any]] = {}
        self._applied: dict[str, str] = {}
        self._runner = web.AppRunner(self._app(), access_log=None)
        self._ending = asyncio.Event()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/status", self._status)
        return app

    async def _run(self) -> None:
        await self._runner.setup()
        while not self._ending.is_set():
            with contextlib.suppress(ApiError):  # a pod or the namespace was deleted meanwhile
                for pod in await self._cluster.list_all(POD, self._namespace, "marketfeed.dev/feed"):
                    if self._ending.is_set():
                        return
                    await self._start(pod)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds):
                    await self._ending.wait()

    async def _close(self) -> None:
        """Close the listener; a client that is connecting is accepted and then closed with the others."""
        for site in list(self._runner.sites):
            await site.stop()
        accepting = [
            task
            for task in asyncio.all_tasks()
            if getattr(task.get_coro(), "__name__", "") == "_accept_connection2"
        ]
        await asyncio.gather(*accepting, return_exceptions=True)
        await self._runner.cleanup()

    async def _start(self, pod: dict[str, Any]) -> None:
        image = pod["spec"]["containers"][0]["image"]
        conditions = pod.get("status", {}).get("conditions", [])
        if any(found["type"] == "Ready" for found in conditions) or pod["metadata"].get("deletionTimestamp"):
            return
        job = pod["metadata"]["labels"]["app.kubernetes.io/component"] in ("migration", "retention")
        address = f"127.0.{next(_addresses) // 250}.{next(_addresses) % 250 + 2}"
        if image in self.broken:
            status = _status_of(image, "Pending", address, ready=False, waiting="ImagePullBackOff")
        elif job:
            status = {"phase": "Failed" if self.failing_jobs else "Succeeded", "conditions": _ready(False)}
        else:
            self._pods[address] = pod
            await web.TCPSite(self._runner, address, self.port, reuse_address=True).start()
            status = _status_of(image, "Running", address, ready=True)
        path = POD.path(self._namespace, pod["metadata"]["name"])
        await self._cluster.merge(f"{path}/status", {"status": status})

    async def _status(self, request: web.Request) -> web.Response:
        pod = self._pods[request.transport.get_extra_info("sockname")[0]]
        labels = pod["metadata"]["labels"]
        if labels["app.kubernetes.io/component"] != "ingestion":
            return web.Response(body=msgspec.json.encode(_consumer()))
        name = f"{labels['marketfeed.dev/feed']}-shard-{labels['marketfeed.dev/shard']}"
        if name not in self.deaf or name not in self._applied:
            found = await self._cluster.get(CONFIG_MAP.path(self._namespace, name))
            self._applied[name] = found["data"][FILE_NAME]
        assignment = decode_assignment(self._applied[name].encode())
        return web.Response(body=msgspec.json.encode(_worker(name, assignment.symbols, assignment.hash)))


def _ready(ready: bool) -> list[dict[str, str]]:
    return [
        {"type": kind, "status": "True" if ready else "False"}
        for kind in ("PodScheduled", "ContainersReady", "Ready")
    ]


def _status_of(image: str, phase: str, address: str, *, ready: bool, waiting: str = "") -> dict[str, Any]:
    state = (
        {"waiting": {"reason": waiting, "message": f"Back-off pulling image {image!r}"}}
        if waiting
        else {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    )
    return {
        "phase": phase,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": _ready(ready),
        "containerStatuses": [
            {
                "name": "worker", "ready": ready, "started": ready, "restartCount": 0, "image": image, "imageID": image,
                "state": state,
            }
        ],
    }  # fmt: skip


def _worker(name: str, symbols: tuple[str, ...], hash_: str) -> WorkerStatus:
    return WorkerStatus(
        version="1", venue="binance_us", shard=name, ready=True, reason="",
        symbols={
            symbol: SymbolStatus(
                trades=1, quotes=1, last_trade_id=7, last_trade_time_us=1_790_000_030_000_000, missing=0, duplicates=0
            )
            for symbol in symbols
            if not symbol.startswith("NOSUCH")
        },
        refused_symbols={symbol: "not listed" for symbol in symbols if symbol.startswith("NOSUCH")},
        connections=[], received={}, acknowledged={}, failed={}, pending=0, assignment=hash_,
    )  # fmt: skip


def _consumer() -> ConsumerStatus:
    return ConsumerStatus(
        version="1", group="g", ready=True, reason="",
        partitions=[PartitionStatus(topic="t", partition=0, next_offset=90, end_offset=100)],
        inserted={}, duplicates={}, dead_letters=0, symbols={}, latency_p50_us=None, latency_p99_us=None,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def kubelet(
    cluster: Cluster, namespace: str, port: int, *, pause_seconds: float = 0.1
) -> AsyncIterator[Kubelet]:
    """Run the pods of `namespace` during the block; new pods are looked for after each pause."""
    running = Kubelet(cluster, namespace, port, pause_seconds)
    task = asyncio.create_task(running._run(), name="kubelet")
    try:
        yield running
    finally:
        # Not cancelled: cancellation while a port is being opened would leave the socket to the garbage collector,
        # which fails a later test.
        running._ending.set()
        try:
            await task
        finally:
            await running._close()
