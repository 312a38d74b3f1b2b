"""Plan and conditions, as pure functions of the observed state."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from marketfeed_operator.api import Spec, parse
from marketfeed_operator.decide import Situation, decide
from marketfeed_operator.desired import Defaults, Feed
from marketfeed_operator.desired.config_map import config_map
from marketfeed_operator.engine.pod_status import MAX_COUNT
from marketfeed_operator.facts import child_facts, pod_facts
from marketfeed_operator.names import FIELD_MANAGER
from marketfeed_operator.observed import ChildFacts, FeedFacts, Listing, Observed, PodFacts, PodReport
from marketfeed_operator.plan import obsolete, plan, resolve
from marketfeed_operator.status_writer import transitions
from marketfeed_operator.store import Store
from marketfeed_operator.trouble import workload_trouble
from marketfeed_wire.assignment import hash_of

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "venue": "binance_us",
    "symbols": ["AA", "BB"],
    "kafka": {"bootstrapServers": "k:9092"},
}
STORED = {**SPEC, "storage": {"engine": "postgresql", "dsnSecretName": "database"}}


APPLIED = [{"manager": FIELD_MANAGER, "operation": "Apply"}]


def sound(spec: dict[str, Any]) -> Spec:
    parsed = parse(spec)
    assert isinstance(parsed, Spec), parsed
    return parsed


def facts(spec: dict[str, Any], status: dict[str, Any] | None = None) -> FeedFacts:
    return FeedFacts("default", "feed", "uid", 4, "1", spec, status or {})


def feed(spec: dict[str, Any]) -> Feed:
    return Feed("default", "feed", "uid", 4, sound(spec), Defaults("worker:1", "consumer:1"))


def settled(spec: dict[str, Any], observed: Observed | None = None, *, ready: bool = True) -> Observed:
    """Return the observed state after the plan for `spec` was executed; its pods are ready if `ready`."""
    observed = observed or Observed()
    for _ in range(5):
        planned = plan(feed(spec), observed)
        assert planned is not None
        children = dict(observed.children)
        for child in planned.children:
            if child.body is None:
                continue
            body = {
                **child.body,
                "metadata": {
                    **child.body["metadata"],
                    "uid": child.name,
                    "generation": 1,
                    "managedFields": APPLIED,
                },
            }
            replicas = body.get("spec", {}).get("replicas", 0) if ready else 0
            body["status"] = {
                "observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas,
                "conditions": [{"type": "Complete", "status": "True"}] if ready else [],
            }  # fmt: skip
            found = child_facts(child.kind.kind, body)
            assert found is not None
            children[found.key] = found
        observed = replace(observed, children=children)
    return observed


def status(
    spec: dict[str, Any], observed: Observed, *, before: dict[str, Any] | None = None, failure: str = ""
) -> dict:
    parsed = parse(spec)
    ok = isinstance(parsed, Spec)
    at = Situation(
        facts(spec, before), parsed if ok else None, [] if ok else parsed, observed,
        planned := plan(feed(spec), observed) if ok else None, failure,
        applied=ok and not failure and not parsed.paused and (planned is None or not planned.pending),
    )  # fmt: skip
    return decide(at, NOW).model_dump(by_alias=True, exclude_none=True, mode="json")


def reported(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in found["conditions"]}


def pod(name: str = "p", shard: int | None = 0, **changes: Any) -> PodFacts:
    return replace(
        PodFacts("default", name, name, ("default", "feed"), "ingestion", shard, "10.0.0.1", True), **changes
    )


def test_conditions_of_a_complete_feed_are_ready_and_settled():
    found = reported(status(STORED, settled(STORED)))
    assert found == {
        "Ready": ("True", "AllReady"), "Progressing": ("False", "Settled"), "Degraded": ("False", "AsExpected"),
        "Paused": ("False", "NotPaused"),
    }  # fmt: skip


def without(observed: Observed, kind: str, **changes: Any) -> Observed:
    return replace(
        observed,
        children={
            key: replace(value, **changes) if key[0] == kind else value
            for key, value in observed.children.items()
        },
    )


def lacking(observed: Observed, kind: str) -> Observed:
    return replace(
        observed, children={key: value for key, value in observed.children.items() if key[0] != kind}
    )


@pytest.mark.parametrize(
    ("spec", "change", "condition", "expected"),
    [
        ({**SPEC, "shardSize": 0}, lambda o: o, "Ready", ("False", "InvalidSpec")),
        ({**SPEC, "shardSize": 0}, lambda o: o, "Degraded", ("True", "InvalidSpec")),
        (STORED, lambda o: without(o, "Deployment", ready=0), "Ready", ("False", "ShardsNotReady")),
        (STORED, lambda o: without(o, "StatefulSet", ready=0), "Ready", ("False", "ConsumersNotReady")),
        (STORED, lambda o: without(o, "Job", job="Running"), "Ready", ("False", "Migrating")),
        (STORED, lambda o: without(o, "Job", job="Failed"), "Ready", ("False", "MigrationFailed")),
        (STORED, lambda o: without(o, "Job", job="Failed"), "Degraded", ("True", "MigrationFailed")),
        (STORED, lambda o: without(o, "Deployment", updated=0), "Progressing", ("True", "RollingOut")),
        (STORED, lambda o: without(o, "Deployment", settled=False), "Progressing", ("True", "RollingOut")),
        (STORED, lambda o: replace(o, pods=[pod(trouble="x")]), "Degraded", ("True", "PodsFailing")),
        (STORED, lambda o: replace(o, pods=[pod(trouble="x")]), "Ready", ("True", "AllReady")),
        ({**SPEC, "paused": True}, lambda o: without(o, "Deployment", updated=0), "Progressing", ("False", "Settled")),
        ({**SPEC, "paused": True}, lambda o: o, "Paused", ("True", "SpecPaused")),
        ({**SPEC, "paused": True}, lambda o: lacking(o, "NetworkPolicy"), "Ready", ("False", "NotIsolated")),
        ({**SPEC, "paused": True}, lambda o: lacking(o, "NetworkPolicy"), "Degraded", ("True", "NotIsolated")),
        (STORED, lambda o: lacking(o, "NetworkPolicy"), "Ready", ("False", "NotIsolated")),
        (SPEC, lambda o: replace(o, scope_problem="forbidden"), "Degraded", ("True", "NamespaceUnavailable")),
        (SPEC, lambda o: replace(o, other_operator="x/y"), "Degraded", ("True", "SeveralOperators")),
        (SPEC, lambda o: replace(o, operator_problems={"audit": "x"}), "Degraded", ("True", "OperatorDegraded")),
        (SPEC, lambda o: replace(o, lease_problem="denied"), "Degraded", ("True", "OperatorDegraded")),
        (
            SPEC, lambda o: replace(o, pods=[pod()], report_problems={"p": "not UTF-8"}),
            "Degraded", ("True", "StatusRejected"),
        ),
        (
            {**SPEC, "networkPolicy": {"enabled": False}}, lambda o: lacking(o, "NetworkPolicy"),
            "Ready", ("True", "AllReady"),
        ),
        (
            {**STORED, "consumers": {"trades": {"autoscaling": {"maxReplicas": 2}}}}, lambda o: o,
            "Degraded", ("True", "AutoscalerMissing"),
        ),
        (
            {**SPEC, "kafka": {"cluster": {"name": "c"}, "manageTopics": True}}, lambda o: o,
            "Degraded", ("True", "StrimziMissing"),
        ),
        (
            {**SPEC, "kafka": {"cluster": {"name": "c"}}}, lambda o: replace(o, unreadable_kinds={"Kafka": "HTTP "
            "500"}),
            "Degraded", ("True", "KindUnavailable"),
        ),
        (  # not used by this feed
            SPEC, lambda o: replace(o, unreadable_kinds={"Kafka": "HTTP 500", "ScaledObject": "forbidden"}),
            "Degraded", ("False", "AsExpected"),
        ),
        (  # a reason that is invalid in a condition, written by anyone who may write a Deployment's status
            SPEC,
            lambda o: without(o, "Deployment", trouble=workload_trouble("Deployment", {"status": {"conditions": [
                {"type": "Progressing", "status": "False", "reason": "x " * 200, "message": "m"},
            ]}})),
            "Degraded", ("True", "ProgressDeadlineExceeded"),
        ),
        (
            SPEC, lambda o: replace(o, pods=[pod()], reports={"p": PodReport(refused={"BB": "not listed"})}),
            "Degraded", ("True", "SymbolsUnknown"),
        ),
        (  # reported by a terminating worker, for a symbol that the feed no longer has
            SPEC, lambda o: replace(o, pods=[pod()], reports={"p": PodReport(refused={"GONE": "delisted"})}),
            "Degraded", ("False", "AsExpected"),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_conditions_table(spec, change, condition, expected):
    observed = settled(spec) if isinstance(parse(spec), Spec) else Observed()
    assert reported(status(spec, change(observed)))[condition] == expected


def test_conditions_contain_the_message_of_the_api_server():
    found = status(SPEC, settled(SPEC), failure="NetworkPolicy feed: no right")
    assert reported(found)["Ready"] == ("False", "ApplyFailed")
    assert found["conditions"][2]["message"] == "NetworkPolicy feed: no right"


def test_conditions_transition_time_changes_only_with_the_status():
    old = (NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = status(SPEC, settled(SPEC))
    for condition in before["conditions"]:
        condition["lastTransitionTime"] = old
    same = status(SPEC, settled(SPEC), before=before)
    assert {each["lastTransitionTime"] for each in same["conditions"]} == {old}
    turned = status(SPEC, without(settled(SPEC), "Deployment", ready=0), before=before)
    times = {each["type"]: each["lastTransitionTime"] for each in turned["conditions"]}
    assert times["Ready"] == "2026-11-24T00:00:00Z"
    assert times["Paused"] == old


def test_events_are_created_for_transitions_only():
    before = status(SPEC, settled(SPEC))
    assert transitions(before, before) == []
    assert [each["type"] for each in transitions({}, before)] == ["Ready"]
    after = status(SPEC, without(settled(SPEC), "Deployment", ready=0), before=before)
    assert [(each["type"], each["reason"]) for each in transitions(before, after)] == [
        ("Ready", "ShardsNotReady"), ("Progressing", "RollingOut"),
    ]  # fmt: skip


def test_status_is_kept_while_the_venue_does_not_respond():
    selector = {key: value for key, value in SPEC.items() if key != "symbols"} | {"symbolSelector": {}}
    before = status(SPEC, settled(SPEC))
    silent = Observed(listing=Listing(None, "https://x does not list its symbols: HTTP 503"))
    found = status(selector, silent, before=before)
    assert reported(found)["Ready"] == ("False", "ResolvingSymbols")
    assert reported(found)["Degraded"] == ("True", "VenueUnreachable")
    assert found["shards"] == before["shards"]


def test_plan_is_idempotent():
    observed = settled(STORED)
    first, second = plan(feed(STORED), observed), plan(feed(STORED), settled(STORED, observed))
    assert first == second
    assert first is not None
    assert obsolete(first.children, observed, "uid") == []
    for child in first.children:
        assert child.body is not None
        expected_hash = child.body["metadata"]["annotations"]["marketfeed.dev/desired-hash"]
        assert observed.children[child.key].desired_hash == expected_hash


def test_plan_holds_consumers_until_the_schema_matches():
    observed = settled(STORED)
    newer = {**STORED, "images": {"consumer": "consumer:2"}}
    planned = plan(feed(newer), observed)
    assert planned is not None
    assert planned.migration == "Running"
    held = {child.name for child in planned.children if child.body is None}
    assert held == {"feed-consumer-trades", "feed-consumer-book"}
    assert not any(key[0] == "StatefulSet" for key in obsolete(planned.children, observed, "uid"))
    assert not any(key[0] == "Job" for key in obsolete(planned.children, observed, "uid")), (
        "the old one is kept meanwhile"
    )


def test_plan_never_changes_a_created_migration():
    observed = settled(STORED)
    edited = {**STORED, "logging": {"level": "DEBUG"}, "template": {"priorityClassName": "high"}}
    for changed, kept in ((STORED, False), (edited, True)):
        planned = plan(feed(changed), observed)
        assert planned is not None
        bodies = {child.kind.kind: child.body for child in planned.children}
        assert (bodies["Job"] is None) == kept
        assert bodies["StatefulSet"] is not None
        assert planned.migration == "Succeeded"
        assert obsolete(planned.children, observed, "uid") == []


def test_obsolete_children_exclude_topics():
    observed = settled(STORED)
    topic = ("KafkaTopic", "default", "market.trades.raw")
    observed = replace(
        observed,
        children={
            **observed.children,
            topic: ChildFacts(topic, ("default", "feed"), "u", "1", "d", ours=True),
        },
    )
    planned = plan(feed(SPEC), observed)
    assert planned is not None
    gone = {key[0] for key in obsolete(planned.children, observed, "uid")}
    assert gone == {"StatefulSet", "Service", "Job", "NetworkPolicy", "PodDisruptionBudget"}


def test_conditions_generation_is_not_applied_while_shards_are_pending():
    spec = {
        **SPEC, "symbols": [f"S{n}" for n in range(6)], "shardSize": 1, "ingestion": {"maxUpdatingShards": 2},
    }  # fmt: skip
    changed = {**spec, "logging": {"level": "DEBUG"}}
    before = {"observedGeneration": 3}
    found = status(changed, settled(spec), before=before)
    assert (reported(found)["Ready"], found["observedGeneration"]) == (("False", "Applying"), 3)
    # They are rolled one after the other, and the last one has nothing to wait for.
    done = settled(changed, settled(spec))
    found = status(changed, done, before=before)
    assert (reported(found)["Ready"], found["observedGeneration"]) == (("True", "AllReady"), 4)
    # Holding them back for a new Secret or image, without a change of the spec, does not revoke it.
    found = status(changed, settled(spec), before={"observedGeneration": 4})
    assert (reported(found)["Ready"], found["observedGeneration"]) == (("True", "AllReady"), 4)


def test_conditions_generation_is_not_applied_while_consumers_wait_for_the_schema():
    observed = settled(STORED)
    changed = {**STORED, "images": {"consumer": "consumer:2"}}
    found = status(changed, observed, before={"observedGeneration": 3})
    assert (reported(found)["Ready"], found["observedGeneration"]) == (("False", "Migrating"), 3)


class _Pods(list[PodFacts]):
    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()


def test_status_iterates_pods_independently_of_the_number_of_shards():
    walks = []
    for number in (2, 40):
        spec = {**SPEC, "symbols": [f"S{n:02}" for n in range(number)], "shardSize": 1}
        pods = _Pods(pod(f"p{n}", n) for n in range(number))
        reports = {f"p{n}": PodReport(assignment=hash_of([f"S{n:02}"])) for n in range(number)}
        observed = replace(settled(spec), pods=pods, reports=reports)
        pods.walks = 0
        found = status(spec, observed)
        assert [item["applied"] for item in found["shards"]["items"]] == [
            item["hash"] for item in found["shards"]["items"]
        ]
        walks.append(pods.walks)
    assert walks[0] == walks[1]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_facts_of_a_terminated_pod_have_no_address(phase):
    metadata = {"name": "p", "namespace": "default", "uid": "p", "labels": {"marketfeed.dev/feed": "feed"}}
    found = pod_facts({"metadata": metadata, "status": {"phase": phase, "podIP": "10.0.0.1"}})
    assert found is not None
    assert (found.ip, found.ended) == ("", True)
    running = pod_facts({"metadata": metadata, "status": {"phase": "Running", "podIP": "10.0.0.1"}})
    assert running is not None
    assert (running.ip, running.ended) == ("10.0.0.1", False)


def test_plan_limits_concurrent_rollouts_except_of_unready_shards():
    spec = {
        **SPEC,
        "symbols": [f"S{n}" for n in range(6)],
        "shardSize": 1,
        "ingestion": {"maxUpdatingShards": 2},
    }
    observed = settled(spec)
    changed = {**spec, "logging": {"level": "DEBUG"}}
    planned = plan(feed(changed), observed)
    assert planned is not None
    held = {
        child.name for child in planned.children if child.kind.kind == "Deployment" and child.body is None
    }
    assert held == {f"feed-shard-{n}" for n in range(2, 6)}
    assert planned.waiting_shards == 4
    sick = ("Deployment", "default", "feed-shard-5")
    children = {**observed.children, sick: replace(observed.children[sick], ready=0)}
    planned = plan(feed(changed), replace(observed, children=children))
    assert planned is not None
    held = {
        child.name for child in planned.children if child.kind.kind == "Deployment" and child.body is None
    }
    assert held == {f"feed-shard-{n}" for n in range(1, 5)}


def test_plan_symbols_are_live_only_when_both_pods_report_them():
    spec = {**SPEC, "symbols": ["AA", "BB", "CC", "DD"], "shardSize": 4}
    observed = settled(spec)
    smaller = {**spec, "shardSize": 2}
    moving = settled(smaller, observed)
    held = {0: {"AA", "BB", "CC", "DD"}, 1: {"CC", "DD"}}

    def read(reports: dict[str, PodReport]) -> dict[int, set[str]]:
        pods = [pod("a", 1), pod("b", 1)]
        planned = plan(feed(smaller), replace(moving, pods=pods, reports=reports))
        assert planned is not None
        return {shard: set(reading.symbols) for shard, reading in planned.assignments.items()}

    new, old = PodReport(assignment=hash_of(["CC", "DD"])), PodReport(assignment="old")
    assert read({}) == held
    assert read({"a": new, "b": old}) == held
    assert read({"a": new, "b": new}) == {0: {"AA", "BB"}, 1: {"CC", "DD"}}


@pytest.mark.parametrize(
    ("selector", "assigned", "expected"),
    [
        ({}, "", {"AUSDT", "BUSDT", "CUSD"}),
        ({"quoteAssets": ["USDT"]}, "", {"AUSDT", "BUSDT"}),
        ({"status": "BREAK"}, "", {"DUSDT"}),
        ({"maximum": 1}, "", {"AUSDT"}),
        ({"maximum": 1}, "CUSD", {"CUSD"}),
        ({"quoteAssets": ["EUR"]}, "", set()),
    ],
    ids=["all trading", "by quote", "by status", "first alphabetically", "selected before", "none"],
)
def test_resolve_selects_symbols_from_the_venues_list(selector, assigned, expected):
    listing = Listing(
        {
            "AUSDT": ("TRADING", "USDT"), "BUSDT": ("TRADING", "USDT"), "CUSD": ("TRADING", "USD"),
            "DUSDT": ("BREAK", "USDT"),
        }
    )  # fmt: skip
    spec = sound({"venue": "binance_us", "kafka": SPEC["kafka"], "symbolSelector": selector})
    assert resolve(spec, Observed(listing=listing), frozenset(assigned.split())) == expected


def test_status_of_five_thousand_shards_is_bounded():
    spec = {**SPEC, "symbols": [f"S{n}" for n in range(5000)], "shardSize": 1}
    planned = plan(feed(spec), Observed())
    at = Situation(facts(spec), sound(spec), [], Observed(), planned)
    found = decide(at, NOW)
    assert found.shards is not None
    assert found.shards.desired == 5000
    assert len(found.model_dump_json()) < 100_000


def test_status_bounds_reported_values():
    spec = {**STORED, "symbols": [f"S{number}" for number in range(2000)], "shardSize": 1}
    observed = settled(spec)
    workers = [pod(f"w{number}", number) for number in range(2000)]
    consumers = [pod(f"c{number}", None, component="consumer-trades") for number in range(2000)]
    reports = {
        **{each.uid: PodReport(missing_trades=MAX_COUNT) for each in workers},
        **{each.uid: PodReport(lag=MAX_COUNT) for each in consumers},
    }
    found = status(spec, replace(observed, pods=[*workers, *consumers], reports=reports))
    assert found["shards"]["missingTrades"] == found["consumers"]["lag"] == MAX_COUNT


def test_store_moves_a_pod_whose_label_names_another_feed():
    store = Store()
    store.put_pod(pod())
    assert store.put_pod(pod(feed=("default", "other"))) == ("default", "other")
    assert store.pods_of(("default", "feed")) == []
    assert store.remove_pod("p") == ("default", "other")
    assert store.pods_of(("default", "other")) == []


def test_plan_reassigns_the_symbols_of_a_damaged_file():
    reading = next(iter(plan(feed(SPEC), Observed()).assignments.values()))  # type: ignore[union-attr]
    body = config_map(feed(SPEC), 0, reading, 1).body
    assert body is not None
    damaged = {**body, "data": {"assignment.json": "{"}, "metadata": {**body["metadata"], "uid": "u"}}
    found = child_facts("ConfigMap", damaged)
    assert found is not None
    planned = plan(feed(SPEC), Observed(children={found.key: found}))
    assert planned is not None
    assert set(planned.assignments[0].symbols) == {"AA", "BB"}
