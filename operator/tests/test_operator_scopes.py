"""Deleted or unreadable namespaces: the others are served, and log, metric, /status and condition report them."""

import asyncio
import contextlib
import json
import random
import urllib.request
from typing import Any

import pytest
from operator_support import KINDS, Admin, Clock, Operator, eventually, launch, narrow_token, serve_in
from prometheus_client import CollectorRegistry

from marketfeed_operator.engine.loops import REPORTED_FAILURES, LoopRunner
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.queue import WorkQueue
from marketfeed_operator.engine.watches import INACTIVITY_SECONDS, Watches


def status_of(operator: Operator) -> dict[str, Any]:
    with urllib.request.urlopen(operator.url("/status"), timeout=30) as answer:  # noqa: S310 - our own
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.mark.integration
async def test_namespace_that_cannot_be_read_does_not_affect_the_others(admin: Admin, api_server, tmp_path):
    kubeconfig = api_server.kubeconfig_for(tmp_path / "kubeconfig", await narrow_token(admin))
    gone, inside = f"{admin.namespace}-gone", admin.namespace
    with contextlib.ExitStack() as running:
        # The unreadable one first: it is the first that is requested.
        operator = launch(
            tmp_path, kubeconfig, running, WATCH_NAMESPACES=f"{gone},{inside}", OPERATOR_NAMESPACE=inside
        )
        await asyncio.to_thread(operator.await_log, "namespace unavailable")
        await admin.feed("inside", symbols=["AA"])
        await eventually(lambda: admin.get("Deployment", "inside-shard-0"))
        await admin.delete("ConfigMap", "inside-shard-0")  # its watches work, too
        await eventually(lambda: admin.get("ConfigMap", "inside-shard-0"))
        reported = await asyncio.to_thread(status_of, operator)
        assert list(reported["unavailableNamespaces"]) == [gone]
        assert "forbidden" in reported["unavailableNamespaces"][gone]
        assert reported["live"]["ok"]

        def available(namespace: str) -> float:
            return operator.total("marketfeed_operator_namespace_available", namespace=namespace)

        assert await asyncio.to_thread(available, gone) == 0
        assert await asyncio.to_thread(available, inside) == 1

        # It is created again with its permissions, and is served without a restart.
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": gone}}
        await admin.cluster.apply(KINDS["Namespace"], namespace, manager="tests")
        await serve_in(admin, gone)
        await Admin(admin.cluster, gone).feed("back", symbols=["AA"])
        await eventually(lambda: Admin(admin.cluster, gone).get("Deployment", "back-shard-0"))
        assert (await asyncio.to_thread(status_of, operator))["unavailableNamespaces"] == {}

        # And the permissions in the other are revoked at run time.
        binding = KINDS["RoleBinding"].path(inside, "narrow")
        await admin.cluster._request("delete", binding)

        await Admin(admin.cluster, gone).feed("still", symbols=["AA"])
        await eventually(lambda: Admin(admin.cluster, gone).get("Deployment", "still-shard-0"))
        assert operator.process.poll() is None
        assert await asyncio.to_thread(operator.stop) == 0
        await admin.cluster._request("delete", KINDS["Namespace"].path(None, gone))


def test_watch_age_is_that_of_the_oldest_watch():
    clock = Clock()
    watches = Watches(180, clock)
    assert watches.verdict().ok
    assert watches.oldest_seconds() == 0
    watches.started(None, ["/api/v1/pods", "/api/v1/services"])
    clock.seconds += 170
    watches.seen(None, "/api/v1/pods")
    assert watches.verdict().ok
    clock.seconds += 11
    verdict = watches.verdict()
    assert not verdict.ok
    assert verdict.reason == "the watch of /api/v1/services has received nothing for 181 s"
    watches.seen(None, "/api/v1/services")
    assert watches.verdict().ok
    assert watches.oldest_seconds() == 11


def test_watch_of_a_stopped_scope_has_no_age():
    clock = Clock()
    watches = Watches(180, clock)
    watches.started("a", ["/a"])
    watches.started("b", ["/b"])
    watches.stopped("a")
    clock.seconds += 181
    assert "/b" in watches.verdict().reason
    watches.seen("a", "/a")  # a last byte of a closed stream
    watches.stopped("b")
    assert watches.verdict().ok


@pytest.mark.parametrize("deadline", [2.0, 90.0, 180.0, 3600.0])
def test_watch_deadline_is_above_the_inactivity_timeout(deadline):
    assert Watches(deadline, Clock()).inactivity_seconds <= min(INACTIVITY_SECONDS, deadline / 2)


async def test_queue_age_is_that_of_the_oldest_due_key():
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(now=clock, chance=random.Random(1))  # noqa: S311 - jitter
    assert queue.oldest_seconds() == 0
    await queue.add("later", after_seconds=50)
    await queue.add("now")
    clock.seconds += 40
    assert queue.oldest_seconds() == 40
    assert (await queue.get())[0] == "now"
    assert queue.oldest_seconds() == 0
    clock.seconds += 11
    assert queue.oldest_seconds() == 1


async def test_queue_limits_a_key_that_keeps_changing():
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(now=clock, chance=random.Random(1))  # noqa: S311 - jitter
    await queue.add("busy")
    await queue.get()
    await queue.add("busy")
    await queue.done("busy", rest_seconds=5)
    assert queue.oldest_seconds() == 0
    assert len(queue) == 0
    clock.seconds += 5
    assert len(queue) == 1


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("y"), RecursionError("z"), ZeroDivisionError()])
async def test_loops_survive_every_error_and_report_persistent_ones(error):
    loops = LoopRunner(Metrics(CollectorRegistry()))

    async def fails() -> None:
        raise error

    async def works() -> None:
        return None

    for _ in range(REPORTED_FAILURES - 1):
        assert not await loops.run_once("audit", fails)
    assert loops.problems == {}
    assert not await loops.run_once("audit", fails)
    assert type(error).__name__ in loops.problems["audit"]
    assert await loops.run_once("audit", works)
    assert loops.problems == {}
