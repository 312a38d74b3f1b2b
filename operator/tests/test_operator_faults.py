"""Faults of the API server, injected by a proxy: watches cut, 409, 410, 429, 500; and the operator's reaction."""

import asyncio

import pytest
from operator_fault_proxy import GONE, FaultProxy
from operator_support import KINDS, Admin, eventually

from marketfeed_operator.errors import NotFound
from marketfeed_operator.kinds import CONFIG_MAP

pytestmark = pytest.mark.integration


@pytest.fixture
async def proxy(api_server):
    async with FaultProxy(api_server.server, api_server.ca_file).running() as running:
        yield running


@pytest.fixture
async def operator(start_operator, proxy):
    started = await asyncio.to_thread(
        start_operator, server=f"http://127.0.0.1:{proxy.port}", wait=False, WATCH_DEADLINE_SECONDS="8"
    )
    await asyncio.to_thread(started.await_log, " leading ")
    yield started
    await asyncio.to_thread(started.stop)


async def shard_files(admin: Admin) -> list[str]:
    return await admin.names("ConfigMap")


def there(admin: Admin, *names: str):
    async def check():
        return await shard_files(admin) == list(names)

    return eventually(check)


@pytest.mark.parametrize("ending", [b"", GONE], ids=["cut", "ended with 410"])
async def test_watch_lost_is_reopened_and_the_feed_served(admin: Admin, operator, proxy, ending):
    await admin.feed("one", symbols=["AA"])
    await there(admin, "one-shard-0")

    async def all_watched():
        return proxy.watches >= 10  # feeds, pods, and eight kinds of children

    await eventually(all_watched)
    proxy.cut_watches(ending)
    await admin.feed("two", symbols=["AA"])
    await there(admin, "one-shard-0", "two-shard-0")
    await admin.delete("ConfigMap", "one-shard-0")
    await there(admin, "one-shard-0", "two-shard-0")
    assert operator.process.poll() is None


async def test_watch_that_hangs_is_reconnected_and_missed_changes_are_applied(
    admin: Admin, start_operator, proxy
):
    """Connections that stay open without data, as behind a firewall that dropped its state."""
    operator = await asyncio.to_thread(
        start_operator, server=f"http://127.0.0.1:{proxy.port}", wait=False, WATCH_DEADLINE_SECONDS="8",
        AUDIT_SECONDS="3600", RESYNC_SECONDS="3600",
    )  # fmt: skip
    await asyncio.to_thread(operator.await_log, " leading ")
    await admin.feed("one", symbols=["AA"])
    await there(admin, "one-shard-0")

    async def all_watched():
        return proxy.watches >= 10

    await eventually(all_watched)
    proxy.freeze_watches()
    await admin.feed("two", symbols=["AA"])
    await admin.delete("ConfigMap", "one-shard-0")
    await there(admin, "one-shard-0", "two-shard-0")
    restarts = await asyncio.to_thread(operator.total, "marketfeed_operator_watch_restarts_total")
    assert restarts == 0, "each stream by itself"
    assert await asyncio.to_thread(operator.stop) == 0


async def test_refusal_by_a_webhook_with_400_blocks_only_dependent_children(admin: Admin, operator, proxy):
    proxy.refuse = lambda method, path: (
        400 if method == "POST" and path.rpartition("/")[2] in ("networkpolicies", "configmaps") else None
    )
    await admin.feed("refused", symbols=["AA"])
    # Later children are created all the same.
    await eventually(lambda: admin.get("PodDisruptionBudget", "refused-ingestion"))

    async def is_reported() -> bool:
        degraded = await admin.condition("refused", "Degraded")
        assert degraded["reason"] == "ApplyFailed", degraded
        assert degraded["message"].startswith("NetworkPolicy refused-ingestion: "), degraded
        return True

    await eventually(is_reported)
    # Pods without their policy could reach, and be reached from, more than was declared.
    assert await admin.names("Deployment") == []
    proxy.refuse = lambda _method, path: 400 if path.rpartition("/")[2] == "configmaps" else None
    await eventually(lambda: admin.get("Deployment", "refused-shard-0"))
    proxy.refuse = lambda _method, _path: None
    await there(admin, "refused-shard-0")


async def test_audit_finds_deletions_missed_by_the_watches(admin: Admin, operator, proxy):
    await admin.feed("unseen", symbols=["AA"])
    await there(admin, "unseen-shard-0")
    proxy.blocked = True
    proxy.cut_watches()
    await admin.delete("ConfigMap", "unseen-shard-0")
    await there(admin, "unseen-shard-0")  # while no watch runs: only the audit can have found it
    found = await asyncio.to_thread(operator.total, "marketfeed_operator_audit_corrections_total")
    assert found >= 1
    proxy.blocked = False


@pytest.mark.parametrize("status", [429, 500])
async def test_retry_of_refused_writes_until_they_succeed(admin: Admin, operator, proxy, status):
    refused = []

    def refuse(method: str, path: str) -> int | None:
        if method == "POST" and f"/namespaces/{admin.namespace}/configmaps" in path and len(refused) < 3:
            refused.append(path)
            return status
        return None

    proxy.refuse = refuse
    await admin.feed("again", symbols=["AA"])
    await there(admin, "again-shard-0")
    assert len(refused) == 3
    failures = await asyncio.to_thread(
        operator.total, "marketfeed_operator_reconciles_total", result="failure"
    )
    assert failures >= 3


@pytest.mark.parametrize("written", ["deployments/contested-shard-0", "marketfeeds/contested/status"])
async def test_retry_of_conflicts_without_conditions_or_events(admin: Admin, operator, proxy, written):
    await admin.feed("contested", symbols=["AA"])

    async def settled():
        child = await admin.get("Deployment", "contested-shard-0")
        assert child is not None
        assert (await admin.condition("contested", "Ready"))["reason"] == "ShardsNotReady"
        return child

    def counted() -> float:
        return operator.total("marketfeed_operator_api_failures_total", verb="patch", status="409")

    before = await eventually(settled)
    counted_before = await asyncio.to_thread(counted)
    conflicts = []

    def refuse(method: str, path: str) -> int | None:
        if (
            method == "PATCH"
            and path.endswith(f"/namespaces/{admin.namespace}/{written}")
            and len(conflicts) < 3
        ):
            conflicts.append(path)
            return 409
        return None

    proxy.refuse = refuse
    await admin.feed("contested", symbols=["AA"], logging={"level": "DEBUG"})

    async def converged():
        assert len(conflicts) == 3
        after = await settled()  # a condition of the latest spec was written
        assert after["metadata"]["generation"] > before["metadata"]["generation"]
        (container,) = after["spec"]["template"]["spec"]["containers"]
        assert {"name": "LOG_LEVEL", "value": "DEBUG"} in container["env"]
        return after

    after = await eventually(converged)
    assert after["metadata"]["uid"] == before["metadata"]["uid"], "a conflict is no reason to create it again"
    assert await asyncio.to_thread(counted) - counted_before == 3
    found = (await admin.cluster.get(f"/api/v1/namespaces/{admin.namespace}/events"))["items"]
    assert "ApplyFailed" not in {event["reason"] for event in found}
    assert operator.process.poll() is None


async def test_refusal_that_is_permanent_becomes_a_condition_and_the_rest_is_applied(
    admin: Admin, operator, proxy
):
    proxy.refuse = lambda method, path: 403 if method == "POST" and "/networkpolicies" in path else None
    await admin.feed("refused", symbols=["AA"])

    async def reported():
        found = await admin.condition("refused", "Degraded")
        assert found["status"] == "True", found
        return found

    degraded = await eventually(reported)
    assert degraded["reason"] == "ApplyFailed"
    assert degraded["message"] == "NetworkPolicy refused-ingestion: injected fault"
    assert await shard_files(admin) == ["refused-shard-0"]
    proxy.refuse = lambda _method, _path: None

    async def resolved():
        return (await admin.condition("refused", "Degraded"))["status"] == "False"

    await eventually(resolved)


async def test_refusal_in_a_terminating_namespace_is_not_a_missing_permission(admin: Admin):
    path = KINDS["Namespace"].path(None, admin.namespace)
    await admin.cluster.merge(path, {"metadata": {"finalizers": ["example.com/held"]}})
    await admin.cluster._request("delete", path)
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "late", "namespace": admin.namespace},
    }
    try:
        with pytest.raises(NotFound, match="being terminated"):
            await admin.cluster.apply(CONFIG_MAP, body)
    finally:
        await admin.cluster.merge(path, {"metadata": {"finalizers": None}})


async def test_events_are_truncated_by_bytes(admin: Admin):
    """Symbols of a venue may contain CJK characters, and the limits of an Event are in bytes."""
    stored = await admin.feed("truncated", symbols=["币安人生USDT"])
    feed = {key: stored["metadata"][key] for key in ("namespace", "name", "uid", "resourceVersion")}
    message = "the venue does not trade 币安人生USDT, " * 100
    await admin.cluster.event(
        feed, warning=True, reason="SymbolsUnknown", message=message, instance="i" * 253
    )
    (event,) = (await admin.cluster.get(f"/api/v1/namespaces/{admin.namespace}/events"))["items"]
    assert len(event["message"].encode()) > 990
    assert message.startswith(event["message"])


async def test_a_fault_that_stays_is_reported_after_a_while_and_taken_back_when_it_has_passed(
    admin: Admin, operator, proxy
):
    """As with an admission webhook that is down: each single response may be transient."""
    refused = []

    def refuse(method: str, path: str) -> int | None:
        if method != "POST" or f"/namespaces/{admin.namespace}/deployments" not in path:
            return None
        refused.append(path)
        return 500

    proxy.refuse = refuse
    await admin.feed("faulty", symbols=["AA"])

    async def reported():
        found = await admin.condition("faulty", "Degraded")
        assert found["reason"] == "ApplyFailed", found
        return found

    assert (await eventually(reported))["message"] == "Deployment faulty-shard-0: injected fault"
    assert len(refused) >= 5, "a transient fault was reported"
    proxy.refuse = lambda _method, _path: None

    async def taken_back():
        return (await admin.condition("faulty", "Degraded"))["status"] == "False"

    await eventually(taken_back)


async def test_livez_fails_while_watches_receive_nothing_and_recovers(admin: Admin, operator, proxy):
    import aiohttp

    async def livez() -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(operator.url("/livez")) as answer:
            return answer.status, await answer.text()

    async def watched():
        """Before that no watch could be dead: one that starts is not one that was cut."""
        return proxy.watches >= 10

    async def alive():
        return (await livez())[0] == 200

    async def dead():
        status, text = await livez()
        return status == 503 and "has received nothing" in text

    await eventually(watched)
    await eventually(alive)
    # The API server is up and accepts changes, but neither watches nor lists work.
    proxy.blocked = True
    proxy.refuse = lambda method, path: 503 if method == "GET" and path.endswith("/marketfeeds") else None
    proxy.cut_watches()
    await eventually(dead)
    proxy.blocked = False
    proxy.refuse = lambda _method, _path: None
    await eventually(alive)
