"""Ownership: objects that a feed did not create are never changed, for children of every kind and any creator."""

import copy
from typing import Any

import pytest
from operator_support import KINDS, Admin, eventually

from marketfeed_operator.api import Spec, parse
from marketfeed_operator.assign import ShardAssignment
from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.desired import Child, Defaults, Feed, desired
from marketfeed_operator.kinds import KAFKA_TOPIC, OPTIONAL, SERVICE_ACCOUNT
from marketfeed_operator.names import API_VERSION, FIELD_MANAGER, KIND
from marketfeed_operator.observed import ChildFacts, Observed
from marketfeed_operator.plan import obsolete, plan

SPEC = {
    "venue": "binance_us", "symbols": ["AA"],
    "kafka": {"cluster": {"name": "market"}, "manageTopics": True},
    "storage": {"engine": "postgresql", "dsnSecretName": "database", "retention": {"tradesDays": 7}},
    "consumers": {"trades": {"autoscaling": {"maxReplicas": 3}}},
}  # fmt: skip
NAME = "desired"


@pytest.fixture(scope="module")
def operator(start_operator, pod_port):
    return start_operator(POD_METRICS_PORT=str(pod_port), RESYNC_SECONDS="1")


def children(namespace: str, uid: str) -> list[Child]:
    spec = parse(SPEC)
    assert isinstance(spec, Spec)
    feed = Feed(namespace, NAME, uid, 1, spec, Defaults("worker:1", "consumer:1"))
    shards = {0: ShardAssignment(frozenset({"AA"}), frozenset())}
    return desired(feed, shards, {kind.kind for kind in OPTIONAL})


async def other_feed(admin: Admin) -> dict[str, Any]:
    """Return an existing feed without children."""
    return await admin.feed("other", symbols=["AA"], paused=True)


def plain(body: dict[str, Any]) -> None:
    del body["metadata"]["labels"]


def of_helm(body: dict[str, Any]) -> None:
    body["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
    body["metadata"]["annotations"] = {
        "meta.helm.sh/release-name": "payments", "meta.helm.sh/release-namespace": "shop",
    }  # fmt: skip


def of_the_installation(body: dict[str, Any]) -> None:
    of_helm(body)
    body["metadata"]["labels"] |= {
        "app.kubernetes.io/name": "marketfeed", "app.kubernetes.io/component": "operator",
    }  # fmt: skip


def forged(_: dict[str, Any]) -> None:
    """With all labels of ours."""


MAKERS = {
    "kubectl": (plain, "kubectl-create", "field manager kubectl-create"),
    "Helm": (of_helm, "helm", "Helm release shop/payments"),
    "the operator's installation": (of_the_installation, "helm", "Helm release shop/payments"),
    "forged labels": (forged, "kubectl-create", "field manager kubectl-create"),
    "another feed": (forged, FIELD_MANAGER, "MarketFeed other (uid"),
}


def essence(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that only the creator may change, without those of controllers."""
    metadata = stored["metadata"]
    return {
        "uid": metadata["uid"], "labels": metadata.get("labels"), "owners": metadata.get("ownerReferences"),
        "generation": metadata.get("generation"), "deleted": metadata.get("deletionTimestamp"),
        "spec": stored.get("spec"), "data": stored.get("data"),
        "automount": stored.get("automountServiceAccountToken"),
        "managers": {each["manager"] for each in metadata["managedFields"]} - {"kube-controller-manager"},
    }  # fmt: skip


@pytest.mark.integration
async def test_ownership_service_account_of_the_feeds_name_is_not_changed(admin: Admin, operator):
    for name in ("default", "payments"):
        account = {
            "apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": True,
            "metadata": {"name": name, "namespace": admin.namespace, "annotations": {"example.com/role": "x"}},
        }  # fmt: skip
        await admin.cluster.apply(SERVICE_ACCOUNT, account, manager="platform-team")
        await admin.feed(name, symbols=["AA"])
        deployment = await eventually(lambda name=name: admin.get("Deployment", f"{name}-shard-0"))
        assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == f"{name}-pods"
        await admin.delete("MarketFeed", name)

        async def gone(name=name):
            return await admin.get("ServiceAccount", f"{name}-pods") is None

        await eventually(gone)
        found = await admin.get("ServiceAccount", name)
        assert found is not None
        assert found["automountServiceAccountToken"] is True
        assert "ownerReferences" not in found["metadata"]


WORKLOADS = ("Deployment", "Job", "CronJob", "StatefulSet")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("maker", "only"),
    [*((maker, ()) for maker in MAKERS), ("kubectl", WORKLOADS), ("another feed", WORKLOADS)],
)
async def test_name_conflict_of_every_kind_of_child_is_reported_and_changes_nothing(
    admin: Admin, operator, neighbours, maker, only
):
    marked, manager, owner = MAKERS[maker]
    other = await other_feed(admin)
    there = []
    for child in children(admin.namespace, "unused"):
        if only and child.kind.kind not in only:
            continue
        body = copy.deepcopy(child.body)
        assert body is not None
        body["metadata"].pop("ownerReferences", None)
        body["metadata"].pop("annotations", None)
        marked(body)
        if maker == "another feed":
            if child.kind is KAFKA_TOPIC:
                continue  # feeds share topics: the first to declare one keeps it
            body["metadata"]["labels"]["marketfeed.dev/feed"] = "other"
            body["metadata"]["ownerReferences"] = [{
                "apiVersion": API_VERSION, "kind": KIND, "name": "other", "uid": other["metadata"]["uid"],
                "controller": True, "blockOwnerDeletion": True,
            }]  # fmt: skip
            await admin.cluster.apply(child.kind, body)
        else:
            await admin.cluster._request(
                "post", child.kind.path(admin.namespace), body=body, field_manager=manager
            )
        there.append(child)
    before = {child.key: essence(await admin.cluster.get(child.kind.path(*child.key[1:]))) for child in there}
    body = {
        "apiVersion": FEEDS.api_version, "kind": FEEDS.kind,
        "metadata": {"name": NAME, "namespace": admin.namespace}, "spec": SPEC,
    }  # fmt: skip
    await admin.cluster.apply(FEEDS, body, manager="tests")

    async def reported():
        found = await admin.condition(NAME, "Degraded")
        assert found["reason"] == "NameConflict", found
        # Workloads wait for their own account, policies and files, consumers for their own migration: their names were
        # not checked yet.
        waiting = sum(1 for child in there if child.kind.kind in (only[-1:] or WORKLOADS))
        assert f"(and {len(there) - waiting - 1} more)" in found["message"], found
        return found

    said = (await eventually(reported, seconds=20))["message"]
    # Controllers may have written to a workload by now, and are named beside its maker.
    assert owner in said or (manager != FIELD_MANAGER and only and manager in said), said
    ready = await admin.condition(NAME, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NameConflict" if only else "NotIsolated")
    stored = (await admin.get("MarketFeed", NAME))["status"]
    assert "observedGeneration" not in stored, "this generation was not applied"
    await admin.delete("MarketFeed", NAME)

    async def gone():
        return await admin.get("MarketFeed", NAME) is None

    await eventually(gone)
    looked = operator.total("marketfeed_operator_audit_corrections_total")
    await admin.feed("passes", symbols=["AA"])
    await eventually(lambda: admin.get("ConfigMap", "passes-shard-0"))  # so the deletion was seen, too
    after = {child.key: essence(await admin.cluster.get(child.kind.path(*child.key[1:]))) for child in there}
    assert after == before, looked


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("NetworkPolicy", "waits-ingestion", "NotIsolated"), ("ServiceAccount", "waits-pods", "NameConflict"),
        ("ConfigMap", "waits-shard-0", "NameConflict"),
    ],
)  # fmt: skip
async def test_name_conflict_of_objects_that_pods_depend_on_blocks_their_workloads(
    admin: Admin, operator, kind, name, reason
):
    content = {"NetworkPolicy": {"spec": {"podSelector": {}}}}.get(kind, {})
    version = KINDS[kind].api_version
    foreign = {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": admin.namespace},
        **content,
    }
    await admin.cluster.apply(KINDS[kind], foreign, manager="platform-team")
    await admin.feed("waits", symbols=["AA"])

    async def reported():
        ready, degraded = [await admin.condition("waits", each) for each in ("Ready", "Degraded")]
        assert (ready["status"], ready["reason"]) == ("False", reason), ready
        assert degraded["reason"] == "NameConflict", degraded
        return ready

    ready = await eventually(reported)
    if kind == "NetworkPolicy":
        assert "ingestion: until they are, no workload of these is created" in ready["message"], ready
    assert await admin.names("PodDisruptionBudget") == ["waits-ingestion"], "everything else is created"
    assert await admin.names("Deployment") == []
    await admin.delete(kind, name)
    await eventually(lambda: admin.get("Deployment", "waits-shard-0"))


@pytest.mark.integration
async def test_network_policy_lost_keeps_workloads_unchanged_and_the_feed_not_ready(
    admin: Admin, operator, nodes
):
    await admin.feed("lost", symbols=["AA"])

    async def ready():
        found = await admin.condition("lost", "Ready")
        assert found["status"] == "True", found
        return True

    await eventually(ready)
    before = await admin.get("Deployment", "lost-shard-0")
    assert before is not None
    # No moment at which the name is free: the operator would be faster.
    path = KINDS["NetworkPolicy"].path(admin.namespace, "lost-ingestion")
    stored = await admin.cluster.get(path)
    metadata = {"ownerReferences": None, "resourceVersion": stored["metadata"]["resourceVersion"]}
    await admin.cluster._request(
        "patch", path, body={"metadata": {**metadata, "managedFields": [{}]}},
        content_type="application/merge-patch+json", field_manager="platform-team",
    )  # fmt: skip

    async def not_isolated():
        found = await admin.condition("lost", "Ready")
        assert (found["status"], found["reason"]) == ("False", "NotIsolated"), found
        return True

    await eventually(not_isolated)
    await admin.feed("lost", symbols=["AA"], logging={"level": "DEBUG"})
    await eventually(not_isolated)
    after = await admin.get("Deployment", "lost-shard-0")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    await admin.delete("NetworkPolicy", "lost-ingestion")
    await eventually(ready)


@pytest.mark.integration
async def test_ownership_renamed_children_are_removed_by_uid_and_lookalikes_stay(admin: Admin, operator):
    feed = await admin.feed("renamed", symbols=["AA"])
    made = await eventually(lambda: admin.get("ServiceAccount", "renamed-pods"))
    old = {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {
            "name": "renamed", "namespace": admin.namespace, "labels": made["metadata"]["labels"],
            "ownerReferences": made["metadata"]["ownerReferences"],
        },
    }  # fmt: skip
    lookalike = copy.deepcopy(old)
    lookalike["metadata"]["name"] = "lookalike"
    assert made["metadata"]["ownerReferences"][0]["uid"] == feed["metadata"]["uid"]
    await admin.cluster.apply(SERVICE_ACCOUNT, lookalike, manager="somebody")
    await admin.cluster.apply(SERVICE_ACCOUNT, old)  # as created by an operator of the previous release

    async def removed():
        return await admin.get("ServiceAccount", "renamed") is None

    await eventually(removed)
    assert await admin.get("ServiceAccount", "lookalike")


@pytest.mark.integration
async def test_adoption_of_orphans_by_the_feed_created_again(admin: Admin, operator):
    await admin.feed("orphaned", symbols=["AA"])
    before = await eventually(lambda: admin.get("Deployment", "orphaned-shard-0"))
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}
    await admin.cluster._request("delete", FEEDS.path(admin.namespace, "orphaned"), body=body)

    async def gone():
        return await admin.get("MarketFeed", "orphaned") is None

    await eventually(gone)
    again = await admin.feed("orphaned", symbols=["AA"])

    async def adopted():
        found = await admin.get("Deployment", "orphaned-shard-0")
        owners = [owner["uid"] for owner in found["metadata"].get("ownerReferences", [])]
        return found if owners == [again["metadata"]["uid"]] else None

    assert (await eventually(adopted))["metadata"]["uid"] == before["metadata"]["uid"]


def facts(kind: str, name: str, **changes: Any) -> ChildFacts:
    return ChildFacts(
        (kind, "ns", name), ("ns", NAME), name, "1", "d", **{"ours": True, "owner": "uid", **changes}
    )


def test_obsolete_children_have_the_feeds_uid_and_our_field_manager():
    mine, orphan = facts("ConfigMap", "mine"), facts("ConfigMap", "orphan", owner="")
    others = [facts("ConfigMap", "foreign", owner="else"), facts("ConfigMap", "forged", ours=False)]
    observed = Observed(children={each.key: each for each in (mine, orphan, *others)})
    assert obsolete((), observed, "uid") == [mine.key, orphan.key]


def test_obsolete_service_account_is_kept_while_a_workload_uses_it():
    account, deployment = facts("ServiceAccount", "old"), facts("Deployment", "a", account="old")
    observed = Observed(children={each.key: each for each in (account, deployment)})
    assert account.key not in obsolete((), observed, "uid")
    observed = Observed(children={account.key: account})
    assert account.key in obsolete((), observed, "uid")


@pytest.mark.parametrize(
    ("older", "held"), [({}, True), ({"owner": "else"}, False), ({"ours": False}, False)]
)
def test_renamed_consumers_wait_for_the_deletion_of_the_old_ones(older, held):
    spec = parse({**SPEC, "consumers": {}})
    assert isinstance(spec, Spec)
    feed = Feed("ns", NAME, "uid", 1, spec, Defaults("w", "c"))
    before = plan(feed, Observed())
    assert before is not None
    job = facts("Job", before.job, job="Succeeded", desired_hash="")
    old = facts("StatefulSet", "old-name", component="consumer-trades", **older)
    planned = plan(feed, Observed(children={each.key: each for each in (job, old)}))
    assert planned is not None
    sets = {child.name: child.body is None for child in planned.children if child.kind.kind == "StatefulSet"}
    assert sets == {f"{NAME}-consumer-trades": held, f"{NAME}-consumer-book": False}
