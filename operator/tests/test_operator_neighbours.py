"""Custom resources of Strimzi, KEDA and Prometheus, an autoscaler, and a venue that lists symbols."""

import asyncio
import contextlib
import re
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from operator_support import Admin, eventually, launch, narrow_token

from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.desired import stored_assignment
from marketfeed_operator.kinds import (
    CONFIG_MAP,
    KAFKA,
    KAFKA_TOPIC,
    POD_MONITOR,
    SCALED_OBJECT,
    STATEFUL_SET,
)

pytestmark = pytest.mark.integration

STORAGE = {"engine": "postgresql", "dsnSecretName": "database"}


@pytest.fixture(scope="module")
def operator(start_operator, pod_port):
    return start_operator(POD_METRICS_PORT=str(pod_port), LISTING_SECONDS="1")


async def there(admin: Admin, kind: str, name: str):
    return await eventually(lambda: admin.get(kind, name))


async def gone(admin: Admin, kind: str, name: str):
    async def check():
        return await admin.get(kind, name) is None

    await eventually(check)


async def test_optional_kinds_are_used_when_installed_and_removed_when_disabled(
    admin: Admin, nodes, neighbours
):
    spec = {
        "symbols": ["AA"], "storage": STORAGE, "kafka": {"cluster": {"name": "market"}, "manageTopics": True},
        "consumers": {"trades": {"autoscaling": {"minReplicas": 1, "maxReplicas": 3}}},
    }  # fmt: skip
    await declare(admin, "neighbour", spec)
    topic = await there(admin, "KafkaTopic", "market.trades.raw")
    assert topic["spec"]["topicName"] == "market.trades.raw"
    await there(admin, "PodMonitor", "neighbour-pods")
    await there(admin, "ScaledObject", "neighbour-consumer-trades")
    await admin.cluster.merge(
        KAFKA_TOPIC.path(admin.namespace, "market.trades.raw"), {"spec": {"partitions": 1}}
    )

    async def partitions_back():
        return (await admin.get("KafkaTopic", "market.trades.raw"))["spec"]["partitions"] == 6

    await eventually(partitions_back)
    await declare(
        admin, "neighbour", {**spec, "consumers": {"trades": {}}, "monitoring": {"podMonitor": False}}
    )
    await gone(admin, "PodMonitor", "neighbour-pods")
    await gone(admin, "ScaledObject", "neighbour-consumer-trades")
    await admin.delete("MarketFeed", "neighbour")
    await gone(admin, "Deployment", "neighbour-shard-0")
    assert await admin.get("KafkaTopic", "market.trades.raw"), (
        "a topic keeps its data when its feed is deleted"
    )


async def test_strimzi_status_has_the_address_and_the_service_name_is_the_fallback(
    admin: Admin, nodes, neighbours
):
    async def deployed(feed: str, broker: str):
        found = await admin.get("Deployment", f"{feed}-shard-0")
        assert found is not None
        (container,) = found["spec"]["template"]["spec"]["containers"]
        assert {"name": "KAFKA_BROKER", "value": broker} in container["env"]
        return found

    async def set_status(name: str, servers: str) -> None:
        body = {
            "apiVersion": KAFKA.api_version, "kind": KAFKA.kind,
            "metadata": {"name": name, "namespace": admin.namespace},
            "spec": {"kafka": {"listeners": [{"name": "plain", "port": 19092, "type": "internal", "tls": False}]}},
            "status": {"listeners": [{"name": "plain", "bootstrapServers": servers}]},
        }  # fmt: skip
        await admin.cluster.apply(KAFKA, body, manager="strimzi")

    for feed, cluster in (("placed", "market"), ("beside", "other")):
        await declare(admin, feed, {"symbols": ["AA"], "kafka": {"cluster": {"name": cluster}}})
    by_name = f"market-kafka-bootstrap.{admin.namespace}.svc:9092"
    await eventually(lambda: deployed("placed", by_name))
    await set_status("market", "status.example.com:19092")
    before = await eventually(lambda: deployed("placed", "status.example.com:19092"))
    # Strimzi's status is empty for a while: the cluster has not moved, and no pod is restarted.
    await admin.cluster.merge(KAFKA.path(admin.namespace, "market"), {"status": None})
    await set_status("other", "other.example.com:19092")
    await eventually(lambda: deployed("beside", "other.example.com:19092"))  # so both were reconciled since
    after = await deployed("placed", "status.example.com:19092")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    await admin.cluster._request("delete", KAFKA.path(admin.namespace, "market"))
    await eventually(lambda: deployed("placed", by_name))


async def declare(admin: Admin, name: str, spec: dict) -> None:
    body = {
        "apiVersion": FEEDS.api_version, "kind": FEEDS.kind,
        "metadata": {"name": name, "namespace": admin.namespace}, "spec": {"venue": "binance_us", **spec},
    }  # fmt: skip
    await admin.cluster.apply(FEEDS, body, manager="tests")


async def test_topics_declared_by_others_are_not_changed(admin: Admin, nodes, neighbours):
    mine = {
        "apiVersion": KAFKA_TOPIC.api_version, "kind": KAFKA_TOPIC.kind,
        "metadata": {"name": "market.trades.raw", "namespace": admin.namespace}, "spec": {"partitions": 99},
    }  # fmt: skip
    await admin.cluster.apply(KAFKA_TOPIC, mine, manager="somebody")
    spec = {"symbols": ["AA"], "kafka": {"cluster": {"name": "market"}, "manageTopics": True}}
    await declare(admin, "polite", spec)
    await there(admin, "KafkaTopic", "market.gaps")
    await there(admin, "ConfigMap", "polite-shard-0")
    found = await admin.get("KafkaTopic", "market.trades.raw")
    assert found["spec"] == {"partitions": 99}
    # Two feeds, one topic: the first to declare it keeps it.
    other = {**spec, "kafka": {**spec["kafka"], "topics": {"gaps": {"partitions": 7}}}}
    await declare(admin, "second", other)
    await there(admin, "ConfigMap", "second-shard-0")
    assert (await admin.get("KafkaTopic", "market.gaps"))["spec"]["partitions"] == 1


async def test_autoscaler_adopts_the_replicas_and_keeps_them(admin: Admin, nodes, neighbours):
    spec = {"symbols": ["AA"], "storage": STORAGE, "kafka": {"bootstrapServers": "k:9092"}}
    name = "scaled-consumer-trades"
    await declare(admin, "scaled", {**spec, "consumers": {"trades": {"replicas": 4}}})

    async def replicas(number: int):
        async def check():
            return (await admin.get("StatefulSet", name) or {}).get("spec", {}).get("replicas") == number

        await eventually(check)

    await replicas(4)
    seen: list[int] = []
    watching = asyncio.create_task(_watch_replicas(admin, name, seen))
    await declare(admin, "scaled", {**spec, "consumers": {"trades": {"autoscaling": {"maxReplicas": 9}}}})
    await there(admin, "ScaledObject", name)

    async def given_up():
        managed = (await admin.get("StatefulSet", name))["metadata"]["managedFields"]
        return not any(
            entry["manager"] == "marketfeed-operator" and "f:replicas" in entry["fieldsV1"].get("f:spec", {})
            for entry in managed
        )

    await eventually(given_up)
    watching.cancel()
    assert set(seen) == {4}, "there were never fewer consumers meanwhile"
    path = STATEFUL_SET.path(admin.namespace, name)
    await admin.cluster.merge(f"{path}/scale", {"spec": {"replicas": 7}})
    await declare(
        admin, "scaled",
        {**spec, "consumers": {"trades": {"autoscaling": {"maxReplicas": 9}}}, "logging": {"level": "DEBUG"}},
    )  # fmt: skip

    async def rolled():
        found = await admin.get("StatefulSet", name)
        env = {
            each["name"]: each.get("value")
            for each in found["spec"]["template"]["spec"]["containers"][0]["env"]
        }
        return env["LOG_LEVEL"] == "DEBUG"

    await eventually(rolled)
    await replicas(7)
    await declare(admin, "scaled", {**spec, "consumers": {"trades": {"replicas": 2}}})
    await replicas(2)


async def _watch_replicas(admin: Admin, name: str, seen: list[int]) -> None:
    while True:
        seen.append((await admin.get("StatefulSet", name))["spec"]["replicas"])
        await asyncio.sleep(0.02)


@pytest.fixture
def venue(tmp_path: Path):
    """The simulator, with the symbols of a generated market."""
    file = tmp_path / "port"
    process = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "marketfeed-simulator"), "--port", "0", "--port-file", str(file),
            "generate", "--symbols", "BTCUSDT,ETHUSDT,ETHBTC",
        ],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process, file
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)


async def test_symbols_are_selected_from_the_venues_list_and_kept_without_response(
    admin: Admin, nodes, venue
):
    process, file = venue

    async def listening():
        assert process.poll() is None, "the simulator exited"
        return file.exists() and file.read_text().strip()

    url = f"http://127.0.0.1:{await eventually(listening)}"
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v3/exchangeInfo") as answer:
        listed = (await answer.json())["symbols"]
    expected = {
        each["symbol"] for each in listed if each["quoteAsset"] == "USDT" and each["status"] == "TRADING"
    }
    assert expected == {"BTCUSDT", "ETHUSDT"}
    spec = {
        "kafka": {"bootstrapServers": "k:9092"}, "endpoints": {"rest": url},
        "symbolSelector": {"quoteAssets": ["USDT"]},
    }  # fmt: skip
    await declare(admin, "selected", spec)

    async def taken():
        found = await admin.cluster.list_all(CONFIG_MAP, admin.namespace, "marketfeed.dev/feed=selected")
        return set().union(*(stored_assignment(each["data"]).symbols for each in found)) == expected

    await eventually(taken)
    narrow = {**spec, "symbolSelector": {"quoteAssets": ["BTC"]}}
    await declare(admin, "selected", narrow)
    usdt, expected = expected, {"ETHBTC"}
    await eventually(taken)
    await declare(admin, "selected", spec)
    expected = usdt
    await eventually(taken)
    process.terminate()
    await asyncio.to_thread(process.wait, 20)

    async def reported():
        found = await admin.condition("selected", "Degraded")
        assert found["reason"] == "VenueUnreachable", found
        return found

    degraded = await eventually(reported)
    assert re.search(r"does not list its symbols.*still read", degraded["message"])
    assert await taken()


async def test_namespaced_operator_needs_permissions_in_its_namespaces_only(
    admin: Admin, api_server, start_operator, operator, tmp_path
):
    """Another ServiceAccount, bound by a RoleBinding; without permissions elsewhere nothing is requested there."""
    await asyncio.to_thread(operator.stop)
    token = await narrow_token(admin)
    kubeconfig = api_server.kubeconfig_for(tmp_path / "kubeconfig", token)
    with contextlib.ExitStack() as running:
        narrow = launch(
            tmp_path,
            kubeconfig,
            running,
            WATCH_NAMESPACES=admin.namespace,
            OPERATOR_NAMESPACE=admin.namespace,
        )
        await asyncio.to_thread(narrow.await_log, " leading ")
        await declare(admin, "inside", {"symbols": ["AA"], "kafka": {"bootstrapServers": "k:9092"}})
        await there(admin, "Deployment", "inside-shard-0")
        forbidden = await asyncio.to_thread(
            narrow.total, "marketfeed_operator_api_failures_total", status="403"
        )
        assert forbidden == 0
        assert await asyncio.to_thread(narrow.stop) == 0


def test_optional_kinds_match_the_crds_of_their_operators():
    assert [kind.api_version for kind in (KAFKA_TOPIC, POD_MONITOR, SCALED_OBJECT)] == [
        "kafka.strimzi.io/v1", "monitoring.coreos.com/v1", "keda.sh/v1alpha1",
    ]  # fmt: skip
