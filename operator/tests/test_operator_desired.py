"""Children, as pure functions: the effect of each field of the spec, and invariants of all pods."""

import copy
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from marketfeed_consumers.settings import ConsumerSettings, DatabaseSettings
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.assign import ShardAssignment
from marketfeed_operator.desired import Child, Defaults, Feed, desired, stored_assignment
from marketfeed_operator.facts import child_facts
from marketfeed_operator.names import FEED, INSTANCE, MAX_FEED_NAME, SHARD, consumer_component, consumer_name
from marketfeed_service.settings import read
from marketfeed_wire.assignment import decode_assignment
from marketfeed_workers.settings import WorkerSettings

EVERYTHING = {"KafkaTopic", "PodMonitor", "ScaledObject"}
SHARDS = {
    0: ShardAssignment(frozenset("AB"), frozenset("B")),
    3: ShardAssignment(frozenset("C"), frozenset()),
}
SPEC: dict[str, Any] = {
    "venue": "binance_us",
    "symbols": ["A", "B", "C"],
    "kafka": {
        "cluster": {"name": "market"},
        "manageTopics": True,
        "credentials": {
            "sasl": {"secretName": "user", "usernameKey": "name"},
            "tls": {"caSecretName": "ca", "clientSecretName": "user"},
        },
    },
    "endpoints": {"websocket": "wss://proxy:8443", "rest": "https://proxy"},
    "ingestion": {"rotation": {"afterMinutes": 60, "quietWindowUtc": "02:00-03:00"}},
    "storage": {"engine": "cockroachdb", "dsnSecretName": "database", "retention": {"tradesDays": 90}},
    "consumers": {"trades": {"autoscaling": {"maxReplicas": 4}}, "bookTicker": {"replicas": 2}},
    "monitoring": {"labels": {"release": "prometheus"}},
}


def feed(**changes: Any) -> Feed:
    spec = parse({**copy.deepcopy(SPEC), **changes})
    assert isinstance(spec, Spec), spec
    return Feed("default", "feed", "uid", 1, spec, Defaults("worker:1", "consumer:1"))


def children(declared: Feed, kinds: set[str] = EVERYTHING) -> dict[tuple[str, str], Child]:
    found = desired(declared, SHARDS, kinds)
    assert len({child.key for child in found}) == len(found)
    return {(child.kind.kind, child.name): child for child in found}


def pods(declared: Feed) -> dict[str, dict[str, Any]]:
    found = children(declared).items()
    return {name: template for (_, name), child in found for template in pods_of(child.body or {})}


def pods_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod template of a workload; nothing for other objects."""
    spec = body.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    return [spec["template"]] if "template" in spec else []


JOBS = {"migrate", "retain"}
"""Containers of Jobs."""


def env(template: dict[str, Any]) -> dict[str, Any]:
    return {
        each["name"]: each.get("value", each.get("valueFrom"))
        for each in template["spec"]["containers"][0]["env"]
    }


def test_desired_children_of_a_full_feed():
    assert sorted(children(feed())) == [
        ("ConfigMap", "feed-shard-0"), ("ConfigMap", "feed-shard-3"), ("CronJob", "feed-retain"),
        ("Deployment", "feed-shard-0"), ("Deployment", "feed-shard-3"),
        ("Job", next(name for kind, name in children(feed()) if kind == "Job")),
        ("KafkaTopic", "market-book-ticker-raw-92c3bfae"), ("KafkaTopic", "market.gaps"),
        ("KafkaTopic", "market.progress"), ("KafkaTopic", "market.rejected.raw"),
        ("KafkaTopic", "market.trades.raw"),
        ("NetworkPolicy", "feed-consumer-book"), ("NetworkPolicy", "feed-consumer-trades"),
        ("NetworkPolicy", "feed-ingestion"), ("NetworkPolicy", "feed-migration"),
        ("NetworkPolicy", "feed-retention"),
        ("PodDisruptionBudget", "feed-consumer-book"), ("PodDisruptionBudget", "feed-consumer-trades"),
        ("PodDisruptionBudget", "feed-ingestion"), ("PodMonitor", "feed-pods"),
        ("ScaledObject", "feed-consumer-trades"),
        ("Service", "feed-consumer-book"), ("Service", "feed-consumer-trades"),
        ("ServiceAccount", "feed-pods"),
        ("StatefulSet", "feed-consumer-book"), ("StatefulSet", "feed-consumer-trades"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"storage": None, "consumers": None}, {"StatefulSet", "Job", "CronJob", "Service", "ScaledObject"}),
        ({"storage": {"engine": "cockroachdb", "dsnSecretName": "database"}}, {"CronJob"}),
        ({"consumers": {}}, {"ScaledObject"}),
        ({"monitoring": {"podMonitor": False}}, {"PodMonitor"}),
        ({"networkPolicy": {"enabled": False}}, {"NetworkPolicy"}),
        ({"serviceAccount": {"name": "theirs"}}, {"ServiceAccount"}),
        ({"kafka": {"bootstrapServers": "k:9092"}}, {"KafkaTopic"}),
        ({"consumers": {"trades": {"replicas": 1}, "bookTicker": {}}}, {"ScaledObject"}),
    ],
    ids=[
        "no storage",
        "no retention",
        "consumers not set",
        "no monitor",
        "no network policies",
        "existing ServiceAccount",
        "topics not managed",
        "no autoscaling",
    ],
)
def test_desired_children_exclude_disabled_options(changes, gone):
    given = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
    spec = parse(given)
    assert isinstance(spec, Spec), spec
    before = {kind for kind, _ in children(feed())}
    after = {kind for kind, _ in children(Feed("default", "feed", "uid", 1, spec, Defaults("w", "c")))}
    assert before - after == gone


def test_desired_children_exclude_kinds_without_crd():
    with_keda, without = children(feed()), children(feed(), set())
    assert not {kind for kind, _ in without} & EVERYTHING
    key = ("StatefulSet", "feed-consumer-trades")
    assert "replicas" not in with_keda[key].body["spec"]
    assert without[key].body["spec"]["replicas"] == 1


@pytest.mark.parametrize("name", sorted(pods(feed())))
def test_pods_follow_the_restricted_standard_and_have_limits(name):
    template = pods(feed())[name]
    spec, container = template["spec"], template["spec"]["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["requests"]
    assert container["resources"]["limits"]["memory"]
    given = {mount["name"] for mount in container["volumeMounts"]}
    assert given == {volume["name"] for volume in spec["volumes"]}


def test_pods_have_no_fixed_user_unless_configured():
    """OpenShift refuses a user that is not of the namespace's range, and sets one where there is none."""

    def users(declared: Feed) -> set[tuple[int | None, ...]]:
        keys = ("runAsUser", "runAsGroup", "fsGroup")
        found = [template["spec"]["securityContext"] for template in pods(declared).values()]
        containers = [
            each["securityContext"]
            for template in pods(declared).values()
            for each in template["spec"]["containers"]
        ]
        assert not any(key in each for each in containers for key in keys)
        return {tuple(each.get(key) for key in keys) for each in found}

    assert users(feed()) == {(None, None, None)}
    installed = replace(feed(), defaults=Defaults("w", "c", run_as_user=5, run_as_group=6, fs_group=7))
    assert users(installed) == {(5, 6, 7)}
    own = feed(template={"securityContext": {"runAsUser": 1_000_680_000}})
    assert users(replace(own, defaults=installed.defaults)) == {(1_000_680_000, 6, 7)}


def test_database_certificate_is_verified_with_the_configured_ca_everywhere():
    storage = {**SPEC["storage"], "tls": {"caSecretName": "database-ca"}}
    for name, template in pods(feed(storage=storage)).items():
        volumes = {each["name"]: each for each in template["spec"]["volumes"]}
        (container,) = template["spec"]["containers"]
        mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        if "DATABASE_URL" not in env(template):
            assert "database-ca" not in volumes, name
            continue
        assert volumes["database-ca"]["secret"] == {"secretName": "database-ca"}
        assert env(template)["PGSSLMODE"] == "verify-full"
        assert env(template)["PGSSLROOTCERT"] == f"{mounted['database-ca']}/ca.crt"
    assert not any("PGSSLMODE" in env(template) for template in pods(feed()).values())


@pytest.mark.parametrize(
    "name", sorted(name for name in pods(feed()) if not any(job in name for job in JOBS))
)
def test_pods_have_probes_and_consistent_timeouts(name):
    template = pods(feed())[name]
    container = template["spec"]["containers"][0]
    assert {container[each]["httpGet"]["path"] for each in ("startupProbe", "livenessProbe")} == {"/livez"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    pre_stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = int(env(template)["DRAIN_DEADLINE_SECONDS"])
    # Five seconds of overlap with the successor, for workloads that have one; then the drain; then a margin.
    assert pre_stop == (5 if "shard" in name else 0)
    assert template["spec"]["terminationGracePeriodSeconds"] == pre_stop + drain + 10
    spread = template["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    for each in spread:
        assert each["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_deployment_surges_and_budget_allows_one_disruption():
    found = children(feed())
    assert found["Deployment", "feed-shard-3"].body["spec"]["strategy"] == {
        "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }  # fmt: skip
    templates = pods(feed())
    for name, pod in (
        ("feed-ingestion", "feed-shard-3"),
        *(("feed-consumer-" + each,) * 2 for each in ("trades", "book")),
    ):
        budget = found["PodDisruptionBudget", name].body["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= templates[pod]["metadata"]["labels"].items()


def test_environment_variables_are_settings_of_the_services():
    """The contract with the services, checked by their own settings types."""
    by_image: dict[str, type[BaseModel]] = {
        "worker": WorkerSettings,
        "consumer": ConsumerSettings,
        **dict.fromkeys(JOBS, DatabaseSettings),
    }
    for declared in (feed(), feed(streams=["trade"], consumers={"trades": {}})):
        for template in pods(declared).values():
            settings = by_image[template["spec"]["containers"][0]["name"]]
            known = {name.upper() for name in settings.model_fields}
            assert set(env(template)) <= known


SECRETS = {
    "DATABASE_URL": "postgresql://user@host/db", "KAFKA_SASL_USERNAME": "user", "KAFKA_SASL_PASSWORD": "secret",
    "KAFKA_GROUP_INSTANCE_ID": "feed-consumer-trades-0",
}  # fmt: skip


@pytest.mark.parametrize("streams", [["trade", "bookTicker"], ["trade"], ["bookTicker"]], ids="-".join)
def test_environment_is_accepted_by_the_services_settings(streams):
    """Including the values: the services' own settings accept them, with the Secrets filled in. Without TLS, which
    needs files.
    """
    by_image: dict[str, Any] = {
        "worker": WorkerSettings,
        "consumer": ConsumerSettings,
        **dict.fromkeys(JOBS, DatabaseSettings),
    }
    kafka = {**SPEC["kafka"], "credentials": {"sasl": {"secretName": "user", "usernameKey": "name"}}}
    for template in pods(feed(streams=streams, consumers=None, kafka=kafka)).values():
        given = {
            name: value if isinstance(value, str) else SECRETS[name] for name, value in env(template).items()
        }
        read(by_image[template["spec"]["containers"][0]["name"]], given)


def test_environment_contains_no_secret_values():
    for template in pods(feed()).values():
        for name in ("DATABASE_URL", "KAFKA_SASL_PASSWORD", "KAFKA_SASL_USERNAME"):
            if name in env(template):
                assert "secretKeyRef" in env(template)[name]


def test_pod_template_changes_with_settings_and_not_with_symbols():
    def hashes(declared: Feed, shards: dict[int, ShardAssignment]) -> list[str]:
        found = desired(declared, shards, set())
        return [
            child.body["spec"]["template"]["metadata"]["annotations"]["marketfeed.dev/config-hash"]
            for child in found
            if child.body and child.kind.kind == "Deployment"
        ]

    other = {**SHARDS, 0: ShardAssignment(frozenset("ABXYZ"), frozenset())}
    assert hashes(feed(), SHARDS) == hashes(feed(symbols=["A"], shardSize=7), other)
    assert hashes(feed(), SHARDS) != hashes(feed(logging={"level": "DEBUG"}), SHARDS)
    assert hashes(feed(), SHARDS) != hashes(
        feed(template={"annotations": {"example.com/again": "1"}}), SHARDS
    )


def test_migration_name_depends_on_image_and_database_only():
    def job(**changes: Any) -> str:
        return next(name for kind, name in children(feed(**changes)) if kind == "Job")

    assert job() == job(logging={"level": "DEBUG"}) == job(symbols=["X"])
    assert job() != job(images={"consumer": "consumer:2"})
    assert job() != job(storage={"engine": "cockroachdb", "dsnSecretName": "other"})
    assert job() == job(storage={"engine": "cockroachdb", "dsnSecretName": "database"}), (
        "retention is not an input"
    )


def test_topics_have_no_owner():
    for (kind, _), child in children(feed()).items():
        metadata = child.body["metadata"]
        assert ("ownerReferences" in metadata) == (kind != "KafkaTopic")
        # Argo CD tracks objects by this label and prunes those that are not in Git, data included.
        assert (INSTANCE in metadata["labels"]) == (kind != "KafkaTopic")


def test_network_policies_allow_only_the_configured_egress():
    def out(name: str) -> set[int]:
        body = children(feed())[("NetworkPolicy", name)].body
        return {port["port"] for rule in body["spec"]["egress"] for port in rule["ports"]}

    assert out("feed-ingestion") == {53, 5353, 9093, 8443, 443}
    assert out("feed-consumer-trades") == {53, 5353, 9093, 26257}
    assert out("feed-migration") == out("feed-retention") == {53, 5353, 26257}


def test_config_map_round_trips_and_is_empty_when_damaged():
    for shard, reading in SHARDS.items():
        body = children(feed())[("ConfigMap", f"feed-shard-{shard}")].body
        assert stored_assignment(body["data"]) == reading
    assert stored_assignment({"assignment.json": "{"}) == ShardAssignment(frozenset(), frozenset())


def test_config_map_is_read_and_written_for_the_version_before():
    shard, reading = next((shard, each) for shard, each in SHARDS.items() if each.draining)
    data = children(feed())[("ConfigMap", f"feed-shard-{shard}")].body["data"]
    before = {key: data[key] for key in ("assignment.json", "leaving.json")}
    assert set(json.loads(before["leaving.json"])) == reading.draining
    assert stored_assignment(before) == reading


@pytest.mark.parametrize(
    ("ingestion", "share"),
    [
        pytest.param({}, 2, id="all workers of the feed, because they may share one IP address"),
        pytest.param({"replicas": 2}, 4, id="including hot-hot pods"),
        pytest.param({"replicas": 2, "venueBudgetShare": 7}, 7, id="set by the user"),
    ],
)
def test_config_map_contains_the_rate_limit_share(ingestion, share):
    given = children(feed(ingestion=ingestion))
    for shard in SHARDS:
        body = given[("ConfigMap", f"feed-shard-{shard}")].body
        assert decode_assignment(body["data"]["assignment.json"].encode()).budget_share == share
    one_shard = {
        child.name: child for child in desired(feed(ingestion=ingestion), {0: SHARDS[0]}, EVERYTHING)
    }
    many = given[("Deployment", "feed-shard-0")].body
    assert one_shard["feed-shard-0"].body["spec"]["template"] == many["spec"]["template"]


AWAY = {
    "requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "zone"}
    ]
}


def test_pod_template_of_the_user_is_merged_without_overriding_labels():
    template = {
        "labels": {"team": "data"}, "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high",
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        "affinity": {"podAntiAffinity": AWAY}, "imagePullSecrets": ["registry"],
    }  # fmt: skip
    for pod in pods(feed(template=template)).values():
        assert pod["metadata"]["labels"]["team"] == "data"
        assert pod["metadata"]["labels"][FEED] == "feed"
        assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}
        assert pod["spec"]["tolerations"] == [
            {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
        ]
        assert pod["spec"]["affinity"]["podAntiAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ] == [
            {
                "labelSelector": {"matchLabels": {"app": "x"}, "matchExpressions": []},
                "topologyKey": "zone",
                "namespaces": [],
            }
        ]
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["spec"]["priorityClassName"] == "high"


def test_pod_monitor_labels_are_merged_without_overriding_ours():
    def monitor(labels: dict[str, str]) -> dict[str, Any]:
        return children(feed(monitoring={"labels": labels}))[("PodMonitor", "feed-pods")].body["metadata"]

    before, after = monitor({"release": "a"}), monitor({"release": "b", FEED: "another"})
    assert after["labels"]["release"] == "b"
    assert after["labels"][FEED] == "feed"
    assert before["annotations"] != after["annotations"], "otherwise the operator takes them for the same"


@pytest.mark.parametrize(
    ("consumers", "replicas"),
    [
        (None, (1, 1)),
        ({}, (1, 1)),
        ({"trades": {"replicas": 3}}, (3, 1)),
        ({"bookTicker": {"replicas": 0}}, (1, 0)),
    ],
    ids=["no consumers", "empty", "only trades, as kubectl scale writes", "no quotes"],
)
def test_streams_without_an_entry_have_one_consumer(consumers, replicas):
    found = children(feed(consumers=consumers))
    names = ("feed-consumer-trades", "feed-consumer-book")
    assert tuple(found["StatefulSet", name].body["spec"]["replicas"] for name in names) == replicas


def test_consumer_groups_are_per_topic_with_static_members():
    found = children(feed())
    reported = {name: env(found["StatefulSet", name].body["spec"]["template"]) for name in
            ("feed-consumer-trades", "feed-consumer-book")}  # fmt: skip
    trades, book = reported.values()
    assert trades["KAFKA_GROUP"] == "marketfeed.default.feed.trades"
    assert book["KAFKA_GROUP"] == "marketfeed.default.feed.book"
    assert trades["CONSUMER_TOPICS"] == "market.trades.raw,market.gaps,market.rejected.raw"
    assert book["CONSUMER_TOPICS"] == "market.book_ticker.raw"
    for each in reported.values():
        assert each["KAFKA_GROUP_INSTANCE_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    (trigger,) = found["ScaledObject", "feed-consumer-trades"].body["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == trades["KAFKA_GROUP"], (
        "otherwise it scales by the lag of another"
    )


def test_environment_one_connection_per_shard_for_any_shard_size():
    for size in (1, 512):
        pod = env(pods(feed(shardSize=size))["feed-shard-0"])
        assert pod["WS_SHARD_SIZE"] == "512"
        assert pod["SYMBOLS_FILE"] == "/etc/marketfeed/assignment/assignment.json"


@pytest.mark.parametrize("stream", ["trade", "bookTicker"])
def test_names_of_consumers_fit_the_controller_revision_hash_label(stream):
    """Their label controller-revision-hash is the StatefulSet's name, a hyphen and up to 10 digits."""
    names = {feed * length: consumer_name(feed * length, stream) for feed in "ab" for length in range(1, 41)}
    assert len(set(names.values())) == len(names)
    for feed_name, name in names.items():
        assert len(f"{name}-{'0' * 10}") <= 63
        assert name.endswith(f"-{consumer_component(stream)}")
        if len(feed_name) <= 36:
            assert name == f"{feed_name}-{consumer_component(stream)}", "unchanged"
    cut = consumer_name("a" * 26 + "-" * 3 + "b" * 11, stream)
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)+", cut), cut


LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
HASH, RANDOM = "0" * 10, "0" * 5
"""The longest hash that a controller appends to a name, and the suffix of a `generateName`."""


def derived(child: Child, body: dict[str, Any]) -> dict[str, list[str]]:
    """Return pod names (hostnames) and label values that Kubernetes and KEDA derive from a child's name."""
    name = child.name
    match child.kind.kind:
        case "Deployment":
            # The API server cuts a generateName at 58 characters: the set of pods has a name of its own.
            return {"pods": [f"{f'{name}-{HASH}-'[:58]}{RANDOM}"], "labels": [HASH]}
        case "StatefulSet":
            pod = f"{name}-999"  # replicas and maxReplicas are 1000 at most
            return {"pods": [pod], "labels": [f"{name}-{HASH}", pod, body["spec"]["serviceName"]]}
        case "Job":
            return {"pods": [f"{f'{name}-'[:58]}{RANDOM}"], "labels": [name]}
        case "CronJob":
            job = f"{name}-{'0' * 10}"  # minutes since 1970; eleven characters are kept for them
            return {"pods": [f"{f'{job}-'[:58]}{RANDOM}"], "labels": [job]}
        case "ScaledObject":
            return {"pods": [], "labels": [name, f"keda-hpa-{name}"]}
    return {"pods": [], "labels": []}


def labels_in(value: Any) -> list[str]:
    """Return all label values of an object, its pod template and its selectors."""
    if isinstance(value, list):
        return [found for each in value for found in labels_in(each)]
    if not isinstance(value, dict):
        return []
    own = [found for key in ("labels", "matchLabels") for found in (value.get(key) or {}).values()]
    return own + [found for each in value.values() for found in labels_in(each)]


@given(name=st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True))
@example(name="a" * MAX_FEED_NAME)
@example(name="a" + "-" * (MAX_FEED_NAME - 2) + "9")
@example(name="a" * (MAX_FEED_NAME - 3))
@example(name="a")
def test_names_that_kubernetes_derives_from_children_fit_for_every_feed_name(name):
    """For every name that the CRD accepts: pod names, which are hostnames, and label values."""
    shards = {number: ShardAssignment(frozenset("A"), frozenset()) for number in (0, 9_999)}
    declared = replace(feed(), name=name, namespace="n" * 63)
    found = desired(declared, shards, EVERYTHING)
    assert len({child.key for child in found}) == len(found)
    kinds = {child.kind.kind for child in found}
    assert {"Deployment", "StatefulSet", "Job", "CronJob", "Service", "ScaledObject"} <= kinds
    for child in found:
        body = child.body
        assert body is not None
        if child.kind.kind != "KafkaTopic":  # named after the topic
            assert DNS_LABEL.fullmatch(child.name), child.key
        made = derived(child, body)
        for pod in made["pods"]:
            assert DNS_LABEL.fullmatch(pod), pod
        for value in [*made["labels"], *labels_in(body)]:
            assert LABEL_VALUE.fullmatch(value), (child.key, value)
        if child.kind.kind == "CronJob":
            assert len(child.name) <= 52
        for each in pods_of(body):
            volumes = [volume["name"] for volume in each["spec"]["volumes"]]
            assert all(DNS_LABEL.fullmatch(volume) for volume in volumes)
            group = {entry["name"]: entry.get("value") for entry in each["spec"]["containers"][0]["env"]}
            assert len(group.get("KAFKA_GROUP") or "") <= 249


@pytest.mark.parametrize("kind", ["ConfigMap", "ServiceAccount", "Deployment"])
def test_facts_are_equal_for_an_object_and_a_list_item(kind):
    """The API server omits apiVersion and kind in the items of a list."""
    body = next(child.body for (found, _), child in children(feed()).items() if found == kind)
    alone = {**body, "metadata": {**body["metadata"], "uid": "1", "resourceVersion": "1"}}
    listed = {key: value for key, value in alone.items() if key not in ("apiVersion", "kind")}
    assert child_facts(kind, alone) == child_facts(kind, listed)


def relabelled(pod_labels: dict[str, str]) -> dict[str, str]:
    """Return what Prometheus makes of a pod's labels by the monitor's relabelings (action replace, anchored
    expressions).
    """
    found = {
        "__meta_kubernetes_pod_label_" + re.sub("[^a-zA-Z0-9]", "_", name): value
        for name, value in pod_labels.items()
    }
    (endpoint,) = children(feed())[("PodMonitor", "feed-pods")].body["spec"]["podMetricsEndpoints"]
    for rule in endpoint["relabelings"]:
        joined = rule.get("separator", ";").join(found.get(name, "") for name in rule["sourceLabels"])
        if matched := re.fullmatch(rule.get("regex", "(.*)"), joined):
            found[rule["targetLabel"]] = matched[1]
    return {name: value for name, value in found.items() if not name.startswith("__")}


def test_pod_monitor_labels_series_with_feed_component_and_shard():
    seen = {name: relabelled(template["metadata"]["labels"]) for name, template in pods(feed()).items()}
    assert seen["feed-shard-3"] == {"feed": "feed", "component": "ingestion", "shard": "feed-shard-3"}
    assert seen["feed-shard-3"]["shard"] == env(pods(feed())["feed-shard-3"])["SHARD"]
    assert seen["feed-consumer-trades"] == {"feed": "feed", "component": "consumer-trades"}
    assert seen["feed-consumer-book"] == {"feed": "feed", "component": "consumer-book"}


def test_pod_monitor_selects_the_pods_and_port_of_every_service():
    body = children(feed())[("PodMonitor", "feed-pods")].body["spec"]
    (endpoint,) = body["podMetricsEndpoints"]
    for template in pods(feed()).values():
        assert body["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        container = template["spec"]["containers"][0]
        ports = [port["name"] for port in container.get("ports", [])]
        assert ports == ([] if container["name"] in JOBS else [endpoint["port"]])


def test_pod_monitor_shard_label_matches_the_workers():
    assert children(feed())[("Deployment", "feed-shard-3")].body["metadata"]["labels"][SHARD] == "3"
