"""Apply: created, adopted and released objects; racing creators, and a pass that ends between two requests."""

import asyncio
import copy
from dataclasses import replace
from typing import Any

import pytest
from operator_failpoints import Failpoints
from operator_support import KINDS, Admin, Clock, eventually
from prometheus_client import CollectorRegistry

from marketfeed_operator.api import Spec, parse
from marketfeed_operator.apply import DELETION_SECONDS, Applier
from marketfeed_operator.assign import ShardAssignment
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.desired import Child, Defaults, Feed, desired
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import Conflict, NameConflict, Unavailable
from marketfeed_operator.kinds import DEPLOYMENT, KAFKA_TOPIC, OPTIONAL, SERVICE_ACCOUNT
from marketfeed_operator.names import CREATION_MANAGER, FEED, FIELD_MANAGER
from marketfeed_operator.observed import Observed
from marketfeed_operator.store import Store

pytestmark = pytest.mark.integration

SPEC: dict[str, Any] = {
    "venue": "binance_us", "symbols": ["AA"],
    "kafka": {"cluster": {"name": "market"}, "manageTopics": True},
    "storage": {"engine": "postgresql", "dsnSecretName": "database", "retention": {"tradesDays": 7}},
    "consumers": {"trades": {"autoscaling": {"maxReplicas": 3}}},
    "serviceAccount": {"annotations": {"example.com/role": "reader"}},
}  # fmt: skip


def applier(cluster: Cluster, clock: Clock | None = None) -> Applier:
    return Applier(cluster, Store(), Metrics(CollectorRegistry()), now=clock or Clock())


async def feed(admin: Admin, name: str = "desired", **changes: Any) -> tuple[str, list[Child]]:
    """Return the uid of a paused feed, and the children that it would have."""
    stored = await admin.feed(name, paused=True, symbols=["AA"])
    uid = stored["metadata"]["uid"]
    spec = parse({**SPEC, **changes})
    assert isinstance(spec, Spec), spec
    declared = Feed(admin.namespace, name, uid, 1, spec, Defaults("worker:1", "consumer:1"))
    shards = {0: ShardAssignment(frozenset({"AA"}), frozenset())}
    return uid, desired(declared, shards, {kind.kind for kind in OPTIONAL})


def one(children: list[Child], kind: Any) -> Child:
    return next(child for child in children if child.kind is kind)


async def stored(admin: Admin, child: Child) -> dict[str, Any]:
    return await admin.cluster.get(child.kind.path(child.namespace, child.name))


def managers(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the managers of fields outside of the status."""
    fields = body["metadata"]["managedFields"]
    return [(each["manager"], each["operation"]) for each in fields if not each.get("subresource")]


async def test_apply_creates_every_kind_of_child_owned_by_its_apply_only(admin: Admin, neighbours):
    uid, children = await feed(admin)
    applies = applier(admin.cluster)
    for child in children:
        assert (await applies.apply(child, Observed(), uid)).result == "created", child.key
        # A controller may have set an annotation by now.
        ours = [each for each in managers(await stored(admin, child)) if each[0].startswith(FIELD_MANAGER)]
        assert ours == [(FIELD_MANAGER, "Apply")], child.key
        found = applies._store.children_of((admin.namespace, "desired"))[child.key]
        assert found.ours
        assert found.owner == ("" if child.kind is KAFKA_TOPIC else uid)


async def test_text_of_any_script_is_applied_as_it_is(admin: Admin):
    """An annotation may hold whatever a JSON text may; an apply is YAML."""
    text = '\U0001f600 \U0010ffff é 深 \x7f\x85\u2028\ufeff\uffff \\ud83d\\ude00 "\\\n\t\x01 ${x} # : - {'
    template = {"annotations": {"example.com/text": text}}
    uid, children = await feed(
        admin, template=template, serviceAccount={"annotations": {"example.com/t": text}}
    )
    applies = applier(admin.cluster)
    for kind in (SERVICE_ACCOUNT, DEPLOYMENT):
        await applies.apply(one(children, kind), Observed(), uid)
    account = await stored(admin, one(children, SERVICE_ACCOUNT))
    assert account["metadata"]["annotations"]["example.com/t"] == text
    deployment = await stored(admin, one(children, DEPLOYMENT))
    assert deployment["spec"]["template"]["metadata"]["annotations"]["example.com/text"] == text
    assert (await applies.apply(one(children, DEPLOYMENT), Observed(), uid)).result == "noop"


async def test_apply_removes_a_dropped_field_even_when_the_creation_set_it(
    admin: Admin,
):
    uid, before = await feed(admin)
    _, after = await feed(admin, serviceAccount={})
    applies = applier(admin.cluster)
    await applies.apply(one(before, SERVICE_ACCOUNT), Observed(), uid)
    account = one(after, SERVICE_ACCOUNT)
    assert (await applies.apply(account, Observed(), uid)).result == "patched"
    assert "example.com/role" not in (await stored(admin, account))["metadata"]["annotations"]


async def test_apply_race_object_created_before_the_post_is_not_changed(admin: Admin, neighbours):
    """For every kind of child: nothing of it is changed, not even temporarily."""
    uid, children = await feed(admin)
    raced = Failpoints(admin.cluster)
    applies = applier(raced)
    for child in children:
        foreign = copy.deepcopy(child.body)
        assert foreign is not None
        for key in ("labels", "annotations", "ownerReferences"):
            foreign["metadata"].pop(key, None)

        async def create(_: str, child: Child = child, foreign: dict[str, Any] = foreign) -> None:
            await admin.cluster._request(
                "post", child.kind.path(admin.namespace), body=foreign, field_manager="kubectl-create"
            )

        raced.after_not_found = create
        with pytest.raises(Conflict, match="already exists"):
            await applies.apply(child, Observed(), uid)
        raced.after_not_found = None
        entries = (await stored(admin, child))["metadata"]["managedFields"]
        assert not [each for each in entries if each["manager"].startswith(FIELD_MANAGER)], child.key
        with pytest.raises(NameConflict, match=r"field manager .*kubectl-create"):
            await applies.apply(child, Observed(), uid)
        entries = (await stored(admin, child))["metadata"]["managedFields"]
        assert not [each for each in entries if each["manager"].startswith(FIELD_MANAGER)], child.key


async def test_apply_race_of_two_creators_leaves_one_object_and_a_conflict(admin: Admin):
    """A feed that was deleted and declared again, and two operators of which one has not seen it yet."""
    first_uid, first = await feed(admin)
    await admin.delete("MarketFeed", "desired")

    async def gone() -> bool:
        return await admin.get("MarketFeed", "desired") is None

    await eventually(gone)
    second_uid, second = await feed(admin)
    assert first_uid != second_uid
    both_looked = asyncio.Barrier(2)

    async def wait(_: str) -> None:
        await both_looked.wait()

    async def create(children: list[Child], uid: str) -> str:
        raced = Failpoints(admin.cluster)
        raced.after_not_found = wait
        try:
            return (await applier(raced).apply(one(children, SERVICE_ACCOUNT), Observed(), uid)).result
        except Conflict:
            return "conflict"

    results = await asyncio.gather(create(first, first_uid), create(second, second_uid))
    # What the first has created is garbage, as its feed is: collected before its apply, neither has created one.
    assert sorted(results) in (["conflict", "created"], ["conflict", "conflict"])


async def test_apply_interrupted_after_the_creation_is_completed_by_the_next_pass(admin: Admin):
    uid, children = await feed(admin)
    account = one(children, SERVICE_ACCOUNT)
    cut = Failpoints(admin.cluster)

    def ends() -> None:
        raise Unavailable(0, "the process ends here")

    cut.before_apply = ends
    with pytest.raises(Unavailable):
        await applier(cut).apply(account, Observed(), uid)
    assert managers(await stored(admin, account)) == [(CREATION_MANAGER, "Update")]
    assert (await applier(admin.cluster).apply(account, Observed(), uid)).result in ("patched", "noop")
    assert managers(await stored(admin, account)) == [(FIELD_MANAGER, "Apply")]


@pytest.mark.parametrize(
    "labels", [None, {FEED: "another"}, {FEED: "desired", "marketfeed.dev/feed-namespace": "elsewhere"}]
)
async def test_adoption_of_an_ownerless_object_requires_the_labels_of_the_feed(admin: Admin, labels):
    """Including objects applied under our field manager's name."""
    uid, children = await feed(admin)
    account = one(children, SERVICE_ACCOUNT)
    body = {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": account.name, "namespace": admin.namespace, "labels": labels or {}},
    }  # fmt: skip
    before = await admin.cluster.apply(SERVICE_ACCOUNT, body)
    with pytest.raises(NameConflict):
        await applier(admin.cluster).apply(account, Observed(), uid)
    assert await stored(admin, account) == before


async def test_apply_does_not_change_an_object_that_replaced_ours(admin: Admin):
    uid, children = await feed(admin)
    account = one(children, SERVICE_ACCOUNT)
    applies = applier(admin.cluster)
    await applies.apply(account, Observed(), uid)
    known = applies._store.children_of((admin.namespace, "desired"))
    await admin.delete("ServiceAccount", account.name)

    async def gone() -> bool:
        return await admin.get("ServiceAccount", account.name) is None

    await eventually(gone)
    body = {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": account.name, "namespace": admin.namespace},
    }  # fmt: skip
    before = await admin.cluster.apply(SERVICE_ACCOUNT, body, manager="somebody")
    _, changed = await feed(admin, serviceAccount={})
    with pytest.raises(Conflict):
        await applies.apply(one(changed, SERVICE_ACCOUNT), Observed(children=known), uid)
    assert await stored(admin, account) == before


async def test_recreation_waits_for_the_deletion_until_its_deadline_and_is_retried(admin: Admin):
    uid, children = await feed(admin)
    deployment = one(children, DEPLOYMENT)
    clock = Clock(step=DELETION_SECONDS / 3)
    applies = applier(admin.cluster, clock)
    await applies.apply(deployment, Observed(), uid)
    path = KINDS["Deployment"].path(admin.namespace, deployment.name)
    await admin.cluster.merge(path, {"metadata": {"finalizers": ["example.com/held"]}})
    body = copy.deepcopy(deployment.body)
    assert body is not None
    # A selector is immutable: the workload must be created again.
    body["spec"]["selector"]["matchLabels"]["team"] = body["spec"]["template"]["metadata"]["labels"][
        "team"
    ] = "x"
    body["metadata"]["annotations"]["marketfeed.dev/desired-hash"] = "another"
    try:
        with pytest.raises(Unavailable, match="is still being deleted"):
            await applies.apply(replace(deployment, body=body), Observed(), uid)
        assert clock.seconds - 1000 >= DELETION_SECONDS
    finally:
        await admin.cluster.merge(path, {"metadata": {"finalizers": None}})

    async def recreated() -> bool:
        outcome = await applies.apply(replace(deployment, body=body), Observed(), uid)
        return outcome.result in ("created", "recreated")

    await eventually(recreated)
    assert (await stored(admin, deployment))["spec"]["selector"]["matchLabels"]["team"] == "x"
