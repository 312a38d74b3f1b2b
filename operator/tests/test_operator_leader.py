"""Two operators: when the leader is stopped or killed the standby leads, and nothing is done twice."""

import asyncio
import signal

import pytest
from operator_support import WAIT_SECONDS, Admin, eventually

pytestmark = pytest.mark.integration

LEASE_SECONDS = "9"
"""Waited for once. A leader that cannot renew for two thirds of it, on a busy machine, exits by design."""


def feed_arrives(admin: Admin, name: str):
    async def check():
        return f"{name}-shard-0" in await admin.names("Deployment")  # created after its ConfigMap

    return eventually(check)


async def test_leader_stopped_or_killed_is_replaced_by_the_standby(admin: Admin, start_operator):
    first = start_operator(OPERATOR_NAME="first", LEASE_SECONDS=LEASE_SECONDS)
    second = start_operator(OPERATOR_NAME="second", LEASE_SECONDS=LEASE_SECONDS, wait=False)
    await asyncio.to_thread(second.await_log, "another operator is the leader")
    await admin.feed("one", symbols=["AA"])
    await feed_arrives(admin, "one")
    assert await asyncio.to_thread(second.total, "marketfeed_operator_reconciles_total") == 0
    uids = {
        kind: [(await admin.get(kind, name))["metadata"]["uid"] for name in await admin.names(kind)]
        for kind in ("ConfigMap", "Deployment")
    }

    # Stopped: the lease is released, so that the standby need not wait for its expiry.
    assert await asyncio.to_thread(first.stop) == 0
    assert "leader lease released" in first.log.read_text()
    await asyncio.to_thread(second.await_log, " leading ")
    await admin.feed("two", symbols=["AA"])
    await feed_arrives(admin, "two")

    # Killed: the standby waits for the expiry of the lease.
    third = start_operator(OPERATOR_NAME="third", LEASE_SECONDS=LEASE_SECONDS, wait=False)
    await asyncio.to_thread(third.await_log, "another operator is the leader")
    assert await asyncio.to_thread(second.stop, signal.SIGKILL) == -signal.SIGKILL
    await admin.feed("three", symbols=["AA"])
    await feed_arrives(admin, "three")
    for kind, before in uids.items():
        assert [(await admin.get(kind, "one-shard-0"))["metadata"]["uid"]] == before, (
            "created again without need"
        )
    await asyncio.to_thread(third.stop)


async def test_leader_that_lost_its_lease_stops_at_once(admin: Admin, start_operator):
    leader = start_operator(OPERATOR_NAME="robbed")
    path = "/apis/coordination.k8s.io/v1/namespaces/marketfeed-system/leases/marketfeed-operator"
    await admin.cluster.merge(path, {"spec": {"holderIdentity": "a-thief", "leaseDurationSeconds": 5}})
    assert await asyncio.to_thread(leader.process.wait, WAIT_SECONDS) == 1
    assert "leader lease lost to another operator" in leader.log.read_text()


async def test_leader_of_a_new_version_adopts_the_feeds_and_rolls_them(admin: Admin, start_operator):
    old = start_operator(WORKER_IMAGE="worker:1")
    await admin.feed("upgraded", symbols=["AA"])
    # Its ConfigMap comes first: an operator that stopped in between would leave nothing to roll.
    await eventually(lambda: admin.get("Deployment", "upgraded-shard-0"))
    assert await asyncio.to_thread(old.stop) == 0
    before = (await admin.get("ConfigMap", "upgraded-shard-0"))["metadata"]["resourceVersion"]
    new = start_operator(WORKER_IMAGE="worker:2")

    async def rolled():
        found = await admin.get("Deployment", "upgraded-shard-0")
        return found["spec"]["template"]["spec"]["containers"][0]["image"] == "worker:2"

    await eventually(rolled)
    assert (await admin.get("ConfigMap", "upgraded-shard-0"))["metadata"]["resourceVersion"] == before
    await asyncio.to_thread(new.stop)
