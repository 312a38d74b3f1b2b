"""Address of a Strimzi Kafka: from its status, otherwise the name of its Service."""

import time
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient, Configuration
from prometheus_client import CollectorRegistry

from marketfeed_operator.api import Spec, parse
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.desired import Defaults, Feed
from marketfeed_operator.desired.environment import bootstrap_servers, worker
from marketfeed_operator.desired.network_policies import ingestion_policy
from marketfeed_operator.engine.audit import Audit
from marketfeed_operator.engine.listings import Listings
from marketfeed_operator.engine.loops import LoopRunner
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.namespace_leases import NamespaceLeases
from marketfeed_operator.engine.refusals import Refusals
from marketfeed_operator.engine.reports import Reports
from marketfeed_operator.engine.scopes import Scopes
from marketfeed_operator.facts import kafka_listeners
from marketfeed_operator.observe import Observer
from marketfeed_operator.observed import KafkaListener
from marketfeed_operator.store import Store

TLS = {"credentials": {"tls": {}}}


def listener(name: str, port: int, *, tls: bool = False, kind: str = "internal") -> dict[str, Any]:
    return {"name": name, "port": port, "type": kind, "tls": tls}


PLAIN, ENCRYPTED = listener("plain", 9092), listener("tls", 9093, tls=True)
OUTSIDE = listener("outside", 9094, tls=True, kind="loadbalancer")
ODD = listener("odd", 19092)
ADDRESSES = {"plain": "market-kafka-bootstrap.kafka.svc:9092", "tls": "market-kafka-bootstrap.kafka.svc:9093",
        "outside": "203.0.113.7:9094,203.0.113.8:9094", "odd": "market-kafka-bootstrap.kafka.svc:19092"}  # fmt: skip


def kafka(*declared: dict[str, Any], reported: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a Kafka as Strimzi stores it."""
    reported = ADDRESSES if reported is None else reported
    return {
        "metadata": {"name": "market", "namespace": "kafka"},
        "spec": {"kafka": {"listeners": list(declared)}},
        "status": {
            "listeners": [
                {"name": each["name"], "bootstrapServers": reported[each["name"]]}
                for each in declared
                if each["name"] in reported
            ]
        },
    }


def spec_of(cluster: dict[str, Any] | None = None, **declared: Any) -> Spec:
    named = {"name": "market", "namespace": "kafka", **(cluster or {})}
    spec = parse({"venue": "binance_us", "symbols": ["AA"], "kafka": {"cluster": named, **declared}})
    assert isinstance(spec, Spec), spec
    return spec


def feed(spec: Spec, body: dict[str, Any]) -> Feed:
    return Feed("default", "feed", "uid", 1, spec, Defaults("w:1", "c:1"), kafka_listeners(body))


@pytest.mark.parametrize(
    ("body", "cluster", "declared", "expected"),
    [
        (kafka(PLAIN, ENCRYPTED), {}, {}, ADDRESSES["plain"]),
        (kafka(PLAIN, ENCRYPTED), {}, TLS, ADDRESSES["tls"]),
        (kafka(ODD, PLAIN), {}, {}, ADDRESSES["plain"]),
        (kafka(ODD, ENCRYPTED), {}, {}, ADDRESSES["odd"]),
        (kafka(ODD, PLAIN), {"port": 19092}, {}, ADDRESSES["odd"]),
        (kafka(OUTSIDE, ENCRYPTED), {}, TLS, ADDRESSES["tls"]),
        (kafka(ENCRYPTED, OUTSIDE), {"port": 9094}, TLS, ADDRESSES["outside"]),
        # The Service name, when the status has no address.
        (kafka(OUTSIDE), {}, TLS, "market-kafka-bootstrap.kafka.svc:9093"),
        (kafka(PLAIN), {"port": 9999}, {}, "market-kafka-bootstrap.kafka.svc:9999"),
        (kafka(ODD, reported={}), {}, {}, "market-kafka-bootstrap.kafka.svc:9092"),
        (kafka(ODD, reported={"odd": "no port"}), {}, {}, "market-kafka-bootstrap.kafka.svc:9092"),
        ({"metadata": {}, "spec": {}}, {}, TLS, "market-kafka-bootstrap.kafka.svc:9093"),
    ],
    ids=[
        "plain", "encrypted", "usual port first", "no usual port", "named port", "internal before external",
        "external by its port", "only external", "port without listener", "no status yet", "invalid status",
        "empty status",
    ],
)  # fmt: skip
def test_strimzi_bootstrap_servers_of_a_cluster_by_name(body, cluster, declared, expected):
    assert bootstrap_servers(feed(spec_of(cluster, **declared), body)) == expected


def test_strimzi_listener_of_the_status_is_used_by_environment_and_network_policy():
    declared = feed(spec_of(), kafka(ODD))
    assert {"name": "KAFKA_BROKER", "value": ADDRESSES["odd"]} in worker(declared, "feed-shard-0").env
    body = ingestion_policy(declared).body
    assert body is not None
    ports = {each["port"] for rule in body["spec"]["egress"] for each in rule["ports"]}
    assert 19092 in ports
    assert 9092 not in ports


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({}, 1), ({"name": "other"}, 0), ({"namespace": None}, 0),
    ],
    ids=["named", "other name", "the feed's own namespace"],
)  # fmt: skip
async def test_strimzi_listeners_are_those_of_the_configured_cluster(cluster, expected):
    async def changed(_key):
        return None

    store, metrics = Store(), Metrics(CollectorRegistry())
    async with ApiClient(Configuration()) as client:  # never called
        audit = Audit(Cluster(client, metrics), store, metrics, Scopes((), metrics), changed)
        audit.kafkas = {("kafka", "market"): (KafkaListener(9092, False, True, "k:9092"),)}
        observer = Observer(
            store,
            Reports(store, metrics, port=1, changed=changed),
            Listings(changed, metrics),
            audit,
            None,
            Refusals(Cluster(client, metrics), store, changed),
            LoopRunner(metrics),
            Scopes((), metrics),
            NamespaceLeases(Cluster(client, metrics), metrics, "ns/operator", now=time.monotonic),
        )
        assert (
            len((await observer.observe(("default", "feed"), "uid", spec_of(cluster))).kafka_listeners)
            == expected
        )
        assert (await observer.observe(("default", "feed"), "uid", None)).kafka_listeners == ()
