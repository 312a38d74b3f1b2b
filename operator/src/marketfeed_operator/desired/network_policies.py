"""NetworkPolicies: ingress for metrics and status; egress to DNS, Kafka, and the venue or the database.

None with `spec.networkPolicy.enabled: false`; `extraEgress` is added.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from marketfeed_operator.api.network import EgressRule
from marketfeed_operator.desired.base import Child, Feed, Object, child, selector
from marketfeed_operator.desired.environment import bootstrap_servers
from marketfeed_operator.desired.streams import consumer_spec, stored_streams
from marketfeed_operator.kinds import NETWORK_POLICY
from marketfeed_operator.names import INGESTION, MIGRATION, RETENTION, consumer_component, consumer_name

_DATABASE_PORTS = {"postgresql": 5432, "cockroachdb": 26257}
_VENUE_PORTS = (443, 9443)
_DNS_PORTS = (53, 5353)
"""The second is the port of OpenShift's DNS pods: a policy applies to the port of the pod behind a Service."""


def ingestion_policy(feed: Feed) -> Child | None:
    """Return the policy of the workers: egress to Kafka and the venue."""
    return _policy(
        feed, f"{feed.name}-{INGESTION}", INGESTION, [*_kafka_ports(feed), *_venue_ports(feed)], serves=True
    )


def consumer_policy(feed: Feed, stream: str) -> Child | None:
    """Return the policy of a stream's consumers: egress to Kafka and the database; None when the stream is not
    stored.
    """
    if consumer_spec(feed, stream) is None:
        return None
    ports = [*_kafka_ports(feed), _database_port(feed)]
    return _policy(feed, consumer_name(feed.name, stream), consumer_component(stream), ports, serves=True)


def migration_policy(feed: Feed) -> Child | None:
    """Return the policy of the migration: egress to the database; None when nothing is stored."""
    if not stored_streams(feed):
        return None
    return _policy(feed, f"{feed.name}-{MIGRATION}", MIGRATION, [_database_port(feed)], serves=False)


def retention_policy(feed: Feed) -> Child | None:
    """Return the policy of the retention runs: egress to the database; None when everything is kept."""
    if feed.spec.storage is None or feed.spec.storage.retention is None:
        return None
    return _policy(feed, f"{feed.name}-{RETENTION}", RETENTION, [_database_port(feed)], serves=False)


def _policy(feed: Feed, name: str, component: str, out: Iterable[int], *, serves: bool) -> Child | None:
    if not feed.spec.network_policy.enabled:
        return None
    metrics: Object = {"ports": [{"protocol": "TCP", "port": feed.defaults.metrics_port}]}
    spec = {
        "podSelector": {"matchLabels": selector(feed, component)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [metrics] if serves else [],
        # By port only: Kafka, the venue and the database are known by name, not by address.
        "egress": [
            {"ports": [{"protocol": kind, "port": port} for port in _DNS_PORTS for kind in ("UDP", "TCP")]},
            {"ports": [{"protocol": "TCP", "port": port} for port in sorted(set(out))]},
            *(_extra(rule) for rule in feed.spec.network_policy.extra_egress),
        ],
    }
    return child(feed, NETWORK_POLICY, name, component, {"spec": spec})


def _extra(rule: EgressRule) -> Object:
    declared: Object = rule.model_dump(by_alias=True, exclude_none=True, mode="json")
    return {key: value for key, value in declared.items() if value}


def _kafka_ports(feed: Feed) -> list[int]:
    # The brokers' own listeners have the port of the bootstrap listener in Strimzi and most other clusters.
    return [int(server.rpartition(":")[2]) for server in bootstrap_servers(feed).split(",")]


def _venue_ports(feed: Feed) -> list[int]:
    endpoints = feed.spec.endpoints
    given = [url for url in (endpoints.websocket, endpoints.rest) if url] if endpoints else []
    own = [urlsplit(url).port or (443 if url.startswith(("wss", "https")) else 80) for url in given]
    return own if len(given) == 2 else [*own, *_VENUE_PORTS]


def _database_port(feed: Feed) -> int:
    storage = feed.spec.storage
    if storage is None:
        raise ValueError("a feed without storage has no database")
    return storage.port or _DATABASE_PORTS[storage.engine]
