"""Journey 7: two workers per shard. One is killed, and the topic has no gap: no backfill was needed."""

import time

import e2e_chaos
import e2e_topic
from e2e_kube import until
from e2e_system import BROKER, System, names

pytest_plugins = ["e2e_fixtures"]


def test_one_of_two_dies(system: System) -> None:
    resources = system.feed()["spec"]["ingestion"]
    system.patch_feed({"ingestion": {**resources, "replicas": 2}})
    feed = system.await_ready()
    assert len(system.workers()) == 2 * feed["status"]["shards"]["desired"]
    try:
        system.trades_flow()
        until("both read", lambda: all(_streams(system, pod) for pod in system.workers()), seconds=60)
        before = system.workers()
        backfilled = _count(system, "trades WHERE origin = 'backfill'")
        begun, since_us = time.monotonic(), time.time_ns() // 1000
        e2e_chaos.kill(system.kube, before[0])
        # Sixty seconds of market while one worker is dead, restarts, and is live again.
        system.trades_flow()
        system.recovered("stored without a backfill", begun)
        system.await_ready()
        system.recovered("both read again", begun)
        system.compare()
        topic = e2e_topic.read(system.kube, system.consumers()[0], BROKER, "market.trades.raw", since_us)
        assert topic.messages > 0
        assert not topic.gaps, f"the topic has gaps, backfilled later or not: {topic.gaps[:10]}"
        # The restarted one backfills the trades that it missed, which are duplicates.
        assert _count(system, "trades WHERE origin = 'backfill'") == backfilled, (
            "a trade had to be backfilled"
        )
        assert _count(system, "missing_trades") == 0
        assert names(system.workers()) <= names(before) or not system.kube.on_kind
    finally:
        system.patch_feed({"ingestion": {**resources, "replicas": 1}})
    system.await_ready()
    system.compare()


def _streams(system: System, pod: dict[str, object]) -> bool:
    status = system.status_of(pod)
    return bool(status["ready"]) and all(each["state"] == "streaming" for each in status["connections"])


def _count(system: System, what: str) -> int:
    return int(system.database.rows(f"SELECT count(*) FROM {what}")[0][0])  # noqa: S608 - our own words
