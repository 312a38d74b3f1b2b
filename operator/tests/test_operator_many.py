"""Two hundred MarketFeeds on a real API server: each is served, one edit is one change, idle feeds cause no writes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from operator_kubelet import kubelet
from operator_support import Admin, Operator, eventually

from marketfeed_devtools.ports import free_port
from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.desired import stored_assignment
from marketfeed_operator.kinds import CONFIG_MAP

pytestmark = pytest.mark.integration

FEED_COUNT = 200
MEMORY_BOUND_MIB = 400
"""Below the limit of the operator's container, 512 MiB."""
LOOK_SECONDS = 1.0
"""Comparing all of them costs the API server as much as a few of their reconciliations."""
PORT = free_port()
WRITES = ("patch", "post", "delete")
"""Without put, by which the lease of the namespace is renewed."""


@pytest.fixture(scope="module")
def operator(start_operator) -> Operator:
    """Without the leader lease, whose writes do not belong to feeds.

    Periodic work has intervals that leave a slow machine time for the requested work.
    """
    return start_operator(
        POD_METRICS_PORT=str(PORT), RESYNC_SECONDS="20", AUDIT_SECONDS="20", REPORT_SECONDS="20",
        LEADER_ELECTION="false", wait=False,
    )  # fmt: skip


def symbols_of(number: int) -> list[str]:
    """Return two symbols, in every tenth feed three: with two per shard, a second shard."""
    return ["AA", "BB", "CC"] if number % 10 == 0 else ["AA", "BB"]


async def declare(admin: Admin, number: int, symbols: list[str]) -> None:
    await admin.feed(f"feed-{number:03}", symbols=symbols, shardSize=2)


async def stored(admin: Admin) -> dict[str, dict[str, Any]]:
    """Return all feeds by name."""
    found = await admin.cluster.list_all(FEEDS, admin.namespace, "")
    return {feed["metadata"]["name"]: feed for feed in found}


async def all_settled(admin: Admin) -> bool:
    """Check that each feed has its shards, its pods and a status that reports them."""
    feeds = await stored(admin)
    reported = [
        (name, condition["type"], condition["reason"])
        for name, feed in feeds.items()
        for condition in feed.get("status", {}).get("conditions", [])
        if condition["type"] in ("Ready", "Progressing")
        and condition["reason"] not in ("AllReady", "Settled")
    ]
    silent = [name for name, feed in feeds.items() if not feed.get("status", {}).get("conditions")]
    assert not reported, f"{len(reported)} are not settled: {reported[:3]}"
    assert not silent, f"{len(silent)} have no status: {silent[:3]}"
    return len(feeds) == FEED_COUNT


async def read_by(admin: Admin) -> dict[str, set[str]]:
    found = await admin.cluster.list_all(CONFIG_MAP, admin.namespace, "marketfeed.dev/feed")
    return {body["metadata"]["name"]: set(stored_assignment(body["data"]).symbols) for body in found}


def writes(operator: Operator) -> dict[str, float]:
    return {verb: operator.total("marketfeed_operator_api_requests_total", verb=verb) for verb in WRITES}


@pytest.mark.timeout(600)
async def test_many_feeds_are_served_and_idle_ones_cause_no_writes(admin: Admin, operator: Operator):
    gate = asyncio.Semaphore(8)

    async def first(number: int) -> None:
        async with gate:
            await declare(admin, number, symbols_of(number))

    async with kubelet(admin.cluster, admin.namespace, PORT, pause_seconds=1):
        await asyncio.gather(*(first(number) for number in range(FEED_COUNT)))
        await eventually(lambda: all_settled(admin), seconds=400, every=LOOK_SECONDS)
        expected = {
            f"feed-{number:03}-shard-{shard}": set(part)
            for number in range(FEED_COUNT)
            for shard, part in enumerate((symbols_of(number)[:2], symbols_of(number)[2:]))
            if part
        }
        assert await read_by(admin) == expected
        assert await admin.names("Deployment") == sorted(expected)

        async def rests():
            versions = {
                name: feed["metadata"]["resourceVersion"] for name, feed in (await stored(admin)).items()
            }
            before = await asyncio.to_thread(writes, operator)
            done = await reconciled(operator)

            async def each_twice_again():
                return await reconciled(operator) >= done + 2 * FEED_COUNT

            await eventually(each_twice_again, every=LOOK_SECONDS)
            after = {
                name: feed["metadata"]["resourceVersion"] for name, feed in (await stored(admin)).items()
            }
            assert await asyncio.to_thread(writes, operator) == before, "a resync wrote something"
            return versions == after

        await eventually(rests, seconds=400, every=LOOK_SECONDS)

        before = await asyncio.to_thread(writes, operator)
        await declare(admin, 7, ["AA", "BB", "NEW"])

        async def arrived():
            return (await read_by(admin)).get("feed-007-shard-1") == {"NEW"}

        await eventually(arrived)
        await eventually(lambda: all_settled(admin), every=LOOK_SECONDS)
        assert await read_by(admin) == {**expected, "feed-007-shard-1": {"NEW"}}
        # Its file and its Deployment (create, apply, release), and each change of its status with an Event: nothing
        # for the other feeds.
        after = await asyncio.to_thread(writes, operator)
        assert sum(after.values()) - sum(before.values()) <= 24, (before, after)
    assert peak_memory_mib(operator) < MEMORY_BOUND_MIB


async def reconciled(operator: Operator) -> float:
    return await asyncio.to_thread(operator.total, "marketfeed_operator_reconciles_total", result="success")


def peak_memory_mib(operator: Operator) -> float:
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024
