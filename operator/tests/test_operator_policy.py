"""Limits of the administrator for feeds: each setting, at its edges."""

from typing import Any

import pytest

from marketfeed_operator.api import Spec, parse
from marketfeed_operator.policy import Policy

SPEC: dict[str, Any] = {
    "venue": "binance_us",
    "symbols": ["BTCUSDT"],
    "kafka": {"bootstrapServers": "kafka:9092"},
}


def refusals(policy: Policy, **spec: Any) -> list[str]:
    parsed = parse({**SPEC, **spec})
    assert isinstance(parsed, Spec), parsed
    return policy.refusals("team", parsed)


@pytest.mark.parametrize(
    ("prefix", "image", "is_allowed"),
    [
        ("registry.example/team", "registry.example/team/worker:1", True),
        ("registry.example/team/", "registry.example/team/worker:1", True),
        ("registry.example/team/worker", "registry.example/team/worker:1", True),
        ("registry.example/team/worker", f"registry.example/team/worker@sha256:{'0a' * 32}", True),
        ("registry.example/team/worker:1", "registry.example/team/worker:1", True),
        ("registry.example/team/worker:1", "registry.example/team/worker:12", False),
        ("registry.example/team", "registry.example/teams/worker:1", False),
        ("registry.example", "registry.example.attacker.test/worker:1", False),
        ("registry.example", "registry.example/worker:1", True),
        ("registry.example", "registry.example:5000/worker:1", False),
        ("registry.example/team", "attacker.test/registry.example/team/worker:1", False),
        ("registry.example/team", "worker:1", False),
    ],
)
def test_policy_image_prefixes_match_whole_name_components(prefix: str, image: str, is_allowed: bool) -> None:
    policy = Policy(images=("other.example/x", prefix))
    for field in ("worker", "consumer"):
        found = refusals(policy, images={field: image})
        assert (found == []) is is_allowed
        assert is_allowed or (f"spec.images.{field}" in found[0] and prefix in found[0])


def test_policy_without_limits_allows_every_image_and_priority_class() -> None:
    assert refusals(Policy(), images={"worker": "anything:1"}, template={"priorityClassName": "high"}) == []


def test_policy_default_images_are_allowed() -> None:
    assert refusals(Policy(images=("registry.example/team",))) == []


def test_policy_priority_classes_match_whole_names() -> None:
    policy = Policy(priority_classes=("market-data",))
    assert refusals(policy, template={"priorityClassName": "market-data"}) == []
    (sentence,) = refusals(policy, template={"priorityClassName": "market-data-high"})
    assert "'market-data-high'" in sentence
    assert refusals(policy) == []


@pytest.mark.parametrize(
    ("allowed", "where", "manages", "is_allowed"),
    [
        ((), None, True, True),
        ((), "team", True, True),
        ((), "kafka", True, False),
        (("kafka",), "kafka", True, True),
        (("kafka",), "kafka-2", True, False),
        (("*",), "kafka", True, True),
        ((), "kafka", False, True),
    ],
)
def test_policy_topics_stay_in_the_feeds_namespace_unless_allowed(
    allowed: tuple[str, ...], where: str | None, manages: bool, is_allowed: bool
) -> None:
    cluster = {"name": "market"} | ({"namespace": where} if where else {})
    found = refusals(Policy(topic_namespaces=allowed), kafka={"cluster": cluster, "manageTopics": manages})
    assert (found == []) is is_allowed
    assert is_allowed or ("TOPIC_NAMESPACES" in found[0] and "manageTopics: false" in found[0])


def test_policy_endpoints_can_be_forbidden() -> None:
    endpoints = {"websocket": "wss://venue.example", "rest": "https://venue.example"}
    assert refusals(Policy(), endpoints=endpoints) == []
    (sentence,) = refusals(Policy(own_endpoints=False), endpoints=endpoints)
    assert "ALLOW_OWN_ENDPOINTS" in sentence
    assert refusals(Policy(own_endpoints=False)) == []


def test_policy_reports_all_refusals_together() -> None:
    policy = Policy(images=("a.example",), priority_classes=("low",), own_endpoints=False)
    found = refusals(
        policy,
        images={"worker": "b.example/w:1", "consumer": "b.example/c:1"},
        template={"priorityClassName": "high"},
        endpoints={"rest": "https://venue.example"},
    )
    assert len(found) == 4
