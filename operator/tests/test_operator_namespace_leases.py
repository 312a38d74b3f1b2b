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
from marketfeed_operator.engine.namespace_leases import DURATION_SECONDS, NAME, RENEW_SECONDS, Claims
from marketfeed_operator.errors import Unavailable

pytestmark = pytest.mark.integration


def claims(admin: Admin, clock: Clock, name: str, cluster: Cluster | None = None) -> Claims:
    return Claims(
        cluster or admin.cluster, Metrics(CollectorRegistry()), f"{name}/marketfeed-operator", now=clock
    )


async def test_claim_is_kept_by_who_renews_it_and_taken_over_when_nobody_does(admin: Admin):
    clock = Clock()
    first, second = claims(admin, clock, "a"), claims(admin, clock, "b")
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


async def test_claims_at_the_same_moment_have_one_winner_at_once(admin: Admin):
    """Both have seen that there is no Lease: the loser must not serve the namespace until its next attempt."""
    clock, both_looked = Clock(), asyncio.Barrier(2)

    async def wait(_: str) -> None:
        await both_looked.wait()

    async def claimed(name: str) -> str:
        cluster = Failpoints(admin.cluster)
        cluster.after_not_found = wait
        return await claims(admin, clock, name, cluster).holder(admin.namespace)

    holders = await asyncio.gather(claimed("a"), claimed("b"))
    assert sorted(holders) in (["", "a/marketfeed-operator"], ["", "b/marketfeed-operator"])


async def test_other_operator_that_is_gone_is_reported_no_longer(admin: Admin):
    clock = Clock()
    first, second = claims(admin, clock, "a"), claims(admin, clock, "b")
    await first.holder(admin.namespace)
    await second.holder(admin.namespace)
    await first.renew_all({admin.namespace})
    assert first.others() == ["b/marketfeed-operator"]
    clock.seconds += DURATION_SECONDS + 1
    assert first.others() == []


async def test_lease_of_nonsense_ends_nothing(admin: Admin):
    clock = Clock()
    body = {
        "apiVersion": LEASES.api_version, "kind": LEASES.kind,
        "metadata": {
            "name": NAME, "namespace": admin.namespace, "annotations": {"marketfeed.dev/other-operator": "\x1b[31m"},
        },
        "spec": {"holderIdentity": "\x1b]0;x\x07"},
    }  # fmt: skip
    await admin.cluster.apply(LEASES, body, manager="mallory")
    held = claims(admin, clock, "a")
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


async def test_leader_election_by_a_clock_of_its_own(admin: Admin):
    clock = Clock()
    first, second = election(admin, clock, "first"), election(admin, clock, "second")
    await first.acquire()
    assert await second._try() == "first"
    clock.seconds += 14
    assert await second._try() == "first", "its duration has not passed"
    assert await first._try() == "first"
    clock.seconds += 14
    assert await second._try() == "first", "it was renewed meanwhile"
    clock.seconds += 15
    assert await second._try() == "second"
    assert await first._try() == "second"
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


async def test_leader_that_cannot_renew_stops_while_the_lease_is_still_its_own(admin: Admin):
    clock, cluster = Clock(), Failpoints(admin.cluster)
    first, second = election(admin, clock, "first", cluster), election(admin, clock, "second")
    await first.acquire()
    assert await second._try() == "first"
    acquired = clock.seconds

    def a_second_without_an_answer() -> None:
        clock.seconds += 1
        raise Unavailable(0, "network partition")

    cluster.before_get = a_second_without_an_answer
    await asyncio.wait_for(first.hold(), 60)
    assert not first.leading
    assert clock.seconds - acquired == 10, "two thirds of the lease duration"
    assert await second._try() == "first", "no other leader yet"


async def test_leader_of_another_installation_in_the_namespace_is_told_by_what_it_serves(admin: Admin):
    clock = Clock()
    first = election(admin, clock, "first", serves="a")
    spare = election(admin, clock, "spare", serves="a")
    second = election(admin, clock, "second", serves="b")
    await first.acquire()
    assert await spare._try() == await second._try() == "first"
    assert (first.misplaced, spare.misplaced, second.misplaced) == ("", "", "a")
    await first.release()
    assert await second._try() == "second"
    assert second.misplaced == ""
    assert await spare._try() == "second"
    assert spare.misplaced == "b"


async def test_leader_takes_a_lease_that_says_nothing(admin: Admin):
    body = {
        "apiVersion": LEASES.api_version, "kind": LEASES.kind,
        "metadata": {"name": "elected", "namespace": admin.namespace},
    }  # fmt: skip
    await admin.cluster.apply(LEASES, body, manager="mallory")
    first = election(admin, Clock(), "first")
    await asyncio.wait_for(first.acquire(), 60)
    await first.release()
    assert not first.leading


async def test_leader_releases_only_what_it_holds(admin: Admin):
    clock = Clock()
    first, second = election(admin, clock, "first"), election(admin, clock, "second")
    await first.acquire()
    await second.release()
    lease = await admin.cluster.get(LEASES.path(admin.namespace, "elected"))
    assert lease["spec"]["holderIdentity"] == "first"
    await first.release()
    assert await second._try() == "second", "at once, without waiting for the duration"


async def test_two_operators_detect_one_another_and_one_stands_aside(admin: Admin, start_operator):
    await home_in(admin.cluster, admin.namespace)
    first = start_operator(WORKER_IMAGE="first:1", CLAIM_SECONDS="0.5")
    await admin.feed("contested", symbols=["AA"])
    deployment = await eventually(lambda: admin.get("Deployment", "contested-shard-0"))
    second = start_operator(WORKER_IMAGE="second:1", OPERATOR_NAMESPACE=admin.namespace, CLAIM_SECONDS="0.5")
    await asyncio.to_thread(second.await_log, "namespace served by another operator")

    async def told():
        found = await admin.condition("contested", "Degraded")
        assert found["reason"] == "SeveralOperators", found
        return found

    assert f"{admin.namespace}/marketfeed-operator" in (await eventually(told))["message"]

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
