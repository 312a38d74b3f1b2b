"""Journey 6: pause and resume, two feeds side by side, an invalid one beside a valid one, delete."""

import time

import pytest
from e2e_kube import Failed, until
from e2e_ledger import bounds_of, compare, first_stored
from e2e_system import FEED, NAMESPACE, Postgres, System, names

pytest_plugins = ["e2e_fixtures"]

OTHER = "other"


def test_pause_and_resume(system: System) -> None:
    pods = names([*system.workers(), *system.consumers()])
    shards = system.feed()["status"]["shards"]["desired"]
    system.patch_feed({"paused": True})
    system.await_condition("Paused", "SpecPaused")
    # A change while it is paused waits: pods stay unchanged.
    system.patch_feed({"shardSize": 150})
    system.trades_flow()
    assert names([*system.workers(), *system.consumers()]) == pods
    assert system.feed()["status"]["shards"]["desired"] == shards
    begun = time.monotonic()
    system.patch_feed({"paused": False})
    system.await_condition("Paused", "NotPaused")
    system.await_ready()
    system.recovered("resumed", begun)
    until(
        "the change is applied",
        lambda: system.feed()["status"]["shards"]["desired"] < shards,
        seconds=120,
    )
    system.patch_feed({"shardSize": 50})
    system.await_ready()
    system.compare()


def test_two_feeds_and_a_wrong_one(system: System) -> None:
    """Another feed reads some of the same symbols into topics and a database of its own; a third is invalid."""
    pods = names([*system.workers(), *system.consumers()])
    symbols = system.feed()["spec"]["symbols"][:20]
    if ["other"] not in system.database.rows("SELECT datname FROM pg_database WHERE datname = 'other'"):
        system.database.rows("CREATE DATABASE other")
    spec = system.spec(
        symbols, shardSize=10, consumers={"trades": {"replicas": 1}, "bookTicker": {"replicas": 1}}
    )
    spec["kafka"]["topics"] = {
        "trades": {"name": "other.trades", "partitions": 2},
        "bookTicker": {"name": "other.quotes"},
        "progress": {"name": "other.progress"},
        "gaps": {"name": "other.gaps"},
        "rejected": {"name": "other.rejected"},
    }
    system.apply_feed(spec, OTHER, OTHER, database="other")
    try:
        system.await_ready(OTHER, OTHER)
        wrong = system.spec(["BTCUSDT"])
        wrong["images"] = {"worker": "nowhere.invalid/marketfeed-worker:none"}
        wrong["kafka"]["topics"] = {"trades": {"name": "wrong.trades"}, "bookTicker": {"name": "wrong.quotes"},
                                    "progress": {"name": "wrong.progress"}, "gaps": {"name": "wrong.gaps"},
                                    "rejected": {"name": "wrong.rejected"}}  # fmt: skip
        system.apply_feed(wrong, "wrong", OTHER, database="other")
        condition = system.await_condition("Degraded", "PodsFailing", "wrong", OTHER, seconds=180)
        assert "Image" in condition["message"], condition
        # The API server itself rejects what the CRD can validate.
        impossible = system.spec([])
        with pytest.raises(Failed, match="symbols"):
            system.apply_feed(impossible, "impossible", OTHER, database="other")
        for name, namespace in ((FEED, NAMESPACE), (OTHER, OTHER)):
            system.await_ready(name, namespace)
        assert names([*system.workers(), *system.consumers()]) == pods, "an invalid feed affects no other"
        _await_equal(system, symbols)
    finally:
        system.kube.run("--namespace", OTHER, "delete", "marketfeed", "wrong", "--ignore-not-found")
    system.compare()


def test_delete(system: System) -> None:
    """A feed's children are deleted with it; its topics and its data stay."""
    stored = _rows(system)
    assert stored > 0
    topics = _topics(system)
    system.kube.run("--namespace", OTHER, "delete", "marketfeed", OTHER)
    kinds = (
        "deployments,statefulsets,jobs,cronjobs,configmaps,services,podmonitors,networkpolicies,"
        "poddisruptionbudgets,pods"
    )

    def left() -> list[str]:
        found = system.kube.get(OTHER, kinds, "--selector", f"marketfeed.dev/feed={OTHER}")["items"]
        return [f"{each['kind']}/{each['metadata']['name']}" for each in found]

    try:
        until("its children are deleted", lambda: not left(), seconds=120)
    except AssertionError as late:
        raise AssertionError(f"{late}; left: {left()}") from late
    assert {"other.trades", "other.quotes"} <= _topics(system) == topics
    assert _rows(system) >= stored
    system.kube.run("delete", "namespace", OTHER, seconds=180)
    system.compare()


def _await_equal(system: System, symbols: list[str]) -> None:
    """Wait until the other database has the trades of `symbols` that the first has, from its own first trade on."""
    other = Postgres(system.kube, "other")
    compare(other, bounds_of(system.ledger(), first_stored(other), symbols), seconds=120).assert_equal()


def _rows(system: System) -> int:
    return int(Postgres(system.kube, "other").rows("SELECT count(*) FROM trades")[0][0])


def _topics(system: System) -> set[str]:
    output = system.kube.run(
        *("--namespace", "data", "exec", "kafka-0", "--", "/opt/kafka/bin/kafka-topics.sh"),
        *("--bootstrap-server", "localhost:9092", "--list"),
    )
    return set(output.split())
