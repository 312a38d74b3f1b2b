"""Retention: the CronJob that deletes what is older than it is to be kept, and what is told of its runs."""

import copy
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from operator_kubelet import kubelet
from operator_support import Admin, Operator, eventually

from marketfeed_consumers.__main__ import parser
from marketfeed_devtools.ports import free_port
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.decide import Situation, decide
from marketfeed_operator.desired import Defaults, Feed, desired
from marketfeed_operator.desired.cron_job import retention_cron_job
from marketfeed_operator.errors import Invalid
from marketfeed_operator.facts import child_facts
from marketfeed_operator.kinds import CRON_JOB, JOB
from marketfeed_operator.observed import FeedFacts, JobState, Observed
from marketfeed_operator.plan import obsolete, plan

STORAGE = {"engine": "postgresql", "dsnSecretName": "database"}
SPEC: dict[str, Any] = {"venue": "binance_us", "symbols": ["AA"], "kafka": {"bootstrapServers": "k:9092"}}
FEED = ("default", "feed")


def sound(retention: dict[str, Any] | None, **changes: Any) -> Spec:
    storage = {**STORAGE, "retention": retention} if retention is not None else STORAGE
    found = parse({**SPEC, "storage": storage, **changes})
    assert isinstance(found, Spec), found
    return found


def feed(retention: dict[str, Any] | None, **changes: Any) -> Feed:
    return Feed(*FEED, "uid", 1, sound(retention, **changes), Defaults("worker:1", "consumer:1"))


def cron_job(retention: dict[str, Any], **changes: Any) -> dict[str, Any]:
    child = retention_cron_job(feed(retention, **changes), suspended=False)
    assert child is not None
    assert child.body is not None
    return child.body


def container(body: dict[str, Any]) -> dict[str, Any]:
    (found,) = body["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize(
    ("retention", "options"),
    [
        ({"tradesDays": 90}, ["--trades-days", "90"]),
        ({"bookTickersDays": 7}, ["--book-tickers-days", "7"]),
        ({"candlesDays": 3650}, ["--candles-1m-days", "3650"]),
        ({"deadLettersDays": 30}, ["--dead-letters-days", "30"]),
        ({"deadLettersDays": 1, "tradesDays": 2}, ["--trades-days", "2", "--dead-letters-days", "1"]),
    ],
    ids=["trades", "quotes", "candles", "dead letters", "two tables"],
)
def test_a_table_that_is_named_is_an_option_of_the_command_and_no_other_is(retention, options):
    told = container(cron_job(retention))["command"]
    assert told == ["marketfeed-consumer", "retain", *options]
    taken = vars(parser().parse_args(told[1:]))  # by the command's own reading
    named = {key for key, value in taken.items() if key.endswith("_days") and value is not None}
    assert named == {option[2:].replace("-", "_") for option in options[::2]}


def test_nothing_is_deleted_that_nobody_named():
    for declared in (feed(None), Feed(*FEED, "uid", 1, _without_storage(), Defaults("w", "c"))):
        kinds = {child.kind.kind for child in desired(declared, {}, set())}
        assert "CronJob" not in kinds
        assert "feed-retention" not in {child.name for child in desired(declared, {}, set())}


def _without_storage() -> Spec:
    found = parse(SPEC)
    assert isinstance(found, Spec)
    return found


def test_one_run_at_a_time_at_a_quiet_minute_of_utc_with_few_left_to_look_at():
    spec = cron_job({"tradesDays": 90})["spec"]
    job = spec.pop("jobTemplate")["spec"]
    assert spec == {
        "schedule": "23 3 * * *", "timeZone": "Etc/UTC", "concurrencyPolicy": "Forbid", "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
    }  # fmt: skip
    assert (job["backoffLimit"], job["activeDeadlineSeconds"]) == (6, 86_400)
    assert job["template"]["spec"]["restartPolicy"] == "Never", "else the log of a failed run goes with it"
    assert cron_job({"tradesDays": 90, "schedule": "0 4 * * sun"})["spec"]["schedule"] == "0 4 * * sun"


def test_its_pods_are_those_of_the_migration_but_for_the_command():
    changes = {
        "images": {"consumer": "consumer:2"},
        "template": {"nodeSelector": {"disk": "ssd"}, "imagePullSecrets": ["registry"], "labels": {"team": "data"}},
    }  # fmt: skip
    migration = next(child for child in desired(feed(None, **changes), {}, set()) if child.kind is JOB)
    assert migration.body is not None
    theirs = copy.deepcopy(migration.body["spec"]["template"]["spec"])
    ours = cron_job({"tradesDays": 90}, **changes)["spec"]["jobTemplate"]["spec"]["template"]
    assert ours["metadata"]["labels"]["team"] == "data"
    for each in (theirs["containers"][0], ours["spec"]["containers"][0]):
        del each["name"], each["command"]
    assert ours["spec"] == theirs


@pytest.mark.parametrize(
    "schedule",
    ["0 0 * * *", "*/5 * * * *", "00 04 1,15 * *", "5-55/10 0-6 31 12 0", "30 2 * jan-mar,dec mon-fri", "59 23 1 1 6"],
)  # fmt: skip
def test_a_schedule_is_taken(schedule):
    assert cron_job({"tradesDays": 1, "schedule": schedule})["spec"]["schedule"] == schedule


NO_SCHEDULES = [
    "", "daily", "@daily", "@every 1h", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *",
    "* * * 13 *", "* * * * 7", "*/0 * * * *", "1, * * * *", "TZ=UTC 0 0 * * *", "0 0 * * * ", "0 0\n* * *",
    "-5 * * * *",
]  # fmt: skip


@pytest.mark.parametrize("schedule", NO_SCHEDULES, ids=repr)
def test_what_is_no_schedule_is_refused_with_one_that_is(schedule):
    refused = parse({**SPEC, "storage": {**STORAGE, "retention": {"tradesDays": 1, "schedule": schedule}}})
    assert isinstance(refused, list)
    assert "like 23 3 * * *" in refused[0]


def made(declared: Feed, observed: Observed) -> Observed:
    """What is there once everything that is planned has been made and the migration, if there, has ended well."""
    planned = plan(declared, observed)
    assert planned is not None
    children = dict(observed.children)
    for child in planned.children:
        if child.body is None:
            continue
        status = {"conditions": [{"type": "Complete", "status": "True"}]}
        body = {**child.body, "metadata": {**child.body["metadata"], "uid": child.name}, "status": status}
        found = child_facts(child.kind.kind, body)
        assert found is not None
        children[found.key] = found
    return replace(observed, children=children)


def suspended(declared: Feed, observed: Observed) -> bool | None:
    planned = plan(declared, observed)
    assert planned is not None
    (body,) = [child.body for child in planned.children if child.kind is CRON_JOB]
    assert body is not None
    return body["spec"].get("suspend")


def test_no_run_starts_while_the_schema_does_not_fit():
    declared = feed({"tradesDays": 90})
    assert suspended(declared, Observed()) is True
    migrated = made(declared, Observed())
    assert suspended(declared, migrated) is None
    assert suspended(feed({"tradesDays": 90}, images={"consumer": "consumer:2"}), migrated) is True


def run(name: str, created: str, state: JobState) -> dict[str, Any]:
    """A Job as the CronJob's controller makes it: with the labels of its template, and no more."""
    ended = {"Succeeded": "Complete", "Failed": "Failed", "Running": ""}[state]
    template = cron_job({"tradesDays": 90})["spec"]["jobTemplate"]
    return {
        "metadata": {
            "name": name, "namespace": "default", "uid": name, "creationTimestamp": created, **template["metadata"],
        },
        "spec": template["spec"],
        "status": {"conditions": [{"type": ended, "status": "True"}] if ended else []},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("states", "newest", "degraded"),
    [
        ([], "None", False),
        (["Succeeded"], "Succeeded", False),
        (["Failed"], "Failed", True),
        (["Succeeded", "Failed"], "Failed", True),
        (["Failed", "Succeeded"], "Succeeded", False),
        (["Failed", "Running"], "Running", True),
        (["Failed", "Succeeded", "Running"], "Running", False),
    ],
    ids=lambda value: "-".join(value) or "none" if isinstance(value, list) else None,
)
def test_a_failed_run_is_told_until_one_succeeds(states, newest, degraded):
    declared = feed({"tradesDays": 90})
    runs = [
        child_facts("Job", run(f"run-{9 - day}", f"2026-11-0{day + 1}T03:23:00Z", state))
        for day, state in enumerate(states)
    ]
    there = made(declared, Observed())
    there = replace(there, children={**there.children, **{each.key: each for each in runs if each}})
    planned = plan(declared, there)
    assert planned is not None
    assert obsolete(planned.children, there) == [], "runs are their CronJob's"
    facts = FeedFacts(*FEED, "uid", 1, "1", {}, {}, None)
    found = decide(Situation(facts, declared.spec, [], there, planned), datetime(2026, 11, 28, tzinfo=UTC))
    assert found.retention is not None
    assert (found.retention.cron_job, found.retention.state) == ("feed-retain", newest)
    told = next(each for each in found.conditions if each.type == "Degraded")
    assert told.reason == ("RetentionFailed" if degraded else "AsExpected")
    assert found.migration is not None
    assert found.migration.state == "Succeeded"


PORT = free_port()


@pytest.fixture(scope="module")
def operator(start_operator) -> Operator:
    return start_operator(POD_METRICS_PORT=str(PORT), RESYNC_SECONDS="1")


@pytest.fixture
async def nodes(admin: Admin, operator: Operator):
    async with kubelet(admin.cluster, admin.namespace, PORT) as running:
        yield running


async def declare(admin: Admin, name: str, retention: dict[str, Any] | None, **changes: Any) -> None:
    storage = {**STORAGE, "retention": retention} if retention is not None else STORAGE
    await admin.feed(name, symbols=["AA"], storage=storage, **changes)


def await_status(admin: Admin, name: str, reason: str, **retention: str):
    """Wait for a reason of Degraded, and for what the status says of retention."""

    async def check():
        assert (await admin.condition(name, "Degraded"))["reason"] == reason
        status = (await admin.get("MarketFeed", name))["status"]
        assert retention.items() <= status.get("retention", {}).items(), status
        return status

    return eventually(check)


def await_runs_allowed(admin: Admin, name: str):
    """Wait until the schema fits and the CronJob is no longer suspended for it."""

    async def check():
        assert (await admin.condition(name, "Ready"))["status"] == "True"
        stored = await admin.get("CronJob", f"{name}-retain")
        assert stored is not None
        assert stored["spec"]["suspend"] is False
        return stored

    return eventually(check)


async def await_resyncs(operator: Operator) -> None:
    """Until the operator has looked at everything a few times more."""
    before = operator.total("marketfeed_operator_reconciles_total", result="success")

    async def looked():
        return operator.total("marketfeed_operator_reconciles_total", result="success") >= before + 4

    await eventually(looked)


@pytest.mark.integration
async def test_what_a_schedule_may_be_is_what_a_cron_job_takes(admin: Admin):
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
    # It takes more than five plain fields.
    lenient = {"@daily", "@every 1h", "0 0 * * * ", "0 0\n* * *", "1, * * * *"}
    for refused in sorted(set(NO_SCHEDULES) - lenient):
        with pytest.raises(Invalid, match="schedule"):
            await apply({**body, "spec": {**body["spec"], "schedule": refused}})


@pytest.mark.integration
async def test_retention_is_applied_runs_and_is_taken_away(admin: Admin, nodes, operator):
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
    # By Kubernetes' own controller, within the minute; its pod has to pass the namespace's restricted standard.
    status = await await_status(admin, "expiring", "AsExpected", cronJob="expiring-retain", state="Succeeded")
    run_name = status["retention"]["job"]

    await declare(admin, "expiring", {"tradesDays": 30, "bookTickersDays": 7})

    async def changed():
        stored = await admin.get("CronJob", "expiring-retain")
        options = ["--trades-days", "30", "--book-tickers-days", "7"]
        return stored["spec"]["schedule"] == "23 3 * * *" and container(stored)["command"][2:] == options

    await eventually(changed)
    await await_resyncs(operator)
    assert run_name in await admin.names("Job"), "a run is its CronJob's to clear away"
    migration = [name for name in await admin.names("Job") if "-migrate-" in name]

    await declare(admin, "expiring", None)

    async def gone():
        assert await admin.names("CronJob") == []
        assert await admin.get("NetworkPolicy", "expiring-retention") is None
        assert await admin.names("Job") == migration, (
            "the schema is where it was; a run goes with its CronJob"
        )
        return "retention" not in (await admin.get("MarketFeed", "expiring"))["status"]

    await eventually(gone)
    assert await admin.names("StatefulSet") == ["expiring-consumer-book", "expiring-consumer-trades"]


@pytest.mark.integration
async def test_what_somebody_changes_is_put_back_but_a_suspension_stays(admin: Admin, nodes, operator):
    await declare(admin, "guarded", {"tradesDays": 90})
    path = CRON_JOB.path(admin.namespace, "guarded-retain")

    async def as_declared():
        stored = await admin.get("CronJob", "guarded-retain")
        assert stored is not None
        command = container(stored)["command"][2:]
        return command == ["--trades-days", "90"] and stored["spec"]["schedule"] == "23 3 * * *"

    await await_runs_allowed(admin, "guarded")
    await eventually(as_declared)
    repaired = operator.total("marketfeed_operator_drift_repaired_total", kind="CronJob")
    await admin.cluster.merge(path, {"spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow"}})
    await eventually(as_declared)
    await admin.delete("CronJob", "guarded-retain")
    await eventually(as_declared)

    async def counted():
        return operator.total("marketfeed_operator_drift_repaired_total", kind="CronJob") >= repaired + 2

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
    assert stored["spec"]["suspend"] is True, "ours for the migration has ended, theirs has not"

    await admin.delete("MarketFeed", "guarded")

    async def nothing_left():
        return not [name for kind in ("CronJob", "Job", "NetworkPolicy") for name in await admin.names(kind)]

    await eventually(nothing_left)


@pytest.mark.integration
async def test_a_run_that_failed_is_told_and_the_feed_stays_ready(admin: Admin, nodes, operator):
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
        """As ``kubectl create job --from=cronjob/…`` does."""
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
