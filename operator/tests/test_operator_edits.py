"""Edits of every section of a spec: the corresponding child changes, on a real API server."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from operator_support import Admin, Operator, eventually

from marketfeed_operator.api import Spec
from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.desired import stored_assignment

pytestmark = pytest.mark.integration

SHARD, TRADES, BOOK = "edited-shard-0", "edited-consumer-trades", "edited-consumer-book"
BASE: dict[str, Any] = {
    "symbols": ["AA", "BB", "CC"],
    "shardSize": 3,
    "ingestion": {"maxUpdatingShards": 100},
    "storage": {"engine": "postgresql", "dsnSecretName": "database"},
    "consumers": {"trades": {}, "bookTicker": {}},
}
Body = dict[str, Any]


def pod(body: Body) -> Body:
    return body["spec"]["template"]["spec"]


def env(name: str) -> Callable[[Body], Any]:
    def value(body: Body) -> Any:
        found = {each["name"]: each for each in pod(body)["containers"][0]["env"]}
        return found[name].get("value") if name in found else None

    return value


def dsn_secret(body: Body) -> str:
    (found,) = [each for each in pod(body)["containers"][0]["env"] if each["name"] == "DATABASE_URL"]
    return str(found["valueFrom"]["secretKeyRef"]["name"])


def image(body: Body) -> str:
    return str(pod(body)["containers"][0]["image"])


def command(body: Body) -> list[str]:
    return list(pod(body["spec"]["jobTemplate"])["containers"][0]["command"])


def replicas(body: Body) -> int:
    return int(body["spec"]["replicas"])


def cpu(body: Body) -> str | None:
    return pod(body)["containers"][0]["resources"]["requests"].get("cpu")


def read(body: Body) -> str:
    return ",".join(sorted(stored_assignment(body["data"]).symbols))


def out_ports(body: Body) -> set[int]:
    return {each["port"] for rule in body["spec"]["egress"] for each in rule["ports"]}


class Edit(NamedTuple):
    """Edit of a spec, and the expected change of a child."""

    section: str
    value: Any
    kind: str
    name: str
    seen: Callable[[Body], Any]
    expected: Any


EDITS = (
    Edit("symbols", ["AA", "BB", "DD"], "ConfigMap", SHARD, read, "AA,BB,DD"),
    Edit("shardSize", 2, "ConfigMap", "edited-shard-1", read, "DD"),
    Edit("endpoints", {"websocket": "wss://proxy:8443"}, "Deployment", SHARD, env("BINANCE_WS_BASE"), "wss://proxy:8443"),
    Edit("endpoints", {"websocket": "wss://proxy:8444"}, "NetworkPolicy", "edited-ingestion", out_ports,
         {53, 5353, 443, 8444, 9092, 9443}),
    Edit("ingestion", {"maxUpdatingShards": 100, "replicas": 2}, "Deployment", SHARD, replicas, 2),
    Edit("ingestion", {"maxUpdatingShards": 100, "validateOnStart": False}, "Deployment", SHARD,
         env("VALIDATE_ON_START"), "false"),
    Edit("ingestion", {"maxUpdatingShards": 100, "resources": {"requests": {"cpu": "250m"}}}, "Deployment", SHARD,
         cpu, "250m"),
    Edit("ingestion", {"maxUpdatingShards": 100, "rotation": {"afterMinutes": 60}}, "Deployment", SHARD,
         env("WS_ROTATE_AFTER_SECONDS"), "3600"),
    Edit("kafka", {"bootstrapServers": "other:9095"}, "StatefulSet", TRADES, env("KAFKA_BROKER"), "other:9095"),
    Edit("kafka", {"bootstrapServers": "other:9095", "lingerMs": 20}, "Deployment", SHARD,
         env("KAFKA_LINGER_MS"), "20"),
    Edit("kafka", {"bootstrapServers": "other:9095", "topics": {"trades": {"name": "t"}}}, "StatefulSet", TRADES,
         env("CONSUMER_TOPICS"), "t,market.gaps,market.rejected.raw"),
    Edit("kafka", {"bootstrapServers": "other:9095", "credentials": {"tls": {}}}, "Deployment", SHARD,
         env("KAFKA_SECURITY_PROTOCOL"), "SSL"),
    Edit("storage", {"engine": "postgresql", "dsnSecretName": "another"}, "StatefulSet", BOOK, dsn_secret, "another"),
    Edit("storage", {"engine": "postgresql", "dsnSecretName": "another", "retention": {"candlesDays": 3}}, "CronJob",
         "edited-retain", command, ["marketfeed-consumer", "retain", "--candles-1m-days", "3"]),
    Edit("consumers", {"trades": {"replicas": 2}, "bookTicker": {}}, "StatefulSet", TRADES, replicas, 2),
    Edit("consumers", {"trades": {}, "bookTicker": {"batch": {"maxRows": 7}}}, "StatefulSet", BOOK,
         env("BATCH_MAX_ROWS"), "7"),
    Edit("logging", {"level": "DEBUG"}, "StatefulSet", BOOK, env("LOG_LEVEL"), "DEBUG"),
    Edit("monitoring", {"labels": {"release": "prometheus"}}, "PodMonitor", "edited-pods",
         lambda body: body["metadata"]["labels"].get("release"), "prometheus"),
    Edit("monitoring", {"intervalSeconds": 10}, "PodMonitor", "edited-pods",
         lambda body: body["spec"]["podMetricsEndpoints"][0]["interval"], "10s"),
    Edit("networkPolicy", {"extraEgress": [{"ports": [{"port": 3128}]}]}, "NetworkPolicy", "edited-ingestion",
         lambda body: body["spec"]["egress"][-1], {"ports": [{"protocol": "TCP", "port": 3128}]}),
    Edit("serviceAccount", {"annotations": {"example.com/role": "x"}}, "ServiceAccount", "edited-pods",
         lambda body: body["metadata"]["annotations"].get("example.com/role"), "x"),
    Edit("images", {"worker": "worker:2"}, "Deployment", SHARD, image, "worker:2"),
    Edit("images", {"consumer": "consumer:2"}, "StatefulSet", TRADES, image, "consumer:2"),
    Edit("template", {"priorityClassName": "high"}, "Deployment", SHARD,
         lambda body: pod(body).get("priorityClassName"), "high"),
    Edit("template", {"labels": {"team": "data"}}, "StatefulSet", TRADES,
         lambda body: body["spec"]["template"]["metadata"]["labels"].get("team"), "data"),
)  # fmt: skip
ELSEWHERE = {
    "venue",  # immutable: a rule of the CRD, tested there
    "symbolSelector",  # needs a venue: with the simulator, in test_operator_neighbours
    "streams",  # below: removes consumers
    "paused",  # below
}


def test_edits_cover_every_section_of_the_spec():
    sections = {field.alias or name for name, field in Spec.model_fields.items()}
    assert {edit.section for edit in EDITS} | ELSEWHERE == sections


@pytest.fixture(scope="module")
def operator(start_operator, pod_port) -> Operator:
    return start_operator(POD_METRICS_PORT=str(pod_port))


def changed(admin: Admin, edit: Edit):
    async def check():
        body = await admin.get(edit.kind, edit.name)
        assert body is not None, f"{edit.section}: no {edit.kind} {edit.name}"
        seen = edit.seen(body)
        assert seen == edit.expected, f"{edit.section}: {edit.kind} {edit.name} has {seen!r}"
        return body

    return check


async def test_edits_of_each_section_change_the_corresponding_child(admin: Admin, nodes, neighbours):
    """One after the other on one feed; earlier edits are kept, unless the same section is edited again."""
    spec = dict(BASE)
    await admin.feed("edited", **spec)
    for kind, name in (
        ("Deployment", SHARD),
        ("StatefulSet", TRADES),
        ("StatefulSet", BOOK),
        ("PodMonitor", "edited-pods"),
    ):
        await eventually(lambda kind=kind, name=name: admin.get(kind, name))
    for edit in EDITS:
        before = await admin.get(edit.kind, edit.name)
        assert before is None or edit.seen(before) != edit.expected, (
            f"{edit.section}: the edit changes nothing"
        )
        spec[edit.section] = edit.value
        await admin.feed("edited", **spec)
        await eventually(changed(admin, edit))

    async def settled():
        ready, progressing = [await admin.condition("edited", kind) for kind in ("Ready", "Progressing")]
        assert (ready["reason"], progressing["reason"]) == ("AllReady", "Settled"), (ready, progressing)
        return True

    await eventually(settled)


async def test_edits_of_streams_and_paused(admin: Admin, nodes):
    spec = {section: value for section, value in BASE.items() if section != "consumers"}
    await admin.feed("edited", **spec)
    for name in (TRADES, BOOK):
        await eventually(lambda name=name: admin.get("StatefulSet", name))
    spec |= {"streams": ["trade"]}
    await admin.feed("edited", **spec)
    await eventually(
        changed(admin, Edit("streams", None, "Deployment", SHARD, env("BINANCE_STREAMS"), "trade"))
    )

    async def gone():
        return await admin.names("StatefulSet") == [TRADES]

    await eventually(gone)
    debug = Edit("logging", None, "Deployment", SHARD, env("LOG_LEVEL"), "DEBUG")
    await admin.feed("edited", **spec, paused=True, logging={"level": "DEBUG"})

    async def paused():
        return (await admin.condition("edited", "Paused"))["status"] == "True"

    await eventually(paused)
    body = await admin.get("Deployment", SHARD)
    assert body is not None
    assert debug.seen(body) == "INFO"
    await admin.feed("edited", **spec, logging={"level": "DEBUG"})
    await eventually(changed(admin, debug))


async def test_scale_of_a_feed_without_consumers_keeps_those_of_quotes(admin: Admin, nodes):
    """``kubectl scale`` writes spec.consumers.trades.replicas, and with it the first entry of spec.consumers."""
    spec = {section: value for section, value in BASE.items() if section != "consumers"}
    await admin.feed("edited", **spec)
    book = await eventually(lambda: admin.get("StatefulSet", BOOK))
    path = FEEDS.path(admin.namespace, "edited")
    await admin.cluster.merge(f"{path}/scale", {"spec": {"replicas": 3}})
    await eventually(changed(admin, Edit("consumers", None, "StatefulSet", TRADES, replicas, 3)))

    async def acted_on():
        return (await admin.condition("edited", "Ready"))["reason"] == "AllReady"

    await eventually(acted_on)
    kept = await admin.get("StatefulSet", BOOK)
    assert kept is not None
    assert (kept["metadata"]["uid"], kept["spec"]["replicas"]) == (book["metadata"]["uid"], 1)
