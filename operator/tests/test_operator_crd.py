"""The resource: Python and the API server accept and refuse the same specs, with the same messages."""

import copy
import json
from typing import Any

import pytest
import yaml
from operator_support import KINDS, REPOSITORY, Admin

from marketfeed_operator.api import Spec, parse
from marketfeed_operator.api.crd import NAME_RULES, crd, to_yaml
from marketfeed_operator.api.rules import Declared
from marketfeed_operator.errors import ApiError, Invalid

BASE: dict[str, Any] = {
    "venue": "binance_us",
    "symbols": ["BTCUSDT"],
    "kafka": {"bootstrapServers": "kafka:9092"},
    "storage": {"engine": "postgresql", "dsnSecretName": "database"},
}
STRIMZI = {"cluster": {"name": "market"}, "bootstrapServers": None}


def spec(**changes: Any) -> dict[str, Any]:
    """Return BASE with fields changed; None removes a field, a dictionary is merged."""
    result = copy.deepcopy(BASE)
    for key, value in changes.items():
        merged = (
            {**result[key], **value}
            if isinstance(value, dict) and isinstance(result.get(key), dict)
            else value
        )
        if isinstance(merged, dict):
            merged = {name: found for name, found in merged.items() if found is not None}
        result[key] = merged
    return {key: value for key, value in result.items() if value is not None}


SASL = {"secretName": "kafka", "username": "me"}
AUTOSCALING = {"minReplicas": 1, "maxReplicas": 2}


def kept(**retention: Any) -> dict[str, Any]:
    return spec(storage={"retention": retention})


# Each rule: its message, an example that it refuses, and the nearest one that it accepts.
RULES = [
    (
        "give exactly one of symbols and symbolSelector",
        spec(symbolSelector={}),
        spec(symbols=None, symbolSelector={}),
    ),
    ("give exactly one of symbols and symbolSelector", spec(symbols=None), spec()),
    ("streams has duplicates", spec(streams=["trade", "trade"]), spec(streams=["bookTicker", "trade"])),
    ("consumers need storage", spec(storage=None, consumers={}), spec(consumers={})),
    (
        "consumers.trades needs the stream trade",
        spec(streams=["bookTicker"], consumers={"trades": {}}),
        spec(streams=["trade"], consumers={"trades": {}}),
    ),
    (
        "consumers.bookTicker needs the stream bookTicker",
        spec(streams=["trade"], consumers={"bookTicker": {}}),
        spec(streams=["bookTicker"], consumers={"bookTicker": {}}),
    ),
    (
        "consumers.trades.replicas is above kafka.topics.trades.partitions",
        spec(kafka={**STRIMZI, "manageTopics": True}, consumers={"trades": {"replicas": 7}}),
        spec(kafka={**STRIMZI, "manageTopics": True}, consumers={"trades": {"replicas": 6}}),
    ),
    (
        "consumers.bookTicker.replicas is above kafka.topics.bookTicker.partitions",
        spec(kafka={**STRIMZI, "manageTopics": True}, consumers={"bookTicker": {"replicas": 7}}),
        spec(kafka=STRIMZI, consumers={"bookTicker": {"replicas": 7}}),
    ),
    (
        "give exactly one of kafka.cluster and kafka.bootstrapServers",
        spec(kafka={"cluster": {"name": "market"}}),
        spec(kafka=STRIMZI),
    ),
    (
        "kafka.manageTopics needs kafka.cluster",
        spec(kafka={"manageTopics": True}),
        spec(kafka={**STRIMZI, "manageTopics": True}),
    ),
    (
        "the names of kafka.topics must differ",
        spec(kafka={"topics": {"trades": {"name": "market.progress"}}}),
        spec(kafka={"topics": {"trades": {"name": "market.trades"}}}),
    ),
    (
        "and by more than . and _",
        spec(kafka={"topics": {"trades": {"name": "market_book.ticker_raw"}}}),
        spec(kafka={"topics": {"trades": {"name": "market-book-ticker-raw"}}}),
    ),
    (
        "give exactly one of sasl.username and sasl.usernameKey",
        spec(kafka={"credentials": {"sasl": {**SASL, "usernameKey": "user"}}}),
        spec(kafka={"credentials": {"sasl": SASL}}),
    ),
    (
        "autoscaling.minReplicas must not be above autoscaling.maxReplicas",
        spec(consumers={"trades": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}}),
        spec(consumers={"trades": {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}}),
    ),
    (
        "set replicas or autoscaling, not both",
        spec(consumers={"trades": {"replicas": 1, "autoscaling": AUTOSCALING}}),
        spec(consumers={"trades": {"autoscaling": AUTOSCALING}}),
    ),
    ("retention has no value", kept(schedule="23 3 * * *"), kept(deadLettersDays=1)),
    ("retention.schedule is not a schedule", kept(tradesDays=1, schedule="@daily"), kept(tradesDays=1)),
    (
        "template.labels may not use keys under marketfeed.dev/",
        spec(template={"labels": {"marketfeed.dev/feed": "mine"}}),
        spec(template={"labels": {"team": "mine"}}),
    ),
    (
        "template.annotations may not use keys under marketfeed.dev/",
        spec(template={"annotations": {"app.kubernetes.io/name": "mine"}}),
        spec(template={"annotations": {"example.com/restarted": "1"}}),
    ),
]

RULES += [
    (
        "sasl.mechanism PLAIN without tls sends the password in clear text",
        spec(kafka={"credentials": {"sasl": {**SASL, "mechanism": "PLAIN"}}}),
        spec(kafka={"credentials": {"sasl": {**SASL, "mechanism": "PLAIN"}, "tls": {}}}),
    ),
    *(
        (
            f"{path} has an invalid key",
            wrap({key: "x"}),
            wrap({"example.com/a.b_c": "x"}),
        )
        for path, wrap in (
            ("template.labels", lambda found: spec(template={"labels": found})),
            ("template.annotations", lambda found: spec(template={"annotations": found})),
            ("template.nodeSelector", lambda found: spec(template={"nodeSelector": found})),
            ("monitoring.labels", lambda found: spec(monitoring={"labels": found})),
            ("serviceAccount.annotations", lambda found: spec(serviceAccount={"annotations": found})),
        )
        for key in ("", "a b", "-a", "a/b/c", "UPPER/a", f"{'p' * 254}/a", "n" * 64)
    ),
    *(
        (
            f"resources.{field} has an unsupported resource name",
            spec(ingestion={"resources": {field: {key: "1"}}}),
            spec(ingestion={"resources": {field: {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}}}),
        )
        for field in ("requests", "limits")
        for key in ("gpu", "CPU", "", "nvidia.com/gpu", "hugepages-2Mi")
    ),
    *(
        (
            "resources.requests of a resource is above its limit",
            spec(ingestion={"resources": {"requests": {name: above}, "limits": {name: limit}}}),
            spec(ingestion={"resources": {"requests": {name: limit}, "limits": {name: above}}}),
        )
        for name, above, limit in (
            ("cpu", 2, "1999m"),
            ("cpu", "1e3", 999),
            ("cpu", "1.", "900000u"),
            ("memory", "1Gi", "1G"),
            ("memory", "129e6", "128M"),
            ("memory", "+1Ei", "1E"),
            ("memory", ".5k", 499),
        )
    ),
    (
        "a toleration without key needs operator: Exists",
        spec(template={"tolerations": [{"effect": "NoSchedule"}]}),
        spec(template={"tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]}),
    ),
    (
        "a toleration with operator Exists has no value",
        spec(template={"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}),
        spec(template={"tolerations": [{"key": "a", "operator": "Equal", "value": "b"}]}),
    ),
    (
        "tolerationSeconds needs effect: NoExecute",
        spec(template={"tolerations": [{"key": "a", "value": "b", "tolerationSeconds": 1}]}),
        spec(template={"tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 1}]}),
    ),
    (
        "serviceAccount.annotations apply to the created ServiceAccount",
        spec(serviceAccount={"name": "mine", "annotations": {}}),
        spec(serviceAccount={"annotations": {"eks.amazonaws.com/role-arn": "x"}}),
    ),
    (
        "a peer of networkPolicy.extraEgress has either an ipBlock or selectors",
        spec(
            networkPolicy={"extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]}
        ),
        spec(networkPolicy={"extraEgress": [{"to": [{"namespaceSelector": {}, "podSelector": {}}]}]}),
    ),
    *(
        (
            "each except of an ipBlock of networkPolicy.extraEgress must be a range within cidr, and smaller",
            spec(
                networkPolicy={
                    "extraEgress": [{"to": [{"ipBlock": {"cidr": cidr, "except": [taken, refused]}}]}]
                }
            ),
            spec(networkPolicy={"extraEgress": [{"to": [{"ipBlock": {"cidr": cidr, "except": [taken]}}]}]}),
        )
        for cidr, refused, taken in (
            ("10.0.0.0/8", "11.0.0.0/16", "10.1.0.0/16"),
            ("10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9"),
            ("10.0.0.0/8", "0.0.0.0/0", "10.255.255.255/32"),
            ("10.0.0.0/8", "fd00::/16", "10.1.2.3/16"),
            ("10.9.9.9/8", "11.9.9.9/16", "10.1.0.0/16"),
            ("fd00::/8", "fe00::/16", "fd00:1::/32"),
            ("fd00::/8", "10.0.0.0/16", "fd00::/9"),
            ("::/0", "0.0.0.0/1", "::/1"),
        )
    ),
    (
        "endPort of networkPolicy.extraEgress must not be below port",
        spec(networkPolicy={"extraEgress": [{"ports": [{"port": 9, "endPort": 8}]}]}),
        spec(networkPolicy={"extraEgress": [{"ports": [{"port": 8, "endPort": 9}]}]}),
    ),
]

SELECTED = {"labelSelector": {}, "topologyKey": "kubernetes.io/hostname"}


def near(**selector: Any) -> dict[str, Any]:
    return spec(
        template={
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {**SELECTED, "labelSelector": selector}
                    ]
                }
            }
        }
    )


def on_nodes(**term: Any) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [term]}
    return spec(
        template={"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
    )


def compared(operator: str, *values: str) -> list[dict[str, Any]]:
    return [{"key": "a", "operator": operator, "values": list(values)}]


# Accepted by an earlier CRD, and then refused by the API server in a child.
RULES += [
    *(
        (
            "a key has at most 253 characters before its / and 63 after it",
            wrap(f"{'p' * 254}/a"),
            wrap(f"{'p' * 253}/a"),
        )
        for wrap in (
            lambda key: spec(template={"tolerations": [{"key": key, "operator": "Exists"}]}),
            lambda key: on_nodes(matchExpressions=[{"key": key, "operator": "Exists"}]),
            lambda key: near(matchExpressions=[{"key": key, "operator": "Exists"}]),
        )
    ),
    *(
        (
            f"the path of endpoints.{field} contains",
            spec(endpoints={field: refused}),
            spec(endpoints={field: taken}),
        )
        for field, refused, taken in (
            ("websocket", "wss://proxy/ws", "wss://ws"),
            ("websocket", "wss://proxy:1/a//stream/", "wss://stream:1/a/streams"),
            ("websocket", "wss://[::1]/stream/b", "wss://a/wsx"),
            ("rest", "https://proxy/api", "https://api/v1"),
            ("rest", "https://proxy/a/api/v3", "https://api.example.com"),
        )
    ),
    *(
        (
            "retention.schedule has a range that ends before",
            kept(tradesDays=1, schedule=refused),
            kept(tradesDays=1, schedule=taken),
        )
        for refused, taken in (
            ("9-8 * * * *", "8-9 * * * *"),
            ("0 22-2 * * *", "0 22-23,0-2 * * *"),
            ("0 0 * * fri-mon", "0 0 * * mon-fri"),
            ("0 0 * nov-feb *", "0 0 * feb-nov *"),
            ("0 0 1,31-1/2 * *", "0 0 1,1-31/2 * *"),
            ("0 0 * * 6-sun", "0 0 * * sun-6"),
            ("0 09-8 * * *", "0 08-9 * * *"),
        )
    ),
    (
        "a name of kafka.topics begins with __",
        spec(kafka={"topics": {"gaps": {"name": "__consumer_offsets"}}}),
        spec(kafka={"topics": {"gaps": {"name": "_gaps"}}}),
    ),
    *(
        (
            "template.labels may not use keys that Kubernetes controllers set",
            spec(template={"labels": {key: "x"}}),
            spec(template={"labels": {"job": "x"}}),
        )
        for key in ("job-name", "controller-uid", "pod-template-hash", "batch.kubernetes.io/job-name")
    ),
    *(
        (
            "an expression of a label selector needs values",
            near(matchExpressions=compared(*refused)),
            near(matchExpressions=compared(*taken)),
        )
        for refused, taken in (
            (("In",), ("In", "x")),
            (("NotIn",), ("NotIn", "x")),
            (("Exists", "x"), ("Exists",)),
            (("DoesNotExist", "x"), ("DoesNotExist",)),
        )
    ),
    (
        "matchLabels has an invalid key",
        near(matchLabels={"a b": "x"}),
        near(matchLabels={"example.com/a": "x"}),
    ),
    *(
        (
            "an expression of a node selector needs values",
            on_nodes(matchExpressions=compared(*refused)),
            on_nodes(matchExpressions=compared(*taken)),
        )
        for refused, taken in (
            (("In",), ("In", "x")),
            (("Exists", "x"), ("Exists",)),
            (("Gt",), ("Gt", "5")),
            (("Lt", "5", "6"), ("Lt", "6")),
            (("Gt", "many"), ("Gt", "0")),
        )
    ),
]

# Bounds and patterns: refused by the schema itself.
BOUNDS = [
    ("venue", spec(venue="kraken")),
    ("symbols", spec(symbols=[])),
    ("symbols", spec(symbols=["btcusdt"])),
    ("symbols", spec(symbols=["BTC USDT"])),
    ("symbols", spec(symbols=[f"S{number}" for number in range(5001)])),
    ("shardSize", spec(shardSize=0)),
    ("shardSize", spec(shardSize=513)),
    ("shardSize", spec(shardSize="fifty")),
    ("ingestion.replicas", spec(ingestion={"replicas": 3})),
    ("streams", spec(streams=[])),
    ("streams", spec(streams=["candles"])),
    ("kafka.acks", spec(kafka={"acks": "2"})),
    ("kafka.bootstrapServers", spec(kafka={"bootstrapServers": "kafka"})),
    ("endpoints.websocket", spec(endpoints={"websocket": "http://simulator"})),
    ("storage.engine", spec(storage={"engine": "mysql"})),
    ("retention.tradesDays", kept(tradesDays=0)),
    ("retention.candlesDays", kept(candlesDays=100_000)),
    ("retention.bookTickersDays", kept(bookTickersDays="7")),
    ("quietWindowUtc", spec(ingestion={"rotation": {"quietWindowUtc": "25:00-26:00"}})),
    ("resources.limits", spec(ingestion={"resources": {"limits": {"memory": "lots"}}})),
    *(
        ("resources.limits", spec(ingestion={"resources": {"limits": {"cpu": value}}}))
        for value in (-1, "-1", "1 ", "1.5.2", "1Kib", "0x1", "1e", "1e400", "", ".", "+")
    ),
    *(
        ("bootstrapServers", spec(kafka={"bootstrapServers": value}))
        for value in (
            "kafka:90920",
            "kafka:0",
            "kafka:65536",
            "[fd00::1:9092",
            "fd00::1:9092",
            "[fd00:::1]:9092",
            "[::ffff]",
            "a:1,",
            "a..b:1",
            "-a:1",
            "a b:1",
            "a\n:1",
            "user@a:1",
            "[1:2:3:4:5:6:7:8:9]:1",
        )
    ),
    *(
        ("websocket", spec(endpoints={"websocket": value}))
        for value in (
            "wss://proxy:94430",
            "wss://[fd00::1",
            "wss://[fd00::1]x",
            "wss://",
            "wss:///ws",
            "wss://a?b=c",
            "wss://a#b",
            "wss://user:secret@a",
            "wss://a/$(PATH)",
            "wss://a b",
            "wss://a\x1b[31m",
            "wss://[v1.a]",
            "WSS://a",
            "wss://a:",
        )
    ),
    *(
        ("symbols", spec(symbols=[value]))
        for value in ("BTC\xa0USDT", "A\x1b[31m", "A\u202eB", "A,B", "a", "A/B", "A\0", "\ue000")
    ),
    *(
        ("images.worker", spec(images={"worker": value}))
        for value in (
            "a b",
            "UPPER/Case",
            "a:tag:tag",
            "a@sha256:1",
            "../a",
            "a//b",
            "https://a/b",
            "a:",
            "a\nb",
        )
    ),
    *(
        ("dsnSecretName", spec(storage={"dsnSecretName": value}))
        for value in ("a..b", "a.", "-a", "A", "a/b", "")
    ),
    *(("dsnKey", spec(storage={"dsnKey": value})) for value in ("..", ".", "..a", "a/b", "a b", "")),
    *(
        ("topics.trades", spec(kafka={"topics": {"trades": {"name": value}}}))
        for value in (".", "..", "a b", "a/b", "", "x" * 250)
    ),
    ("cluster.name", spec(kafka={"cluster": {"name": "x" * 48}, "bootstrapServers": None})),
    ("priorityClassName", spec(template={"priorityClassName": "Not A Name"})),
    ("username", spec(kafka={"credentials": {"sasl": {"secretName": "a", "username": "a\nb"}}})),
    *(
        ("cidr", spec(networkPolicy={"extraEgress": [{"to": [{"ipBlock": {"cidr": value}}]}]}))
        for value in (
            "everywhere",
            "10.0.0.0",
            "10.0.0.0/33",
            "256.0.0.0/8",
            "1.2.3/8",
            "fd00::/129",
            "fd00:::/8",
        )
    ),
    ("values", on_nodes(matchExpressions=compared("In", "a b"))),
    ("key", on_nodes(matchFields=[{"key": "spec.name", "operator": "In", "values": ["x"]}])),
    ("values", on_nodes(matchFields=[{"key": "metadata.name", "operator": "In", "values": []}])),
    ("runAsUser", spec(template={"securityContext": {"runAsUser": 0}})),
]

# Accepted: as in Kubernetes, Kafka and the venues.
TAKEN = [
    *(
        spec(ingestion={"resources": {"requests": {"cpu": value}}})
        for value in (
            1,
            0,
            "1",
            "0.5",
            ".5",
            "1.",
            "100m",
            "100u",
            "5n",
            "129e6",
            "1E3",
            "1e-3",
            "1Pi",
            "2E",
            "1Ei",
            "+1",
        )
    ),
    *(
        spec(kafka={"bootstrapServers": value})
        for value in (
            "kafka:9092",
            "a_b.c:1,d:65535",
            "[fd00::1]:9092",
            "[::1]:1",
            "10.0.0.1:9092",
            "[::]:9,[1::]:8",
        )
    ),
    *(
        spec(endpoints={"websocket": f"ws://{value}", "rest": f"https://{value}"})
        for value in ("a", "a:1", "a/", "a/b/c", "[fd00::1]", "[fd00::1]:9443/base", "proxy.example.com:9443")
    ),
    *(spec(symbols=[value]) for value in ("BTCUSDT", "1000SATSUSDT", "BTC-PERP", "币安人生USDT", "A_B.C:D")),
    *(
        spec(images={"worker": value})
        for value in (
            "a",
            "a:1",
            "localhost:5000/a/b_c/d--e:v1",
            f"r.example/a@sha256:{'0' * 64}",
            f"a:1@sha256:{'a' * 64}",
        )
    ),
]


@pytest.mark.parametrize(
    ("message", "refused", "accepted"),
    RULES,
    ids=[f"{rule[0]} {number}" for number, rule in enumerate(RULES)],
)
def test_crd_rule_is_enforced_in_python(message, refused, accepted):
    problems = parse(refused)
    assert isinstance(problems, list)
    assert any(message in problem for problem in problems), problems
    assert isinstance(parse(accepted), Spec), parse(accepted)


@pytest.mark.parametrize(("field", "refused"), BOUNDS, ids=[f"{f} {n}" for n, (f, _) in enumerate(BOUNDS)])
def test_crd_bound_is_enforced_in_python_with_the_field_name(field, refused):
    problems = parse(refused)
    assert isinstance(problems, list)
    assert any(field in problem for problem in problems), problems


@pytest.mark.parametrize("taken", TAKEN, ids=range(len(TAKEN)))
def test_crd_valid_value_is_accepted_in_python(taken):
    assert isinstance(parse(taken), Spec), parse(taken)


def test_crd_rules_all_have_examples():
    def rules(declared: type[Declared]) -> set[str]:
        below = {message for child in declared.__subclasses__() for message in rules(child)}
        return {rule.message for rule in declared.rules} | below

    examples = [rule[0] for rule in (*RULES, *CHANGES)]
    assert [text for text in rules(Declared) if not text.startswith(tuple(examples))] == []


def test_crd_unknown_field_is_reported():
    assert parse(spec(shardsize=5)) == ["spec.shardsize is not a field of a MarketFeed"]


def test_crd_problems_are_reported_together():
    problems = parse({"symbols": ["BTCUSDT"], "shardSize": 0})
    assert isinstance(problems, list)
    assert "spec.venue is not set" in problems
    assert "spec.kafka is not set" in problems
    assert any(problem.startswith("spec.shardSize=0: ") for problem in problems)


def test_crd_manifest_matches_the_types():
    assert (REPOSITORY / "manifests" / "crd.yaml").read_text() == to_yaml(), (
        "manifests/crd.yaml is old: python -m marketfeed_operator.api.crd > manifests/crd.yaml"
    )


def test_crd_fields_have_descriptions_and_collections_limits():
    def walk(schema: dict[str, Any], path: str) -> list[str]:
        missing = [] if schema.get("description") else [f"{path}: description"]
        if schema["type"] == "array" and "maxItems" not in schema:
            missing.append(f"{path}: maxItems")
        for name, field in schema.get("properties", {}).items():
            missing += walk(field, f"{path}.{name}")
        return missing

    properties = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert walk(properties["spec"], "spec") + walk(properties["status"], "status") == []


@pytest.mark.integration
@pytest.mark.parametrize(
    ("message", "refused", "accepted"),
    RULES,
    ids=[f"{rule[0]} {number}" for number, rule in enumerate(RULES)],
)
async def test_crd_rule_is_enforced_by_the_api_server_with_the_same_message(
    admin: Admin, message, refused, accepted
):
    with pytest.raises(Invalid, match=message.replace(".", r"\.")):
        await feed(admin, refused)
    await feed(admin, accepted)


@pytest.mark.integration
async def test_crd_bound_is_enforced_by_the_api_server(admin: Admin):
    for field, refused in BOUNDS:
        with pytest.raises(ApiError, match=field.rpartition(".")[2]):
            await feed(admin, refused)


@pytest.mark.integration
async def test_crd_valid_value_is_accepted_by_the_api_server(admin: Admin):
    for taken in TAKEN:
        await feed(admin, taken)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("a symbol has 1 to 64 upper-case letters", spec(symbols=["btcusdt"])),
        ("a symbol has 1 to 64 upper-case letters", spec(symbols=["BTC\xa0USDT"])),
        ("bootstrap servers are HOST:PORT", spec(kafka={"bootstrapServers": "kafka:90920"})),
        ("an address is ws://HOST", spec(endpoints={"websocket": "wss://proxy:94430"})),
        ("an address is http://HOST", spec(endpoints={"rest": "https://user:secret@proxy"})),
        ("an image is ", spec(images={"worker": "Upper/Case"})),
        ("a topic name consists of letters", spec(kafka={"topics": {"trades": {"name": "a/b"}}})),
        (
            "an address range is",
            spec(networkPolicy={"extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}),
        ),
        ("a window is HH:MM", spec(ingestion={"rotation": {"quietWindowUtc": "25:00-26:00"}})),
        (
            "a user name must not",
            spec(kafka={"credentials": {"sasl": {"secretName": "a", "username": "a\nb"}}}),
        ),
    ],
)
async def test_crd_refusal_has_a_readable_message(admin: Admin, said, refused):
    problems = parse(refused)
    assert isinstance(problems, list)
    assert said in "".join(problems)
    with pytest.raises(Invalid, match=said) as refusal:
        await feed(admin, refused)
    assert "should match" not in str(refusal.value), "no regular expression in messages"


CHANGES = [
    ("venue is immutable", spec(), spec(venue="binance"), spec(shardSize=7)),
    (
        "partitions cannot be decreased",
        spec(kafka={"topics": {"trades": {"partitions": 6}}}),
        spec(kafka={"topics": {"trades": {"partitions": 5}}}),
        spec(kafka={"topics": {"trades": {"partitions": 5, "name": "market.trades.second"}}}),
    ),
]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("message", "before", "after", "accepted"), CHANGES, ids=[change[0] for change in CHANGES]
)
async def test_crd_transition_rule_is_enforced_by_the_api_server(
    admin: Admin, message, before, after, accepted
):
    await feed(admin, before)
    with pytest.raises(Invalid, match=message):
        await feed(admin, after)
    await feed(admin, accepted)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["x" * 41, "1-begins-with-a-digit", "has.a.dot"])
async def test_crd_name_invalid_for_children_is_refused(admin: Admin, name):
    with pytest.raises(Invalid, match="the name must have at most 40 characters") as refusal:
        await feed(admin, spec(), name=name)
    assert NAME_RULES[0].message[:60] in str(refusal.value)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["x" * 40, "a", "ends-with-a-9"])
async def test_crd_name_valid_for_children_is_accepted(admin: Admin, name):
    assert (await feed(admin, spec(), name=name))["metadata"]["name"] == name


@pytest.mark.integration
async def test_crd_defaults_of_the_api_server_equal_those_of_python(admin: Admin):
    minimal = {key: BASE[key] for key in ("venue", "symbols", "kafka")}
    stored = await feed(admin, minimal)
    assert parse(stored["spec"]) == parse(minimal)
    # Every default in Python is also in the stored object.
    declared = parse(minimal)
    assert isinstance(declared, Spec)
    shown = declared.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert json.loads(json.dumps(stored["spec"])) == shown


@pytest.mark.integration
async def test_crd_accepts_the_examples(admin: Admin):
    for file in sorted((REPOSITORY / "manifests" / "examples").glob("*.yaml")):
        body = yaml.safe_load(file.read_text())
        assert isinstance(parse(body["spec"]), Spec), file
        await feed(admin, body["spec"], name=body["metadata"]["name"])


@pytest.mark.integration
async def test_crd_scale_subresource_scales_the_consumers_of_trades(admin: Admin):
    await feed(admin, spec(consumers={"trades": {"replicas": 1}}))
    path = f"/apis/marketfeed.dev/v1alpha1/namespaces/{admin.namespace}/marketfeeds/declared"
    await admin.cluster.merge(f"{path}/scale", {"spec": {"replicas": 3}})
    assert (await admin.cluster.get(path))["spec"]["consumers"]["trades"]["replicas"] == 3


async def feed(admin: Admin, declared: dict[str, Any], name: str = "declared") -> dict[str, Any]:
    body = {
        "apiVersion": "marketfeed.dev/v1alpha1", "kind": "MarketFeed",
        "metadata": {"name": name, "namespace": admin.namespace}, "spec": declared,
    }  # fmt: skip
    return await admin.cluster.apply(KINDS["MarketFeed"], body, manager="tests")
