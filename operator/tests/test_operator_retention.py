"""Retention: the CronJob that deletes expired rows, and the reports of its runs."""

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from operator_retention import FEED, NO_SCHEDULES, SPEC, STORAGE, container, cron_job, feed
from operator_support import REPOSITORY

from marketfeed_consumers.__main__ import parser
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.decide import Situation, decide
from marketfeed_operator.desired import Defaults, Feed, desired
from marketfeed_operator.facts import child_facts
from marketfeed_operator.kinds import CRON_JOB, JOB
from marketfeed_operator.observed import FeedFacts, JobState, Observed
from marketfeed_operator.plan import obsolete, plan


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
def test_retention_passes_an_option_per_configured_table(retention, options):
    reported = container(cron_job(retention))["command"]
    assert reported == ["marketfeed-consumer", "retain", *options]
    taken = vars(parser().parse_args(reported[1:]))  # by the command's own parser
    named = {key for key, value in taken.items() if key.endswith("_days") and value is not None}
    assert named == {option[2:].replace("-", "_") for option in options[::2]}


def test_retention_without_tables_deletes_nothing():
    for declared in (feed(None), Feed(*FEED, "uid", 1, _without_storage(), Defaults("w", "c"))):
        kinds = {child.kind.kind for child in desired(declared, {}, set())}
        assert "CronJob" not in kinds
        assert "feed-retention" not in {child.name for child in desired(declared, {}, set())}


def _without_storage() -> Spec:
    found = parse(SPEC)
    assert isinstance(found, Spec)
    return found


def test_retention_cron_job_forbids_concurrency_and_keeps_few_jobs():
    spec = cron_job({"tradesDays": 90})["spec"]
    job = spec.pop("jobTemplate")["spec"]
    assert spec == {
        "schedule": "23 3 * * *", "timeZone": "Etc/UTC", "concurrencyPolicy": "Forbid", "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
    }  # fmt: skip
    assert (job["backoffLimit"], job["activeDeadlineSeconds"]) == (6, 86_400)
    assert job["template"]["spec"]["restartPolicy"] == "Never", (
        "otherwise the log of a failed run is deleted with it"
    )
    assert cron_job({"tradesDays": 90, "schedule": "0 4 * * sun"})["spec"]["schedule"] == "0 4 * * sun"


def test_retention_pods_equal_those_of_the_migration_except_the_command():
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


def test_retention_example_of_the_docs_is_a_valid_spec():
    text = (REPOSITORY / "docs" / "operator.md").read_text().partition("### What is deleted")[2]
    shown = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    spec = parse({**SPEC, **shown})
    assert isinstance(spec, Spec), spec
    assert spec.storage is not None
    assert spec.storage.retention is not None


@pytest.mark.parametrize(
    "schedule",
    ["0 0 * * *", "*/5 * * * *", "00 04 1,15 * *", "5-55/10 0-6 31 12 0", "30 2 * jan-mar,dec mon-fri", "59 23 1 1 6"],
)  # fmt: skip
def test_retention_valid_schedule_is_accepted(schedule):
    assert cron_job({"tradesDays": 1, "schedule": schedule})["spec"]["schedule"] == schedule


@pytest.mark.parametrize("schedule", NO_SCHEDULES, ids=repr)
def test_retention_invalid_schedule_is_refused_with_an_example(schedule):
    refused = parse({**SPEC, "storage": {**STORAGE, "retention": {"tradesDays": 1, "schedule": schedule}}})
    assert isinstance(refused, list)
    assert "like 23 3 * * *" in refused[0]


def made(declared: Feed, observed: Observed) -> Observed:
    """Return the observed state after the plan was executed and the migration, if any, has succeeded."""
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


def test_retention_is_suspended_until_the_schema_matches():
    declared = feed({"tradesDays": 90})
    assert suspended(declared, Observed()) is True
    migrated = made(declared, Observed())
    assert suspended(declared, migrated) is None
    assert suspended(feed({"tradesDays": 90}, images={"consumer": "consumer:2"}), migrated) is True


def run(name: str, created: str, state: JobState) -> dict[str, Any]:
    """Return a Job as the CronJob controller creates it: with the labels of its template only."""
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
def test_retention_failure_is_reported_until_a_run_succeeds(states, newest, degraded):
    declared = feed({"tradesDays": 90})
    runs = [
        child_facts("Job", run(f"run-{9 - day}", f"2026-11-0{day + 1}T03:23:00Z", state))
        for day, state in enumerate(states)
    ]
    there = made(declared, made(declared, Observed()))  # once more after the migration: no longer suspended
    there = replace(there, children={**there.children, **{each.key: each for each in runs if each}})
    planned = plan(declared, there)
    assert planned is not None
    assert obsolete(planned.children, there, "uid") == [], "runs belong to their CronJob"
    facts = FeedFacts(*FEED, "uid", 1, "1", {}, {})
    found = decide(Situation(facts, declared.spec, [], there, planned), datetime(2026, 11, 28, tzinfo=UTC))
    assert found.retention is not None
    assert (found.retention.cron_job, found.retention.state) == ("feed-retain", newest)
    reported = next(each for each in found.conditions if each.type == "Degraded")
    assert reported.reason == ("RetentionFailed" if degraded else "AsExpected")
    assert found.migration is not None
    assert found.migration.state == "Succeeded"
