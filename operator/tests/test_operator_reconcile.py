"""Reconciliation on the API server, within the test process: failed passes and passes that are not permitted."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from operator_failpoints import Failpoints
from operator_support import KINDS, Admin, Clock
from prometheus_client import CollectorRegistry

from marketfeed_operator.apply import Applier
from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.desired import Defaults
from marketfeed_operator.engine.audit import Audit
from marketfeed_operator.engine.listings import Listings
from marketfeed_operator.engine.loops import LoopRunner
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.namespace_leases import NamespaceLeases
from marketfeed_operator.engine.queue import WorkQueue
from marketfeed_operator.engine.refusals import Refusals
from marketfeed_operator.engine.reports import Reports
from marketfeed_operator.engine.scopes import Scopes
from marketfeed_operator.facts import feed_facts
from marketfeed_operator.kinds import KAFKA_TOPIC, NETWORK_POLICY
from marketfeed_operator.observe import Observer
from marketfeed_operator.observed import Key
from marketfeed_operator.policy import Policy
from marketfeed_operator.reconcile import Done, Reconciler
from marketfeed_operator.status_writer import StatusWriter
from marketfeed_operator.store import Store

pytestmark = pytest.mark.integration


class Passes:
    """Reconciles one feed after the other, without watches: each pass gets what is stored."""

    def __init__(self, cluster: Failpoints, policy: Policy) -> None:
        self._cluster = cluster
        self._store = store = Store()
        metrics = Metrics(CollectorRegistry())
        queue = WorkQueue[Key](now=Clock(), chance=random.Random(1))  # noqa: S311 - delays that nothing waits for
        scopes = Scopes((), metrics)
        self.audit = Audit(cluster, store, metrics, scopes, queue.add)
        namespace_leases = NamespaceLeases(cluster, metrics, "here/marketfeed-operator", now=Clock())
        observer = Observer(
            store, Reports(store, metrics, port=1, changed=queue.add), Listings(queue.add, metrics), self.audit, None,
            Refusals(cluster, store, queue.add), LoopRunner(metrics), scopes, namespace_leases,
        )  # fmt: skip
        self._reconciler = Reconciler(
            store, observer, Applier(cluster, store, metrics, now=Clock()), StatusWriter(cluster, store, metrics, "t"),
            metrics, Defaults("worker:1", "consumer:1"), policy, namespace_leases, now=lambda: datetime.now(UTC),
        )  # fmt: skip

    async def reconcile(self, stored: dict[str, Any]) -> Done | None:
        metadata = stored["metadata"]
        path = FEEDS.path(metadata["namespace"], metadata["name"])
        self._store.put_feed(feed_facts(await self._cluster.get(path)))
        return await self._reconciler.reconcile((metadata["namespace"], metadata["name"]))


async def reported(admin: Admin, name: str) -> dict[str, tuple[str, str]]:
    found = [await admin.condition(name, kind) for kind in ("Ready", "Degraded")]
    return {each["type"]: (each["status"], each["reason"]) for each in found}


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), RecursionError("y"), KeyError("z"), MemoryError()])
async def test_reconcile_internal_error_is_a_condition_of_its_feed_only_until_resolved(admin: Admin, error):
    cluster = Failpoints(admin.cluster)
    passes = Passes(cluster, Policy())
    faulty, sound = [await admin.feed(name, symbols=["AA"]) for name in ("faulty", "sound")]

    def fail() -> None:
        raise error

    cluster.before_apply = fail
    done = await passes.reconcile(faulty)
    assert done is not None
    assert done.failure.startswith(type(error).__name__)
    cluster.before_apply = None
    await passes.reconcile(sound)
    assert (await reported(admin, "faulty")) == {
        "Ready": ("False", "ReconcileFailed"), "Degraded": ("True", "ReconcileFailed"),
    }  # fmt: skip
    assert (await reported(admin, "sound"))["Degraded"] == ("False", "AsExpected")
    done = await passes.reconcile(faulty)
    assert done is not None
    assert not done.failure
    assert (await reported(admin, "faulty"))["Degraded"] == ("False", "AsExpected")


async def test_policy_topics_in_another_namespace_are_declared_only_when_allowed(admin: Admin, neighbours):
    other = f"{admin.namespace}-kafka"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}}
    await admin.cluster.apply(KINDS["Namespace"], namespace, manager="tests")
    kafka = {"cluster": {"name": "prod", "namespace": other}, "manageTopics": True}
    stored = await admin.feed("crosses", symbols=["AA"], kafka=kafka)
    for allowed in ((), (other,)):
        passes = Passes(Failpoints(admin.cluster), Policy(topic_namespaces=allowed))
        await passes.audit.learn_kinds()
        await passes.reconcile(stored)
        ready = await admin.condition("crosses", "Ready")
        topics = await admin.cluster.list_all(KAFKA_TOPIC, other, "")
        policies = await admin.cluster.list_all(NETWORK_POLICY, admin.namespace, "")
        if allowed:
            assert (len(topics), len(policies)) == (5, 1)
            assert ready["reason"] == "ShardsNotReady", ready
        else:
            assert (ready["status"], ready["reason"]) == ("False", "NotPermitted"), ready
            assert "TOPIC_NAMESPACES" in ready["message"]
            assert (topics, policies) == ([], [])
    await admin.cluster._request("delete", KINDS["Namespace"].path(None, other))
