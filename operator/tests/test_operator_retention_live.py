"""Retention on a real API server: applied, run, changed, corrected, removed, and a failed run."""

from functools import partial
from typing import Any

import pytest
from operator_retention import NO_SCHEDULES, STORAGE, container, cron_job, sound
from operator_support import Admin, Operator, eventually

from marketfeed_operator.errors import Invalid
from marketfeed_operator.kinds import CRON_JOB, JOB

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def operator(start_operator, pod_port) -> Operator:
    return start_operator(POD_METRICS_PORT=str(pod_port), RESYNC_SECONDS="1")


async def declare(admin: Admin, name: str, retention: dict[str, Any] | None, **changes: Any) -> None:
    storage = {**STORAGE, "retention": retention} if retention is not None else STORAGE
    await admin.feed(name, symbols=["AA"], storage=storage, **changes)


def await_status(admin: Admin, name: str, reason: str, **retention: str):
    """Wait for a reason of Degraded, and for the status of retention."""

    async def check():
        assert (await admin.condition(name, "Degraded"))["reason"] == reason
        status = (await admin.get("MarketFeed", name))["status"]
        assert retention.items() <= status.get("retention", {}).items(), status
        return status

    return eventually(check)


def await_runs_allowed(admin: Admin, name: str):
    """Wait until the schema matches and the CronJob is no longer suspended for it."""

    async def check():
        assert (await admin.condition(name, "Ready"))["status"] == "True"
        stored = await admin.get("CronJob", f"{name}-retain")
        assert stored is not None
        assert stored["spec"]["suspend"] is False
        return stored

    return eventually(check)


async def await_resyncs(operator: Operator) -> None:
    """Wait until the operator has reconciled everything a few times more."""
    before = operator.total("marketfeed_operator_reconciles_total", result="success")

    async def looked():
        return operator.total("marketfeed_operator_reconciles_total", result="success") >= before + 4

    await eventually(looked)


async def test_retention_schedules_are_those_of_cron_jobs(admin: Admin):
    body = cron_job({"tradesDays": 1})
    del body["metadata"]["ownerReferences"]
    body["metadata"]["namespace"] = admin.namespace
    apply = partial(admin.cluster.apply, CRON_JOB, manager="tests", dry_run=True)
    for taken in (
        "0 0 * * *",
        "*/5 * * * *",
        "00 04 1,15 * *",
        "30 2 * jan-mar,dec mon-fri",
        "5/15 0 1 1 0-6/2",
    ):
        sound({"tradesDays": 1, "schedule": taken})
        await apply({**body, "spec": {**body["spec"], "schedule": taken}})
    # More than five plain fields are accepted.
    lenient = {"@daily", "@every 1h", "0 0 * * * ", "0 0\n* * *", "1, * * * *"}
    for refused in sorted(set(NO_SCHEDULES) - lenient):
        with pytest.raises(Invalid, match="schedule"):
            await apply({**body, "spec": {**body["spec"], "schedule": refused}})


async def test_retention_is_applied_run_and_removed(admin: Admin, nodes, operator):
    await declare(admin, "expiring", {"tradesDays": 90, "schedule": "* * * * *"})
    stored = await await_runs_allowed(admin, "expiring")
    uid = (await admin.get("MarketFeed", "expiring"))["metadata"]["uid"]
    (owner,) = stored["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "MarketFeed",
        "expiring",
        uid,
        True,
    )
    assert await admin.get("NetworkPolicy", "expiring-retention") is not None
    # By the CronJob controller, within the minute; its pod must pass the namespace's restricted standard.
    status = await await_status(admin, "expiring", "AsExpected", cronJob="expiring-retain", state="Succeeded")
    run_name = status["retention"]["job"]

    await declare(admin, "expiring", {"tradesDays": 30, "bookTickersDays": 7})

    async def changed():
        stored = await admin.get("CronJob", "expiring-retain")
        options = ["--trades-days", "30", "--book-tickers-days", "7"]
        return stored["spec"]["schedule"] == "23 3 * * *" and container(stored)["command"][2:] == options

    await eventually(changed)
    await await_resyncs(operator)
    assert run_name in await admin.names("Job"), "a run is deleted by its CronJob"
    migration = [name for name in await admin.names("Job") if "-migrate-" in name]

    await declare(admin, "expiring", None)

    async def gone():
        assert await admin.names("CronJob") == []
        assert await admin.get("NetworkPolicy", "expiring-retention") is None
        assert await admin.names("Job") == migration, "no new migration; a run is deleted with its CronJob"
        return "retention" not in (await admin.get("MarketFeed", "expiring"))["status"]

    await eventually(gone)
    assert await admin.names("StatefulSet") == ["expiring-consumer-book", "expiring-consumer-trades"]


async def test_retention_drift_is_corrected_except_a_suspension(admin: Admin, nodes, operator):
    await declare(admin, "guarded", {"tradesDays": 90})
    path = CRON_JOB.path(admin.namespace, "guarded-retain")

    async def as_declared():
        stored = await admin.get("CronJob", "guarded-retain")
        assert stored is not None
        command = container(stored)["command"][2:]
        return command == ["--trades-days", "90"] and stored["spec"]["schedule"] == "23 3 * * *"

    await await_runs_allowed(admin, "guarded")
    await eventually(as_declared)
    corrected = operator.total("marketfeed_operator_drift_corrected_total", kind="CronJob")
    await admin.cluster.merge(path, {"spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow"}})
    await eventually(as_declared)
    await admin.delete("CronJob", "guarded-retain")
    await eventually(as_declared)

    async def counted():
        return operator.total("marketfeed_operator_drift_corrected_total", kind="CronJob") >= corrected + 2

    await eventually(counted)
    await await_runs_allowed(admin, "guarded")
    await admin.cluster.merge(path, {"spec": {"suspend": True}})
    await await_resyncs(operator)
    (before,) = await admin.names("Job")
    await declare(admin, "guarded", {"tradesDays": 91}, images={"consumer": "consumer:2"})

    async def migrated():
        status = (await admin.get("MarketFeed", "guarded"))["status"]
        return status["migration"]["job"] != before and status["migration"]["state"] == "Succeeded"

    await eventually(migrated)
    await await_resyncs(operator)
    stored = await admin.get("CronJob", "guarded-retain")
    assert container(stored)["command"][-1] == "91"
    assert stored["spec"]["suspend"] is True, "our suspension for the migration has ended, theirs has not"

    await admin.delete("MarketFeed", "guarded")

    async def nothing_left():
        return not [name for kind in ("CronJob", "Job", "NetworkPolicy") for name in await admin.names(kind)]

    await eventually(nothing_left)


async def test_retention_failed_run_is_reported_and_the_feed_stays_ready(admin: Admin, nodes, operator):
    await declare(admin, "troubled", {"tradesDays": 90})
    stored = await await_runs_allowed(admin, "troubled")
    await await_status(admin, "troubled", "AsExpected", cronJob="troubled-retain", state="None")
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": "troubled-retain",
        "uid": stored["metadata"]["uid"],
    }

    async def run_now(name: str) -> str:
        """Create a Job as ``kubectl create job --from=cronjob/…`` does."""
        template = stored["spec"]["jobTemplate"]
        metadata = {**template["metadata"], "name": name, "ownerReferences": [{**owner, "controller": True}]}
        metadata["annotations"] = {"cronjob.kubernetes.io/instantiate": "manual"}
        body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
        await admin.cluster.create(JOB.path(admin.namespace), body)
        return JOB.path(admin.namespace, name)

    nodes.failing_jobs = True
    path = await run_now("first")

    async def started():
        return (await admin.get("Job", "first")).get("status", {}).get("startTime")

    await eventually(started)
    failed = [
        {
            "type": kind,
            "status": "True",
            "reason": "DeadlineExceeded",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for kind in ("FailureTarget", "Failed")
    ]
    await admin.cluster.merge(
        f"{path}/status",
        {"status": {"conditions": failed, "active": 0, "terminating": 0, "ready": 0, "failed": 1}},
    )
    status = await await_status(admin, "troubled", "RetentionFailed", job="first", state="Failed")
    conditions = {each["type"]: each for each in status["conditions"]}
    assert "--from=cronjob/troubled-retain" in conditions["Degraded"]["message"]
    assert conditions["Ready"]["status"] == "True", "data flows"

    nodes.failing_jobs = False
    await run_now("second")
    await await_status(admin, "troubled", "AsExpected", job="second", state="Succeeded")
