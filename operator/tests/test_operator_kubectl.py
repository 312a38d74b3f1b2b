"""``kubectl marketfeed`` against a real API server: the preview matches the result."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import yaml
from operator_kubelet import kubelet
from operator_support import REPOSITORY, Admin, eventually
from rich.console import Console

from marketfeed_cli.kubectl.preview import as_json, preview
from marketfeed_cli.kubectl.tables import age, status
from marketfeed_devtools.ports import free_port
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.assign import ShardAssignment
from marketfeed_operator.desired import stored_assignment
from marketfeed_operator.kinds import CONFIG_MAP

PORT = free_port()
SPEC = {"venue": "binance_us", "symbols": ["AA", "BB", "CC", "DD"], "kafka": {"bootstrapServers": "k:9092"}}


def sound(**changes) -> Spec:
    found = parse({**SPEC, **changes})
    assert isinstance(found, Spec), found
    return found


def test_kubectl_preview_shows_added_removed_and_moved_symbols():
    now = {0: ShardAssignment(frozenset(("AA", "BB", "CC", "DD")), frozenset())}
    then = sound(symbols=["AA", "BB", "CC", "EE"], shardSize=2, logging={"level": "DEBUG"})
    found = preview("feed", now, sound(), then, frozenset(then.symbols or ()))
    assert (found.added, found.removed) == (("EE",), ("DD",))
    assert found.moved == {"CC": ("feed-shard-0", "feed-shard-1")}
    assert found.shards == {"feed-shard-0": (4, 2), "feed-shard-1": (0, 2)}
    assert found.settings == {"spec.logging.level": ("INFO", "DEBUG"), "spec.shardSize": (50, 2)}
    assert found.restarted == ("feed-shard-0",)
    assert (found.created, found.deleted, found.migrated, found.paused) == ((), (), False, False)
    reported = as_json(found)
    assert reported["moved"] == [{"symbol": "CC", "from": "feed-shard-0", "to": "feed-shard-1"}]
    assert reported["shards"][1] == {"name": "feed-shard-1", "symbolsNow": 0, "symbolsThen": 2}
    assert reported["settings"][1] == {"path": "spec.shardSize", "now": 50, "then": 2}
    assert preview("feed", now, sound(), sound(), frozenset(sound().symbols or ())).empty


STORED = {"storage": {"engine": "postgresql", "dsnSecretName": "database"}}
EXPIRING = {"storage": {**STORED["storage"], "retention": {"bookTickersDays": 7}}}
CONSUMERS = {("StatefulSet", "feed-consumer-book"), ("StatefulSet", "feed-consumer-trades")}


@pytest.mark.parametrize(
    ("before", "after", "created", "deleted", "restarted", "migrated"),
    [
        ({}, {"shardSize": 2}, set(), set(), (), False),
        ({}, STORED, CONSUMERS, set(), (), True),
        (STORED, {}, set(), CONSUMERS, (), False),
        (
            STORED, {**STORED, "images": {"consumer": "c:2"}}, set(), set(),
            ("feed-consumer-book", "feed-consumer-trades"), True,
        ),
        (STORED, {**STORED, "consumers": {"trades": {"replicas": 3}}}, set(), set(), (), False),
        (STORED, EXPIRING, {("CronJob", "feed-retain")}, set(), (), False),
        (EXPIRING, STORED, set(), {("CronJob", "feed-retain")}, (), False),
        ({}, {"images": {"worker": "w:2"}}, set(), set(), ("feed-shard-0",), False),
        ({}, {"monitoring": {"podMonitor": False}}, set(), {("PodMonitor", "feed-pods")}, (), False),
        ({}, {"template": {"labels": {"team": "data"}}, "paused": True}, set(), set(), ("feed-shard-0",), False),
    ],
    ids=[
        "other shard size", "with storage", "without storage", "other consumer settings", "one more consumer",
        "with retention", "without retention", "other worker settings", "no monitor", "a label, while paused",
    ],
)  # fmt: skip
def test_kubectl_preview_shows_objects_and_restarts(before, after, created, deleted, restarted, migrated):
    now = {0: ShardAssignment(frozenset(("AA", "BB", "CC", "DD")), frozenset())}
    then = sound(**after)
    found = preview("feed", now, sound(**before), then, frozenset(then.symbols or ()), {"PodMonitor"})
    compared = ("StatefulSet", "PodMonitor", "CronJob")
    assert {each for each in found.created if each[0] in compared} == created
    assert {each for each in found.deleted if each[0] in compared} == deleted
    assert (found.restarted, found.migrated) == (restarted, migrated)
    assert found.paused == then.paused


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d"), (-5, "0s")],
)
def test_kubectl_age_has_the_format_of_kubectl(seconds, expected):
    now = datetime(2026, 11, 28, tzinfo=UTC)
    assert age((now - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"), now) == expected
    assert age(None, now) == "-"


@pytest.mark.parametrize(
    ("retention", "line"),
    [
        (None, None),
        ({"cronJob": "feed-retain", "job": "", "state": "None"}, "retention: CronJob feed-retain"),
        (
            {"cronJob": "feed-retain", "job": "feed-retain-29", "state": "Failed"},
            "retention: CronJob feed-retain, newest Job feed-retain-29 Failed",
        ),
    ],
    ids=["no retention", "before the first run", "with a run"],
)
def test_kubectl_status_shows_the_retention_cron_job_and_its_latest_run(retention, line):
    reported = {"retention": retention} if retention else {}
    feed = {
        "metadata": {"namespace": "n", "name": "feed"},
        "spec": {"venue": "binance_us"},
        "status": reported,
    }
    written = io.StringIO()
    status(Console(file=written, width=120), [feed], datetime(2026, 11, 28, tzinfo=UTC))
    assert [each for each in written.getvalue().splitlines() if "retention" in each] == (
        [line] if line else []
    )


@pytest.fixture(scope="module")
def operator(start_operator):
    return start_operator(POD_METRICS_PORT=str(PORT))


@pytest.fixture
def kubectl(api_server, admin: Admin):
    if api_server.programs is None or not (api_server.programs / "kubectl").exists():
        pytest.skip("there is no kubectl beside the API server's programs")
    environment = {
        "PATH": f"{api_server.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(api_server.kubeconfig),
        "HOME": str(api_server.kubeconfig.parent),
    }

    def run(
        *arguments: str, given: str = "", namespace: str = admin.namespace
    ) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", *arguments, *(["--namespace", namespace] if namespace else [])]
        return subprocess.run(
            command, env=environment, input=given, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def plugin(kubectl):
    return partial(kubectl, "marketfeed")


async def said(run, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    """Return the output of a command, while the pods of the test keep responding."""
    return await asyncio.to_thread(run, *arguments, **given)


def file(name: str = "feed", **changes) -> str:
    body = {"apiVersion": "marketfeed.dev/v1alpha1", "kind": "MarketFeed", "metadata": {"name": name}}
    return yaml.safe_dump({**body, "spec": {**SPEC, **changes}})


@pytest.mark.integration
async def test_kubectl_plan_matches_the_result(admin: Admin, operator, plugin):
    before = await said(plugin, "plan", "-f", "-", "-o", "json", given=file())
    assert before.returncode == 0, before.stderr
    assert json.loads(before.stdout)["new"] is True
    async with kubelet(admin.cluster, admin.namespace, PORT):
        await admin.feed("feed", **SPEC)

        async def read() -> dict[str, list[str]]:
            found = await admin.cluster.list_all(CONFIG_MAP, admin.namespace, "marketfeed.dev/feed=feed")
            return {
                each["metadata"]["name"]: sorted(stored_assignment(each["data"]).symbols) for each in found
            }

        async def at_first():
            return await read() == {"feed-shard-0": ["AA", "BB", "CC", "DD"]}

        await eventually(at_first)
        same = await said(plugin, "plan", "-f", "-", given=file())
        assert same.stdout == "MarketFeed feed: nothing would change\n", same.stderr
        planned = await said(
            plugin, "plan", "-f", "-", given=file(symbols=["AA", "BB", "CC", "EE"], shardSize=2)
        )
        assert "CC  feed-shard-0 -> feed-shard-1" in planned.stdout, planned.stderr
        assert "1 symbol added: EE" in planned.stdout
        assert await read() == {"feed-shard-0": ["AA", "BB", "CC", "DD"]}, "a plan changes nothing"
        await admin.feed("feed", **{**SPEC, "symbols": ["AA", "BB", "CC", "EE"]}, shardSize=2)

        async def as_planned():
            return await read() == {"feed-shard-0": ["AA", "BB"], "feed-shard-1": ["CC", "EE"]}

        await eventually(as_planned)

        async def ready():
            return (
                json.loads((await said(plugin, "status", "feed", "-o", "json")).stdout)["shards"]["ready"]
                == 2
            )

        await eventually(ready)
        reported = (await said(plugin, "status", "feed")).stdout
        assert "feed-shard-1" in reported
        assert "AllReady" in reported


EXAMPLE = REPOSITORY / "manifests" / "examples" / "binance-us.yaml"
NAME = "binance-us"
CHILDREN = {
    "ConfigMap": [f"{NAME}-shard-0", f"{NAME}-shard-1"],
    "Deployment": [f"{NAME}-shard-0", f"{NAME}-shard-1"],
    "StatefulSet": [f"{NAME}-consumer-book", f"{NAME}-consumer-trades"],
    "Service": [f"{NAME}-consumer-book", f"{NAME}-consumer-trades"],
    "NetworkPolicy": [
        f"{NAME}-{each}" for each in ("consumer-book", "consumer-trades", "ingestion", "migration")
    ],
    "PodDisruptionBudget": [f"{NAME}-{each}" for each in ("consumer-book", "consumer-trades", "ingestion")],
    "ServiceAccount": [f"{NAME}-pods"],
}


@pytest.mark.integration
async def test_kubectl_apply_of_the_example_creates_children_and_status(
    admin: Admin, operator, plugin, kubectl
):
    """The example of docs/operator.md: kubectl alone, from the file to its output."""
    async with kubelet(admin.cluster, admin.namespace, PORT):
        applied = await said(kubectl, "apply", "-f", str(EXAMPLE))
        assert applied.returncode == 0, applied.stderr

        async def settled():
            conditions = [await admin.condition(NAME, kind) for kind in ("Ready", "Progressing")]
            assert [each["reason"] for each in conditions] == ["AllReady", "Settled"], conditions
            lag = (await admin.get("MarketFeed", NAME))["status"]["consumers"].get("lag")
            assert lag == 30, "all three consumers have reported their lag"
            return True

        await eventually(settled)
        assert {kind: await admin.names(kind) for kind in CHILDREN} == CHILDREN
        heads, row = (await said(kubectl, "get", "mf", "-o", "wide")).stdout.splitlines()
        assert dict(zip(heads.split()[:-1], row.split()[:-1], strict=True)) == {
            "NAME": NAME, "VENUE": "binance_us", "SYMBOLS": "10", "SHARDS": "2", "READY-SHARDS": "2",
            "CONSUMERS": "3", "LAG": "30", "MISSING": "0", "READY": "True", "REASON": "AllReady",
        }  # fmt: skip
        reported = [line.split() for line in (await said(plugin, "status")).stdout.splitlines()]
        assert [
            admin.namespace,
            NAME,
            "binance_us",
            "10",
            "2/2",
            "3/3",
            "30",
            "0",
            "True",
            "AllReady",
        ] in reported
        for line in (
            [f"{NAME}-shard-0", "5", "1", "live"], [f"{NAME}-shard-1", "5", "1", "live"],
            ["market.trades.raw", "2/2", "20"], ["market.book_ticker.raw", "1/1", "10"],
        ):  # fmt: skip
            assert line in [each[: len(line)] for each in reported], reported

        async def event_created():  # after the status
            described = (await said(kubectl, "describe", "mf", NAME)).stdout
            return re.search(
                r"Normal +AllReady .*Ready is True: all shards and consumers are ready", described
            )

        await eventually(event_created)


@pytest.mark.integration
def test_kubectl_errors_are_one_line(plugin):
    wrong = plugin("plan", "-f", "-", given=file(shardSize=0))
    assert (wrong.returncode, wrong.stderr) == (
        2, "error: spec.shardSize=0: input should be greater than or equal to 1\n",
    )  # fmt: skip
    refused = plugin("plan", "-f", "-", given=file(name="x" * 41))
    assert refused.returncode == 1
    assert "at most 40 characters" in refused.stderr
    assert plugin("status", "absent").stderr.startswith("error: Error from server (NotFound)")
    assert plugin("plan", "-f", "/nowhere.yaml").returncode == 2
    assert "no MarketFeed found in this namespace" in plugin("status").stdout
