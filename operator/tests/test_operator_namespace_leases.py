"""Namespace leases: of two operators in one cluster one serves a namespace, and both report the other."""

import asyncio
import json
import urllib.request

import pytest
from operator_failpoints import Failpoints
from operator_support import SYSTEM, Admin, Clock, eventually, home_in
from prometheus_client import CollectorRegistry

from marketfeed_operator.cluster import Cluster
from marketfeed_operator.engine.leader import LEASES, LeaderElection
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.namespace_leases import DURATION_SECONDS, NAME, RENEW_SECONDS, NamespaceLeases
from marketfeed_operator.errors import Unavailable

pytestmark = pytest.mark.integration


def namespace_leases(
    admin: Admin, clock: Clock, name: str, cluster: Cluster | None = None
) -> NamespaceLeases:
    return NamespaceLeases(
        cluster or admin.cluster, Metrics(CollectorRegistry()), f"{name}/marketfeed-operator", now=clock
    )


async def test_namespace_lease_is_kept_while_renewed_and_acquired_after_expiry(admin: Admin):
    clock = Clock()
    first, second = namespace_leases(admin, clock, "a"), namespace_leases(admin, clock, "b")
    where = admin.namespace
    assert await first.holder(where) == ""
    assert await second.holder(where) == "a/marketfeed-operator"
    assert second.others() == ["a/marketfeed-operator"]
    for _ in range(5):  # far beyond the duration, but renewed
        clock.seconds += RENEW_SECONDS
        await first.renew_all({where})
        await second.renew_all({where})
        assert await first.holder(where) == ""
        assert await second.holder(where) == "a/marketfeed-operator"
        assert first.other(where) == "b/marketfeed-operator"
    clock.seconds += DURATION_SECONDS + 1
    await second.renew_all({where})
    assert await second.holder(where) == ""
    await first.renew_all({where})
    assert await first.holder(where) == "b/marketfeed-operator", "exactly one serves"


async def test_namespace_lease_race_has_one_winner_at_once(admin: Admin):
    """Both have seen that there is no Lease: the loser must not serve the namespace until its next attempt."""
    clock, both_looked = Clock(), asyncio.Barrier(2)

    async def wait(_: str) -> None:
        await both_looked.wait()

    async def claimed(name: str) -> str:
        cluster = Failpoints(admin.cluster)
        cluster.after_not_found = wait
        return await namespace_leases(admin, clock, name, cluster).holder(admin.namespace)

    holders = await asyncio.gather(claimed("a"), claimed("b"))
    assert sorted(holders) in (["", "a/marketfeed-operator"], ["", "b/marketfeed-operator"])


async def test_namespace_lease_stops_reporting_an_operator_that_is_removed(admin: Admin):
    clock = Clock()
    first, second = namespace_leases(admin, clock, "a"), namespace_leases(admin, clock, "b")
    await first.holder(admin.namespace)
    await second.holder(admin.namespace)
    await first.renew_all({admin.namespace})
    assert first.others() == ["b/marketfeed-operator"]
    clock.seconds += DURATION_SECONDS + 1
    assert first.others() == []


async def test_namespace_lease_with_invalid_content_is_handled(admin: Admin):
    clock = Clock()
    body = {
        "apiVersion": LEASES.api_version, "kind": LEASES.kind,
        "metadata": {
            "name": NAME, "namespace": admin.namespace, "annotations": {"marketfeed.dev/other-operator": "\x1b[31m"},
        },
        "spec": {"holderIdentity": "\x1b]0;x\x07"},
    }  # fmt: skip
    await admin.cluster.apply(LEASES, body, manager="mallory")
    held = namespace_leases(admin, clock, "a")
    assert (await held.holder(admin.namespace)).isprintable()
    assert all(name.isprintable() for name in held.others())
    clock.seconds += DURATION_SECONDS + 1
    await held.renew_all({admin.namespace})
    assert await held.holder(admin.namespace) == ""


def election(
    admin: Admin, clock: Clock, name: str, cluster: Cluster | None = None, serves: str = ""
) -> LeaderElection:
    return LeaderElection(
        cluster or admin.cluster, namespace=admin.namespace, name="elected", identity=name, lease_seconds=15,
        retry_seconds=0.01, serves=serves, now=clock,
    )  # fmt: skip


async def test_leader_election_uses_the_local_clock(admin: Admin):
    clock = Clock()
    first, second = election(admin, clock, "first"), election(admin, clock, "second")
    await first.acquire()
    assert await second._try_acquire_or_renew() == "first"
    clock.seconds += 14
    assert await second._try_acquire_or_renew() == "first", "its duration has not passed"
    assert await first._try_acquire_or_renew() == "first"
    clock.seconds += 14
    assert await second._try_acquire_or_renew() == "first", "it was renewed meanwhile"
    clock.seconds += 15
    assert await second._try_acquire_or_renew() == "second"
    assert await first._try_acquire_or_renew() == "second"
    assert not first.leading


async def test_leader_stops_before_another_may_start(admin: Admin):
    clock = Clock()
    first = election(admin, clock, "first")
    await first.acquire()
    path = LEASES.path(admin.namespace, "elected")

    async def lease_is_lost() -> None:
        """Another process holds the Lease from now on, as after a network partition."""
        await admin.cluster.merge(path, {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 15}})

    holding = asyncio.create_task(first.hold())
    await lease_is_lost()
    await asyncio.wait_for(holding, 60)
    assert not first.leading


async def test_leader_that_cannot_renew_stops_before_its_lease_expires(admin: Admin):
    clock, cluster = Clock(), Failpoints(admin.cluster)
    first, second = election(admin, clock, "first", cluster), election(admin, clock, "second")
    await first.acquire()
    assert await second._try_acquire_or_renew() == "first"
    acquired = clock.seconds

    def a_second_without_an_answer() -> None:
        clock.seconds += 1
        raise Unavailable(0, "network partition")

    cluster.before_get = a_second_without_an_answer
    await asyncio.wait_for(first.hold(), 60)
    assert not first.leading
    assert clock.seconds - acquired == 10, "two thirds of the lease duration"
    assert await second._try_acquire_or_renew() == "first", "no other leader yet"


async def test_leader_of_another_installation_is_detected_by_its_scope(admin: Admin):
    clock = Clock()
    first = election(admin, clock, "first", serves="a")
    spare = election(admin, clock, "spare", serves="a")
    second = election(admin, clock, "second", serves="b")
    await first.acquire()
    assert await spare._try_acquire_or_renew() == await second._try_acquire_or_renew() == "first"
    assert (first.misplaced, spare.misplaced, second.misplaced) == ("", "", "a")
    await first.release()
    assert await second._try_acquire_or_renew() == "second"
    assert second.misplaced == ""
    assert await spare._try_acquire_or_renew() == "second"
    assert spare.misplaced == "b"


async def test_leader_acquires_an_empty_lease(admin: Admin):
    body = {
        "apiVersion": LEASES.api_version, "kind": LEASES.kind,
        "metadata": {"name": "elected", "namespace": admin.namespace},
    }  # fmt: skip
    await admin.cluster.apply(LEASES, body, manager="mallory")
    first = election(admin, Clock(), "first")
    await asyncio.wait_for(first.acquire(), 60)
    await first.release()
    assert not first.leading


async def test_leader_releases_only_its_own_lease(admin: Admin):
    clock = Clock()
    first, second = election(admin, clock, "first"), election(admin, clock, "second")
    await first.acquire()
    await second.release()
    lease = await admin.cluster.get(LEASES.path(admin.namespace, "elected"))
    assert lease["spec"]["holderIdentity"] == "first"
    await first.release()
    assert await second._try_acquire_or_renew() == "second", "at once, without waiting for the duration"


async def test_namespace_lease_makes_two_operators_report_each_other_and_one_serve(
    admin: Admin, start_operator
):
    await home_in(admin.cluster, admin.namespace)
    first = start_operator(WORKER_IMAGE="first:1", NAMESPACE_LEASE_SECONDS="0.5")
    await admin.feed("contested", symbols=["AA"])
    deployment = await eventually(lambda: admin.get("Deployment", "contested-shard-0"))
    second = start_operator(
        WORKER_IMAGE="second:1", OPERATOR_NAMESPACE=admin.namespace, NAMESPACE_LEASE_SECONDS="0.5"
    )
    await asyncio.to_thread(second.await_log, "namespace served by another operator")

    async def reported():
        found = await admin.condition("contested", "Degraded")
        assert found["reason"] == "SeveralOperators", found
        return found

    assert f"{admin.namespace}/marketfeed-operator" in (await eventually(reported))["message"]

    def others(operator) -> list[str]:
        with urllib.request.urlopen(operator.url("/status"), timeout=30) as answer:  # noqa: S310 - our own
            return list(json.load(answer)["otherOperators"])

    assert await asyncio.to_thread(others, first) == [f"{admin.namespace}/marketfeed-operator"]
    assert await asyncio.to_thread(others, second) == [f"{SYSTEM}/marketfeed-operator"]
    after = await admin.get("Deployment", "contested-shard-0")
    assert after is not None
    assert after["metadata"]["generation"] == deployment["metadata"]["generation"], "they correct each other"
    assert after["spec"]["template"]["spec"]["containers"][0]["image"] == "first:1"
    assert await asyncio.to_thread(second.stop) == 0
    assert await asyncio.to_thread(first.stop) == 0
