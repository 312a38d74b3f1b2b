"""Hostile objects: nested too deep, with kopf's annotations, with a feed's labels."""

import asyncio
import contextlib
import io
import json
import ssl
import time
from typing import Any

import aiohttp
import pytest
from operator_control_plane import ADMIN_TOKEN, ControlPlane
from operator_fault_proxy import FaultProxy
from operator_support import KINDS, Admin, Operator, eventually, launch, narrow_token, serve_in
from test_operator_many import MEMORY_BOUND_MIB, peak_memory_mib
from test_operator_scopes import status_of

from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.errors import NotFound
from marketfeed_operator.kinds import CONFIG_MAP, JOB, KAFKA, OPTIONAL, POD, Kind
from marketfeed_operator.names import FIELD_MANAGER

pytestmark = pytest.mark.integration

OURS = {"app.kubernetes.io/managed-by": FIELD_MANAGER, "marketfeed.dev/feed": "victim"}
LEVELS = (900, 4_900)
"""Above the limit of Python decoders, and near that of the API server (10,000 lists and objects)."""


async def post(plane: ControlPlane, path: str, text: str) -> tuple[int, str]:
    """Create an object from a text: no Python encoder supports this depth."""
    trust = ssl.create_default_context(cafile=str(plane.ca_file))
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
        session.post(plane.server + path, data=io.BytesIO(text.encode()), headers=headers) as response,
    ):
        return response.status, (await response.text())[:300]


def deep(levels: int, before: str = '{"a":', after: str = "}") -> str:
    return before * levels + "{}" + after * levels


def written(kind: Kind, namespace: str, name: str, content: str, fields: str = "{}") -> str:
    """Return an object with our labels, whose `managedFields` contain `fields`."""
    head = {"apiVersion": kind.api_version, "kind": kind.kind}
    entry = {
        "manager": "mallory", "operation": "Update", "apiVersion": kind.api_version, "fieldsType": "FieldsV1",
        "fieldsV1": "FIELDS",
    }  # fmt: skip
    metadata = {"name": name, "namespace": namespace, "labels": OURS, "managedFields": [entry]}
    text = json.dumps({**head, "metadata": metadata}).replace('"FIELDS"', fields)
    return f"{text[:-1]}{content}}}"


POD_SPEC = (
    ',"spec":{"automountServiceAccountToken":false,"securityContext":{"runAsNonRoot":true,"runAsUser":1,'
    '"seccompProfile":{"type":"RuntimeDefault"}},"containers":[{"name":"c","image":"x","securityContext":'
    '{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]}'
)
FEED_SPEC = ',"spec":{"venue":"binance_us","symbols":["AA"],"kafka":{"bootstrapServers":"kafka:9092"}}'


async def is_served(admin: Admin, name: str) -> None:
    """Check that a feed is declared, changed and kept, and that no loop of the operator fails."""
    await admin.feed(name, symbols=["AA"])
    await eventually(lambda: admin.get("Deployment", f"{name}-shard-0"))
    await admin.delete("ConfigMap", f"{name}-shard-0")
    await eventually(lambda: admin.get("ConfigMap", f"{name}-shard-0"))
    degraded = await admin.condition(name, "Degraded")
    assert degraded["reason"] == "AsExpected", degraded


async def test_hostile_nesting_breaks_no_watch_and_no_list(
    admin: Admin, api_server, start_operator, neighbours
):
    operator: Operator = await asyncio.to_thread(start_operator, AUDIT_SECONDS="1")
    try:
        await is_served(admin, "before")
        taken: set[str] = set()
        for levels in LEVELS:
            fields = deep(levels, '{"f:a":')
            cases = {
                "ConfigMap": (CONFIG_MAP, ',"data":{}', fields),
                "Pod": (POD, POD_SPEC, fields),
                "MarketFeed": (FEEDS, FEED_SPEC, fields),
                **{
                    f"{kind.kind} {shape}": (kind, f',"spec":{{"config":{text}}}', "{}")
                    for kind in (*OPTIONAL, KAFKA)
                    for shape, text in (("objects", deep(levels)), ("lists", deep(levels, "[", "]")))
                },
            }
            for number, (case, (kind, content, entry)) in enumerate(cases.items()):
                name = f"deep-{levels}-{number}"
                text = written(kind, admin.namespace, name, content, entry)
                status, reported = await post(api_server, kind.path(admin.namespace), text)
                assert status in (201, 400, 413, 422), (case, levels, reported)
                if status == 201:
                    taken.add(case.partition(" ")[0])
        print("accepted by the API server:", sorted(taken))
        assert {"KafkaTopic", "Kafka"} <= taken
        await is_served(admin, "watching")  # by open watches
        assert await asyncio.to_thread(operator.stop) == 0
        operator = await asyncio.to_thread(start_operator, AUDIT_SECONDS="1")
        await is_served(admin, "listing")  # by lists

        def failing() -> float:
            return operator.total("marketfeed_operator_loop_failures_total")

        assert await asyncio.to_thread(failing) == 0
        assert (await asyncio.to_thread(status_of, operator))["unavailableNamespaces"] == {}
    finally:
        for kind in (CONFIG_MAP, POD, FEEDS, *OPTIONAL, KAFKA):
            await admin.cluster._request(
                "delete", kind.path(admin.namespace), label_selector="marketfeed.dev/feed=victim"
            )
        await asyncio.to_thread(operator.stop)


LARGE = {
    "one value": (100, {"a": "x" * 1_000_000}),
    # Each key is an object of its own in `managedFields` too: many times the bytes once decoded. Sixty took 213 MiB.
    "many keys": (6, {f"k{number}": "" for number in range(40_000)}),
}
EDIT_SECONDS = 20.0
"""For an edit of another feed beside audits that read all of them each second; on a busy machine."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", LARGE)
async def test_hostile_large_objects_keep_memory_bounded_and_stall_no_feed(
    admin: Admin, api_server, start_operator, shape
):
    """Through open watches, lists at startup and audits."""
    count, data = LARGE[shape]
    operator: Operator = await asyncio.to_thread(start_operator, AUDIT_SECONDS="1")
    content = f',"data":{json.dumps(data)}'
    fields = json.dumps({"f:data": {f"f:{key}": {} for key in data}})
    try:
        await is_served(admin, "small")
        for number in range(count):
            text = written(CONFIG_MAP, admin.namespace, f"large-{number}", content, fields)
            status, reported = await post(api_server, CONFIG_MAP.path(admin.namespace), text)
            assert status == 201, reported
        await is_served(admin, "watching-large")
        assert await asyncio.to_thread(peak_memory_mib, operator) < MEMORY_BOUND_MIB
        assert await asyncio.to_thread(operator.stop) == 0
        operator = await asyncio.to_thread(start_operator, AUDIT_SECONDS="1")
        await is_served(admin, "listing-large")
        slowest = max([await edited(admin, "listing-large", number) for number in range(20)])
        peak = await asyncio.to_thread(peak_memory_mib, operator)
        print(f"{shape}: {peak:.0f} MiB, slowest of 20 edits {slowest:.2f} s")
        assert peak < MEMORY_BOUND_MIB
        assert slowest < EDIT_SECONDS
        assert await asyncio.to_thread(operator.total, "marketfeed_operator_loop_failures_total") == 0
    finally:
        await asyncio.to_thread(operator.stop)
        for number in range(count):
            with contextlib.suppress(NotFound):
                path = CONFIG_MAP.path(admin.namespace, f"large-{number}")
                await admin.cluster._request("delete", path)


async def edited(admin: Admin, name: str, number: int) -> float:
    """Edit a feed. Return the seconds until the edit is in its ConfigMap."""
    before = time.monotonic()
    await admin.feed(name, symbols=["AA", f"S{number}"])

    async def arrived() -> bool:
        found = await admin.get("ConfigMap", f"{name}-shard-0")
        return found is not None and f'"S{number}"' in found["data"]["assignment.json"]

    await eventually(arrived, every=0.02)
    return time.monotonic() - before


async def test_hostile_kopf_annotations_affect_only_their_feed(admin: Admin, start_operator):
    operator: Operator = await asyncio.to_thread(start_operator)
    body = {
        "apiVersion": FEEDS.api_version, "kind": FEEDS.kind,
        "metadata": {
            "name": "framework", "namespace": admin.namespace, "finalizers": ["kopf.zalando.org/KopfFinalizerMarker"],
            "annotations": {
                "kopf.zalando.org/last-handled-configuration": "{", "kopf.zalando.org/feeds": "[",
                "kopf.zalando.org/feeds-seen": "\x1b[31m", "kopf.dev/touch-dummy": "x" * 1000,
            },
        },
        "spec": {"venue": "binance_us", "symbols": ["AA"], "kafka": {"bootstrapServers": "kafka:9092"}},
    }  # fmt: skip
    await admin.cluster.apply(FEEDS, body, manager="mallory")
    await eventually(lambda: admin.get("Deployment", "framework-shard-0"))
    await is_served(admin, "beside")
    await admin.delete("MarketFeed", "framework")
    await is_served(admin, "afterwards")
    with contextlib.suppress(Exception):
        path = FEEDS.path(admin.namespace, "framework")
        await admin.cluster.merge(path, {"metadata": {"finalizers": None}})
    assert await asyncio.to_thread(operator.stop) == 0


async def test_hostile_object_in_another_namespace_does_not_affect_the_feed(admin: Admin, start_operator):
    """With all labels and the field manager of a child, by an author without permissions in the feed's namespace."""
    operator: Operator = await asyncio.to_thread(start_operator, AUDIT_SECONDS="1")
    await admin.feed("victim", symbols=["AA", "BB"])
    made: dict[str, Any] = await eventually(lambda: admin.get("ConfigMap", "victim-shard-0"))
    other = f"{admin.namespace}-b"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}}
    await admin.cluster.apply(KINDS["Namespace"], namespace, manager="tests")
    forged = {
        "apiVersion": "v1", "kind": "ConfigMap", "data": {**made["data"], "draining.json": '["AA"]'},
        "metadata": {
            "name": "victim-shard-0", "namespace": other, "labels": made["metadata"]["labels"],
            "annotations": made["metadata"]["annotations"],
        },
    }  # fmt: skip
    assert forged["metadata"]["labels"]["marketfeed.dev/feed-namespace"] == admin.namespace
    before = await admin.cluster.apply(CONFIG_MAP, forged)
    await is_served(admin, "later")  # and the operator has seen it by then
    await admin.feed("victim", symbols=["AA", "BB", "CC"])

    async def extended() -> bool:
        found = await admin.get("ConfigMap", "victim-shard-0")
        return found is not None and "CC" in found["data"]["assignment.json"]

    await eventually(extended)
    assert await admin.names("ConfigMap") == ["later-shard-0", "victim-shard-0"]
    assert await admin.cluster.get(CONFIG_MAP.path(other, "victim-shard-0")) == before
    await admin.cluster._request("delete", KINDS["Namespace"].path(None, other))
    assert await asyncio.to_thread(operator.stop) == 0


async def test_hostile_job_with_retention_labels_is_ignored(admin: Admin, start_operator):
    """Labels can be set by anyone: a failing Job with the labels of a feed's retention, and a name too long for a
    status.
    """
    operator: Operator = await asyncio.to_thread(start_operator)
    storage = {"engine": "postgresql", "dsnSecretName": "database", "retention": {"tradesDays": 7}}
    await admin.feed("kept", symbols=["AA"], storage=storage)
    await eventually(lambda: admin.get("CronJob", "kept-retain"))
    labels = {**OURS, "marketfeed.dev/feed": "kept", "app.kubernetes.io/component": "retention"}
    pod = json.loads(POD_SPEC.removeprefix(',"spec":'))
    job = {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j" * 200, "namespace": admin.namespace, "labels": labels},
        "spec": {
            "manualSelector": True, "selector": {"matchLabels": {"job": "forged"}},
            "template": {"metadata": {"labels": {"job": "forged"}}, "spec": {**pod, "restartPolicy": "Never"}},
        },
    }  # fmt: skip
    await admin.cluster._request("post", JOB.path(admin.namespace), body=job)
    await admin.feed("kept", symbols=["AA", "BB"], storage=storage)

    async def reported() -> dict[str, Any]:
        stored = await admin.get("MarketFeed", "kept")
        assert stored is not None
        status: dict[str, Any] = stored.get("status", {})
        assert status.get("symbols", {}).get("resolved") == 2
        return status

    status = await eventually(reported)
    assert status["retention"] == {"cronJob": "kept-retain", "job": "", "state": "None"}
    assert (await admin.condition("kept", "Degraded"))["reason"] not in ("RetentionFailed", "ReconcileFailed")
    assert await asyncio.to_thread(operator.stop) == 0


@pytest.mark.parametrize("status", [403, 500])
async def test_optional_kind_that_cannot_be_listed_degrades_only_its_users(
    admin: Admin, api_server, start_operator, neighbours, status
):
    """As with a conversion webhook that is down, or a role that lacks the permission."""
    async with FaultProxy(api_server.server, api_server.ca_file).running() as proxy:
        failing = {"kafkatopics", "kafkas"}
        proxy.refuse = lambda method, path: (
            status if method == "GET" and path.rpartition("/")[2] in failing else None
        )
        operator: Operator = await asyncio.to_thread(
            start_operator, server=f"http://127.0.0.1:{proxy.port}", AUDIT_SECONDS="1", RESYNC_SECONDS="1"
        )
        await is_served(admin, "plain")
        await admin.feed(
            "topics", symbols=["AA"], kafka={"cluster": {"name": "market"}, "manageTopics": True}
        )

        async def reason(expected: str) -> bool:
            found = await admin.condition("topics", "Degraded")
            assert found["reason"] == expected, found
            return True

        await eventually(lambda: reason("KindUnavailable"))
        await eventually(lambda: admin.get("KafkaTopic", "market.trades.raw"))
        assert (await admin.condition("plain", "Degraded"))["reason"] == "AsExpected"

        def loop_failing() -> float:
            return operator.total("marketfeed_operator_loop_failing", loop="list kafkatopics")

        assert await asyncio.to_thread(loop_failing) == 1
        failing.clear()
        await eventually(lambda: reason("AsExpected"))

        async def over() -> bool:
            return await asyncio.to_thread(loop_failing) == 0

        await eventually(over)
        assert "kind listed again" in operator.log.read_text()
        assert await asyncio.to_thread(operator.stop) == 0


async def test_namespace_lease_refused_in_one_namespace_degrades_only_its_feeds(
    admin: Admin, api_server, start_operator
):
    """As with an admission policy's webhook that is down for that namespace."""
    other = Admin(admin.cluster, f"{admin.namespace}-b")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other.namespace}}
    await admin.cluster.apply(KINDS["Namespace"], namespace, manager="tests")
    async with FaultProxy(api_server.server, api_server.ca_file).running() as proxy:
        settings = {
            "server": f"http://127.0.0.1:{proxy.port}", "AUDIT_SECONDS": "1", "RESYNC_SECONDS": "1",
            "NAMESPACE_LEASE_SECONDS": "0.3",
        }  # fmt: skip
        operator: Operator = await asyncio.to_thread(lambda: start_operator(**settings))
        await is_served(admin, "claimed")
        await is_served(other, "beside")
        proxy.refuse = lambda _, path: 500 if f"/namespaces/{admin.namespace}/leases" in path else None

        async def reported() -> bool:
            found = await admin.condition("claimed", "Degraded")
            assert found["reason"] == "OperatorDegraded", found
            assert f"lease of namespace {admin.namespace}: " in found["message"]
            return True

        await eventually(reported)
        await is_served(other, "later")
        assert (await other.condition("beside", "Degraded"))["reason"] == "AsExpected"
        assert (
            await asyncio.to_thread(operator.total, "marketfeed_operator_loop_failures_total", loop="claims")
            == 0
        )
        assert await asyncio.to_thread(operator.stop) == 0

        # An operator that starts now cannot read the lease of the namespace: it changes nothing there, and reports
        # it.
        operator = await asyncio.to_thread(lambda: start_operator(**settings))

        async def said() -> bool:
            ready = await admin.condition("claimed", "Ready")
            assert ready["status"] == "False", "nothing is known of its children"
            return bool(ready["reason"] == "ApplyFailed")

        await eventually(said)
        await is_served(other, "new")
        proxy.refuse = lambda _, __: None

        async def over() -> bool:
            return bool((await admin.condition("claimed", "Degraded"))["reason"] == "AsExpected")

        await eventually(over)
        assert await asyncio.to_thread(operator.stop) == 0
    await admin.cluster._request("delete", KINDS["Namespace"].path(None, other.namespace))


async def test_permissions_revoked_in_one_namespace_and_granted_again(admin: Admin, api_server, tmp_path):
    kubeconfig = api_server.kubeconfig_for(tmp_path / "kubeconfig", await narrow_token(admin))
    other = Admin(admin.cluster, f"{admin.namespace}-b")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other.namespace}}
    await admin.cluster.apply(KINDS["Namespace"], namespace, manager="tests")
    await serve_in(admin, other.namespace)
    with contextlib.ExitStack() as running:
        operator = launch(
            tmp_path, kubeconfig, running, WATCH_NAMESPACES=f"{other.namespace},{admin.namespace}",
            OPERATOR_NAMESPACE=admin.namespace, AUDIT_SECONDS="1", RESYNC_SECONDS="1", NAMESPACE_LEASE_SECONDS="0.5",
            REPORT_SECONDS="0.2",
        )  # fmt: skip
        await is_served(other, "loses")
        await is_served(admin, "keeps")
        await admin.cluster._request("delete", KINDS["RoleBinding"].path(other.namespace, "narrow"))

        async def named() -> bool:
            reported = await asyncio.to_thread(status_of, operator)
            return list(reported["unavailableNamespaces"]) == [other.namespace]

        await eventually(named)
        await other.feed("loses", symbols=["AA", "BB"])

        def audits() -> float:
            return operator.total("marketfeed_operator_api_failures_total", status="403")

        refused = await asyncio.to_thread(audits)

        async def audited_often() -> bool:
            return await asyncio.to_thread(audits) >= refused + 8

        await eventually(audited_often)
        # The feed in the other namespace is not affected.
        await is_served(admin, "new")
        assert (await admin.condition("keeps", "Degraded"))["reason"] == "AsExpected"
        assert (await asyncio.to_thread(status_of, operator))["live"]["ok"]
        # What could not be applied is not reported as applied.
        stored = await other.get("MarketFeed", "loses")
        assert stored is not None
        assert stored["status"]["observedGeneration"] < stored["metadata"]["generation"]

        await serve_in(admin, other.namespace)

        async def applied() -> bool:
            found = await other.get("MarketFeed", "loses")
            assert found is not None
            return bool(found["status"]["observedGeneration"] == found["metadata"]["generation"])

        await eventually(applied, seconds=60)
        await is_served(other, "again")
        assert (await asyncio.to_thread(status_of, operator))["unavailableNamespaces"] == {}
        assert await asyncio.to_thread(operator.stop) == 0
        await admin.cluster._request("delete", KINDS["Namespace"].path(None, other.namespace))
