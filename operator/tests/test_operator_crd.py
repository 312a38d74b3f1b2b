"""The resource: what Python takes the API server takes, what one refuses the other refuses, in the same words."""

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
    """BASE with fields changed; None takes one away, a dictionary is merged."""
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


# Each rule: its message, an example that it refuses, and the nearest one that it lets pass.
RULES = [
    (
        "give exactly one of symbols and symbolSelector",
        spec(symbolSelector={}),
        spec(symbols=None, symbolSelector={}),
    ),
    ("give exactly one of symbols and symbolSelector", spec(symbols=None), spec()),
    ("streams names one twice", spec(streams=["trade", "trade"]), spec(streams=["bookTicker", "trade"])),
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
        "give replicas or autoscaling, not both",
        spec(consumers={"trades": {"replicas": 1, "autoscaling": AUTOSCALING}}),
        spec(consumers={"trades": {"autoscaling": AUTOSCALING}}),
    ),
    ("retention names no table", kept(schedule="23 3 * * *"), kept(deadLettersDays=1)),
    ("retention.schedule is no schedule", kept(tradesDays=1, schedule="@daily"), kept(tradesDays=1)),
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

# Bounds and patterns: the schema's own refusals.
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
]


@pytest.mark.parametrize(("message", "refused", "accepted"), RULES, ids=[rule[0] for rule in RULES])
def test_python_keeps_each_rule(message, refused, accepted):
    problems = parse(refused)
    assert isinstance(problems, list)
    assert any(message in problem for problem in problems), problems
    assert isinstance(parse(accepted), Spec), parse(accepted)


@pytest.mark.parametrize(("field", "refused"), BOUNDS, ids=[f"{f} {n}" for n, (f, _) in enumerate(BOUNDS)])
def test_python_keeps_each_bound_and_names_the_field(field, refused):
    problems = parse(refused)
    assert isinstance(problems, list)
    assert any(field in problem for problem in problems), problems


def test_every_rule_has_its_examples():
    def rules(declared: type[Declared]) -> set[str]:
        below = {message for child in declared.__subclasses__() for message in rules(child)}
        return {rule.message for rule in declared.rules} | below

    examples = [rule[0] for rule in (*RULES, *CHANGES)]
    assert [text for text in rules(Declared) if not text.startswith(tuple(examples))] == []


def test_a_field_that_does_not_exist_is_named_and_not_passed_over():
    assert parse(spec(shardsize=5)) == ["spec.shardsize is no field of a MarketFeed"]


def test_several_problems_are_told_at_once():
    problems = parse({"symbols": ["BTCUSDT"], "shardSize": 0})
    assert isinstance(problems, list)
    assert "spec.venue is not set" in problems
    assert "spec.kafka is not set" in problems
    assert any(problem.startswith("spec.shardSize=0: ") for problem in problems)


def test_the_crd_in_manifests_is_the_one_of_the_types():
    assert (REPOSITORY / "manifests" / "crd.yaml").read_text() == to_yaml(), (
        "manifests/crd.yaml is old: python -m marketfeed_operator.api.crd > manifests/crd.yaml"
    )


def test_every_field_has_a_description_and_every_collection_a_bound():
    def walk(schema: dict[str, Any], path: str) -> list[str]:
        wanting = [] if schema.get("description") else [f"{path}: description"]
        if schema["type"] == "array" and "maxItems" not in schema:
            wanting.append(f"{path}: maxItems")
        for name, field in schema.get("properties", {}).items():
            wanting += walk(field, f"{path}.{name}")
        return wanting

    properties = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert walk(properties["spec"], "spec") + walk(properties["status"], "status") == []


@pytest.mark.integration
@pytest.mark.parametrize(("message", "refused", "accepted"), RULES, ids=[rule[0] for rule in RULES])
async def test_the_api_server_keeps_each_rule_in_the_same_words(admin: Admin, message, refused, accepted):
    with pytest.raises(Invalid, match=message.replace(".", r"\.")):
        await feed(admin, refused)
    await feed(admin, accepted)


@pytest.mark.integration
async def test_the_api_server_keeps_each_bound(admin: Admin):
    for field, refused in BOUNDS:
        with pytest.raises(ApiError, match=field.rpartition(".")[2]):
            await feed(admin, refused)


CHANGES = [
    ("venue cannot be changed", spec(), spec(venue="binance"), spec(shardSize=7)),
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
async def test_the_api_server_keeps_the_rules_about_changes(admin: Admin, message, before, after, accepted):
    await feed(admin, before)
    with pytest.raises(Invalid, match=message):
        await feed(admin, after)
    await feed(admin, accepted)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["x" * 41, "1-begins-with-a-digit", "has.a.dot"])
async def test_a_name_that_its_children_could_not_bear_is_refused(admin: Admin, name):
    with pytest.raises(Invalid, match="the name must have at most 40 characters") as refusal:
        await feed(admin, spec(), name=name)
    assert NAME_RULES[0].message[:60] in str(refusal.value)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["x" * 40, "a", "ends-with-a-9"])
async def test_a_name_that_its_children_can_bear_is_accepted(admin: Admin, name):
    assert (await feed(admin, spec(), name=name))["metadata"]["name"] == name


@pytest.mark.integration
async def test_what_the_api_server_stores_with_its_defaults_is_the_same_spec(admin: Admin):
    minimal = {key: BASE[key] for key in ("venue", "symbols", "kafka")}
    stored = await feed(admin, minimal)
    assert parse(stored["spec"]) == parse(minimal)
    # Every default that Python has is one that a user sees in the stored object.
    declared = parse(minimal)
    assert isinstance(declared, Spec)
    shown = declared.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert json.loads(json.dumps(stored["spec"])) == shown


@pytest.mark.integration
async def test_the_examples_are_accepted(admin: Admin):
    for file in sorted((REPOSITORY / "manifests" / "examples").glob("*.yaml")):
        body = yaml.safe_load(file.read_text())
        assert isinstance(parse(body["spec"]), Spec), file
        await feed(admin, body["spec"], name=body["metadata"]["name"])


@pytest.mark.integration
async def test_scaling_a_feed_scales_the_consumers_of_its_trades(admin: Admin):
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
