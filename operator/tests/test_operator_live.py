"""The operator on a real API server, with its own ServiceAccount: create, edit, drift, pause, move, delete."""

import asyncio
import collections
import json

import pytest
from operator_support import KINDS, Admin, Operator, eventually

from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.desired import stored_assignment
from marketfeed_operator.kinds import CONFIG_MAP, DEPLOYMENT, POD, STATEFUL_SET
from marketfeed_operator.names import MAX_FEED_NAME
from marketfeed_wire.assignment import FILE_NAME

pytestmark = pytest.mark.integration

STORAGE = {"engine": "postgresql", "dsnSecretName": "database"}


@pytest.fixture(scope="module")
def operator(start_operator, pod_port) -> Operator:
    return start_operator(POD_METRICS_PORT=str(pod_port), RESYNC_SECONDS="1")


async def read_by(admin: Admin, feed: str) -> dict[str, set[str]]:
    found = await admin.cluster.list_all(CONFIG_MAP, admin.namespace, f"marketfeed.dev/feed={feed}")
    return {body["metadata"]["name"]: set(stored_assignment(body["data"]).symbols) for body in found}


def await_condition(admin: Admin, feed: str, kind: str, status: str, reason: str = ""):
    async def check():
        found = await admin.condition(feed, kind)
        assert found["status"] == status, found
        assert not reason or found["reason"] == reason, found
        return found

    return eventually(check)


async def test_feed_gets_children_becomes_ready_and_is_deleted_with_them(admin: Admin, nodes, operator):
    await admin.feed(
        "full", symbols=["BTCUSDT", "ETHUSDT", "SOLUSDT"], shardSize=2, storage=STORAGE,
        consumers={"trades": {"replicas": 2}},
    )  # fmt: skip
    ready = await await_condition(admin, "full", "Ready", "True")
    assert ready["reason"] == "AllReady"
    assert await admin.names("Deployment") == ["full-shard-0", "full-shard-1"]
    assert await admin.names("StatefulSet") == ["full-consumer-book", "full-consumer-trades"]
    assert len(await admin.names("Job")) == 1
    consumers = ["full-consumer-book", "full-consumer-trades"]
    assert await admin.names("NetworkPolicy") == [*consumers, "full-ingestion", "full-migration"]
    assert await admin.names("PodDisruptionBudget") == [*consumers, "full-ingestion"]
    assert await read_by(admin, "full") == {
        "full-shard-0": {"BTCUSDT", "ETHUSDT"},
        "full-shard-1": {"SOLUSDT"},
    }

    async def reported():
        status = (await admin.get("MarketFeed", "full"))["status"]
        assert status["shards"]["ready"] == status["shards"]["updated"] == 2
        assert [item["applied"] == item["hash"] for item in status["shards"]["items"]] == [True, True]
        assert status["shards"]["items"][0].get("lastTradeTime") == "2026-09-21T14:13:00Z"
        assert status["consumers"].get("lag") == 30
        assert status["symbols"] == {"resolved": 3, "unknown": [], "unknownCount": 0}
        assert status["observedGeneration"] == 1
        return True

    await eventually(reported)
    account = await admin.get("ServiceAccount", "full-pods")
    assert account["automountServiceAccountToken"] is False
    feed = await admin.get("MarketFeed", "full")
    assert "finalizers" not in feed["metadata"]
    assert "annotations" not in feed["metadata"]

    await admin.delete("MarketFeed", "full")

    async def nothing_left():
        kinds = (
            "Deployment",
            "StatefulSet",
            "Job",
            "ConfigMap",
            "Service",
            "NetworkPolicy",
            "PodDisruptionBudget",
        )
        return not any([await admin.names(kind) for kind in (*kinds, "ServiceAccount", "Pod")])

    await eventually(nothing_left)


async def test_feed_with_the_longest_name_gets_pods_for_every_workload(admin: Admin, nodes, operator):
    """By Kubernetes' own controllers; what they derive from the names is in `test_operator_desired`."""
    name = "f" * (MAX_FEED_NAME - 1) + "9"
    await admin.feed(
        name, symbols=["BTCUSDT"], storage={**STORAGE, "retention": {"tradesDays": 7}},
        consumers={"trades": {"replicas": 2}},
    )  # fmt: skip
    await await_condition(admin, name, "Ready", "True")
    cron = await admin.get("CronJob", f"{name}-retain")
    run = {
        "apiVersion": "batch/v1", "kind": "Job", "spec": cron["spec"]["jobTemplate"]["spec"],
        "metadata": {
            "name": f"{name}-retain-2987654321", "namespace": admin.namespace,
            "labels": cron["spec"]["jobTemplate"]["metadata"]["labels"],
        },
    }  # fmt: skip
    await admin.cluster.create(KINDS["Job"].path(admin.namespace), run)

    async def pods():
        found = await admin.cluster.list_all(POD, admin.namespace, f"marketfeed.dev/feed={name}")
        by_component = collections.Counter(
            pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in found
        )
        assert by_component == {
            "ingestion": 1, "consumer-trades": 2, "consumer-book": 1, "migration": 1, "retention": 1,
        }  # fmt: skip
        return found

    for pod in await eventually(pods):
        metadata = pod["metadata"]
        assert len(pod["spec"].get("hostname") or metadata["name"]) <= 63, metadata["name"]
        assert max(len(value) for value in metadata["labels"].values()) <= 63


async def test_resync_writes_nothing(admin: Admin, nodes, operator):
    await admin.feed("still", symbols=["BTCUSDT", "ETHUSDT"], storage=STORAGE)
    await await_condition(admin, "still", "Ready", "True")
    await await_condition(admin, "still", "Progressing", "False")

    async def unchanged_for_three_resyncs():
        def counts():
            writes = sum(
                operator.total("marketfeed_operator_children_total", result=r) for r in ("created", "patched")
            )
            return writes, operator.total("marketfeed_operator_reconciles_total", result="success")

        version = (await admin.get("MarketFeed", "still"))["metadata"]["resourceVersion"]
        writes, reconciles = counts()

        async def three_more():
            return counts()[1] >= reconciles + 3

        await eventually(three_more)
        assert (await admin.get("MarketFeed", "still"))["metadata"]["resourceVersion"] == version
        assert counts()[0] == writes
        return True

    await eventually(unchanged_for_three_resyncs)


async def test_symbol_added_changes_one_file_and_restarts_no_pod(admin: Admin, nodes, operator):
    symbols = ["AAUSDT", "BBUSDT", "CCUSDT", "DDUSDT", "EEUSDT"]
    await admin.feed("sticky", symbols=symbols, shardSize=2)
    await await_condition(admin, "sticky", "Progressing", "False")
    files = await read_by(admin, "sticky")
    before = {name: (await admin.get("ConfigMap", name))["metadata"]["resourceVersion"] for name in files}
    pods = await admin.names("Pod")
    await admin.feed("sticky", symbols=["ABUSDT", *symbols], shardSize=2)

    async def arrived():
        return (await read_by(admin, "sticky"))["sticky-shard-2"] == {"EEUSDT", "ABUSDT"}

    await eventually(arrived)
    await await_condition(admin, "sticky", "Progressing", "False")
    after = {name: (await admin.get("ConfigMap", name))["metadata"]["resourceVersion"] for name in before}
    assert {name for name in before if before[name] != after[name]} == {"sticky-shard-2"}
    assert await admin.names("Pod") == pods


async def test_a_symbol_that_moves_is_released_only_when_its_new_shard_has_it_live(
    admin: Admin, nodes, operator
):
    await admin.feed("moving", symbols=["AA", "BB", "CC", "DD"], shardSize=4)
    await await_condition(admin, "moving", "Progressing", "False")
    (before,) = await admin.names("Pod")
    nodes.deaf.add("moving-shard-1")
    # It reads an old first file and no later one: as a worker that cannot reach the venue.
    nodes._applied["moving-shard-1"] = json.dumps({"symbols": [], "hash": "e3b0c44298fc1c14"})
    await admin.feed("moving", symbols=["AA", "BB", "CC", "DD"], shardSize=2)

    async def split():
        assert await read_by(admin, "moving") == {
            "moving-shard-0": {"AA", "BB", "CC", "DD"},
            "moving-shard-1": {"CC", "DD"},
        }
        return (await admin.get("MarketFeed", "moving"))["status"]["shards"]["movingSymbols"] == 2

    await eventually(split)
    moving = await await_condition(admin, "moving", "Progressing", "True")
    assert moving["reason"] in ("MovingSymbols", "RollingOut")
    assert before in await admin.names("Pod"), "the pods keep reading"
    nodes.deaf.clear()

    async def released():
        return await read_by(admin, "moving") == {
            "moving-shard-0": {"AA", "BB"},
            "moving-shard-1": {"CC", "DD"},
        }

    await eventually(released)
    await await_condition(admin, "moving", "Progressing", "False")


async def test_drift_is_corrected_and_counted(admin: Admin, nodes, operator):
    await admin.feed("drift", symbols=["BTCUSDT"])
    await await_condition(admin, "drift", "Progressing", "False")
    corrected = operator.total("marketfeed_operator_drift_corrected_total")
    path = DEPLOYMENT.path(admin.namespace, "drift-shard-0")
    await admin.cluster.merge(path, {"spec": {"replicas": 0}})

    async def replicas_back():
        return (await admin.get("Deployment", "drift-shard-0"))["spec"]["replicas"] == 1

    await eventually(replicas_back)
    await admin.cluster.merge(CONFIG_MAP.path(admin.namespace, "drift-shard-0"), {"data": {FILE_NAME: "{}"}})

    async def file_back():
        return await read_by(admin, "drift") == {"drift-shard-0": {"BTCUSDT"}}

    await eventually(file_back)
    for kind in ("ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "Deployment"):
        name = (await admin.names(kind))[0]
        await admin.delete(kind, name)

        async def there_again(kind=kind, name=name):
            return name in await admin.names(kind)

        await eventually(there_again)

    async def counted():
        return operator.total("marketfeed_operator_drift_corrected_total") >= corrected + 6

    await eventually(counted)


async def test_drift_excludes_fields_of_other_managers(admin: Admin, nodes, operator):
    await admin.feed("guest", symbols=["BTCUSDT"])
    await await_condition(admin, "guest", "Progressing", "False")
    path = DEPLOYMENT.path(admin.namespace, "guest-shard-0")
    await admin.cluster.merge(path, {"metadata": {"annotations": {"example.com/mark": "kept"}}})
    await admin.feed("guest", symbols=["BTCUSDT"], logging={"level": "DEBUG"})

    async def rolled():
        found = await admin.get("Deployment", "guest-shard-0")
        env = {
            each["name"]: each.get("value")
            for each in found["spec"]["template"]["spec"]["containers"][0]["env"]
        }
        return (
            env["LOG_LEVEL"] == "DEBUG" and found["metadata"]["annotations"].get("example.com/mark") == "kept"
        )

    await eventually(rolled)


async def test_paused_feed_is_not_changed_until_resumed(admin: Admin, nodes, operator):
    await admin.feed("pause", symbols=["AA"], shardSize=1)
    await await_condition(admin, "pause", "Ready", "True")
    await admin.feed("pause", symbols=["AA", "BB"], shardSize=1, paused=True)
    paused = await await_condition(admin, "pause", "Paused", "True")
    assert paused["reason"] == "SpecPaused"
    await admin.delete("Deployment", "pause-shard-0")

    async def seen_missing():
        return (await admin.condition("pause", "Ready"))["status"] == "False"

    await eventually(seen_missing)
    assert await admin.names("Deployment") == []
    assert await read_by(admin, "pause") == {"pause-shard-0": {"AA"}}
    await admin.feed("pause", symbols=["AA", "BB"], shardSize=1)
    await await_condition(admin, "pause", "Ready", "True")
    assert await read_by(admin, "pause") == {"pause-shard-0": {"AA"}, "pause-shard-1": {"BB"}}


async def test_migration_holds_consumers_and_its_failure_is_reported(admin: Admin, nodes, operator):
    nodes.failing_jobs = True
    await admin.feed("migrate", symbols=["AA"], storage=STORAGE)
    await await_condition(admin, "migrate", "Progressing", "True", "Migrating")
    assert await admin.names("StatefulSet") == []
    (job,) = await admin.names("Job")
    path = f"/apis/batch/v1/namespaces/{admin.namespace}/jobs/{job}"

    async def started():
        return (await admin.get("Job", job)).get("status", {}).get("startTime")

    await eventually(started)
    moment = "2026-01-01T00:00:00Z"
    failed = [
        {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": moment}
        for kind in ("FailureTarget", "Failed")
    ]
    body = {
        "status": {
            "conditions": failed,
            "active": 0,
            "terminating": 0,
            "ready": 0,
            "failed": 7,
        }
    }
    await admin.cluster.merge(f"{path}/status", body)
    degraded = await await_condition(admin, "migrate", "Degraded", "True", "MigrationFailed")
    assert job in degraded["message"]
    assert "delete the Job" in degraded["message"]
    nodes.failing_jobs = False
    await admin.delete("Job", job)
    await await_condition(admin, "migrate", "Ready", "True")
    assert await admin.names("StatefulSet") == ["migrate-consumer-book", "migrate-consumer-trades"]


async def test_rollout_of_a_bad_image_stops_at_a_few_shards_with_the_reason(admin: Admin, nodes, operator):
    symbols = [f"S{number}" for number in range(5)]
    feed = {"symbols": symbols, "shardSize": 1, "ingestion": {"maxUpdatingShards": 2}}
    await admin.feed("staged", **feed)
    await await_condition(admin, "staged", "Progressing", "False")
    nodes.broken.add("worker:broken")
    await admin.feed("staged", **feed, images={"worker": "worker:broken"})
    degraded = await await_condition(admin, "staged", "Degraded", "True", "PodsFailing")
    assert "ImagePullBackOff" in degraded["message"]
    waiting = await await_condition(admin, "staged", "Progressing", "True", "RollingOut")
    assert "3 shards are pending" in waiting["message"]

    async def images():
        found = await admin.cluster.list_all(DEPLOYMENT, admin.namespace, "marketfeed.dev/feed=staged")
        return sorted(body["spec"]["template"]["spec"]["containers"][0]["image"] for body in found)

    assert await images() == ["worker:1"] * 3 + ["worker:broken"] * 2
    ready = await admin.condition("staged", "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Applying"), "most shards run the previous version"
    stored = await admin.get("MarketFeed", "staged")
    assert stored["status"]["observedGeneration"] < stored["metadata"]["generation"]
    assert stored["status"]["shards"]["ready"] == 5, "the old pods keep running"
    await admin.feed("staged", **feed, images={"worker": "worker:2"})

    async def everywhere():
        return await images() == ["worker:2"] * 5

    await eventually(everywhere)


async def test_symbols_that_the_venue_does_not_trade_are_listed(admin: Admin, nodes, operator):
    await admin.feed("unknown", symbols=["BTCUSDT", "NOSUCH1", "NOSUCH2"])
    degraded = await await_condition(admin, "unknown", "Degraded", "True", "SymbolsUnknown")
    assert "NOSUCH1 (not listed), NOSUCH2 (not listed)" in degraded["message"]
    status = (await admin.get("MarketFeed", "unknown"))["status"]
    assert status["symbols"] == {"resolved": 3, "unknown": ["NOSUCH1", "NOSUCH2"], "unknownCount": 2}
    await await_condition(admin, "unknown", "Ready", "True")


async def test_events_are_created_once_per_transition(admin: Admin, nodes, operator):
    await admin.feed("events", symbols=["BTCUSDT"])
    await await_condition(admin, "events", "Ready", "True")
    await await_condition(admin, "events", "Progressing", "False")
    done = operator.total("marketfeed_operator_reconciles_total", result="success")

    async def resynced():
        return operator.total("marketfeed_operator_reconciles_total", result="success") >= done + 5

    await eventually(resynced)
    found = (await admin.cluster.get(f"/api/v1/namespaces/{admin.namespace}/events"))["items"]
    ours = [
        event["message"].split(":")[0] + " " + event["reason"]
        for event in found
        if event["involvedObject"]["kind"] == "MarketFeed"
    ]
    assert len(ours) == len(set(ours)), ours
    assert "Ready is True AllReady" in ours


async def test_recreation_for_an_immutable_field_keeps_the_pods(admin: Admin, nodes, operator):
    await admin.feed("immutable", symbols=["BTCUSDT"], storage=STORAGE, consumers={"trades": {}})
    await await_condition(admin, "immutable", "Ready", "True")
    name = "immutable-consumer-trades"
    await admin.feed("immutable", symbols=["BTCUSDT"], storage=STORAGE, consumers={"trades": {}}, paused=True)
    await await_condition(admin, "immutable", "Paused", "True")
    # Another StatefulSet of that name, as an older operator may have created it.
    old = await admin.get("StatefulSet", name)
    pod = (await admin.get("Pod", f"{name}-0"))["metadata"]["uid"]
    await admin.cluster.delete(STATEFUL_SET, admin.namespace, name, uid=old["metadata"]["uid"], orphan=True)

    async def gone():
        return await admin.get("StatefulSet", name) is None

    await eventually(gone)
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    body = {
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {key: old["metadata"][key] for key in kept},
        "spec": {**old["spec"], "podManagementPolicy": "OrderedReady"},
    }  # fmt: skip
    await admin.cluster.apply(STATEFUL_SET, body)
    await admin.feed("immutable", symbols=["BTCUSDT"], storage=STORAGE, consumers={"trades": {}})

    async def right():
        found = await admin.get("StatefulSet", name)
        return found is not None and found["spec"]["podManagementPolicy"] == "Parallel"

    await eventually(right)
    await await_condition(admin, "immutable", "Ready", "True")
    assert (await admin.get("Pod", f"{name}-0"))["metadata"]["uid"] == pod


@pytest.mark.parametrize(
    ("kind", "name"), [("Deployment", "mistaken-shard-0"), ("StatefulSet", "mistaken-consumer-trades")]
)
async def test_refusal_of_an_invalid_child_becomes_a_condition_and_workloads_stay(
    admin: Admin, nodes, operator, kind, name
):
    """Beyond the validation of the CRD: an annotation that the API server validates in a pod."""
    spec = {"symbols": ["BTCUSDT"], "storage": STORAGE}
    mistake = {"annotations": {"container.apparmor.security.beta.kubernetes.io/nobody": "x"}}
    await admin.feed("mistaken", **spec)
    await await_condition(admin, "mistaken", "Ready", "True")
    before = await admin.get(kind, name)
    await admin.feed("mistaken", **spec, template=mistake)
    degraded = await await_condition(admin, "mistaken", "Degraded", "True", "ApplyFailed")
    assert "container not found" in degraded["message"]
    after = await admin.get(kind, name)
    assert after is not None, f"{kind} {name} is deleted: its pods are not replaced"
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    await admin.feed("mistaken", **spec)
    await await_condition(admin, "mistaken", "Degraded", "False")


async def test_feed_in_foreground_deletion_gets_no_children(admin: Admin, nodes, operator):
    await admin.feed("leaving", symbols=["AA", "BB"], shardSize=1, storage=STORAGE)
    await await_condition(admin, "leaving", "Ready", "True")
    # A foreign finalizer keeps a child, and with it the feed, until the test has checked.
    held = CONFIG_MAP.path(admin.namespace, "leaving-shard-1")
    await admin.cluster.merge(held, {"metadata": {"finalizers": ["example.com/held"]}})
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    await admin.cluster._request("delete", FEEDS.path(admin.namespace, "leaving"), body=body)

    async def only_the_held_one():
        return await admin.names("Deployment") == [] and await read_by(admin, "leaving") == {
            "leaving-shard-1": {"BB"}
        }

    await eventually(only_the_held_one)
    done = operator.total("marketfeed_operator_reconciles_total", result="gone")
    await admin.cluster.merge(held, {"metadata": {"annotations": {"example.com/look": "again"}}})

    async def looked_again():
        return operator.total("marketfeed_operator_reconciles_total", result="gone") > done

    await eventually(looked_again)
    assert await only_the_held_one()
    await admin.cluster.merge(held, {"metadata": {"finalizers": None}})

    async def gone():
        return await admin.get("MarketFeed", "leaving") is None and not await read_by(admin, "leaving")

    await eventually(gone)


async def test_status_of_five_thousand_symbols_is_small(admin: Admin, operator):
    symbols = [f"SYMBOL{number:04}USDT" for number in range(5000)]
    await admin.feed("large", symbols=symbols, shardSize=100)

    async def all_there():
        read = await read_by(admin, "large")
        return len(read) == 50 and set().union(*read.values()) == set(symbols)

    await eventually(all_there)

    async def reported():
        found = await admin.get("MarketFeed", "large")
        assert found.get("status", {}).get("symbols", {}).get("resolved") == 5000
        return found

    found = await eventually(reported)
    assert len(json.dumps(found["status"])) < 20_000
    await admin.delete("MarketFeed", "large")
    await asyncio.sleep(0)
