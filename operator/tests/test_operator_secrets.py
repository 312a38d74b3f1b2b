"""Changed Secrets: only their version is read; it restarts the pods that use them, and no others."""

import asyncio
import os
import subprocess
from typing import Any

import pytest
import yaml
from operator_kubelet import kubelet
from operator_support import KINDS, REPOSITORY, Admin, eventually

from marketfeed_devtools.ports import free_port
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.desired import Defaults, Feed
from marketfeed_operator.desired.environment import consumer, database_job, worker
from marketfeed_operator.desired.pods import secret_versions
from marketfeed_operator.kinds import DEPLOYMENT, SECRET
from marketfeed_operator.names import SECRET_VERSIONS

PORT = free_port()
SASL = {"secretName": "marketfeed-kafka", "username": "feed"}
STORAGE = {"engine": "postgresql", "dsnSecretName": "marketfeed-database"}
EVERYTHING = {
    "venue": "binance_us", "symbols": ["AA"], "storage": {**STORAGE, "tls": {"caSecretName": "database-ca"}},
    "kafka": {
        "bootstrapServers": "k:9092",
        "credentials": {"sasl": SASL, "tls": {"caSecretName": "ca", "clientSecretName": "client"}},
    },
}  # fmt: skip


def feed(known: dict[str, str], stored: str = "", **changes: Any) -> Feed:
    spec = parse({**EVERYTHING, **changes})
    assert isinstance(spec, Spec), spec
    return Feed(
        "default", "feed", "uid", 1, spec, Defaults("w:1", "c:1"),
        secret_versions=known, stored_secret_versions={("Deployment", "feed-shard-0"): stored} if stored else {},
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"storage": None}, {"kafka": {"bootstrapServers": "k:9092"}},
        {"kafka": {"bootstrapServers": "k:9092", "credentials": {"tls": {}}}},
        {"kafka": {"bootstrapServers": "k:9092", "credentials": {"sasl": SASL}}},
    ],
    ids=["all of them", "no database", "no credentials", "only the system's CAs", "only a password"],
)  # fmt: skip
def test_secrets_watched_are_those_used_by_the_pods(changes):
    given = {key: value for key, value in {**EVERYTHING, **changes}.items() if value is not None}
    spec = parse(given)
    assert isinstance(spec, Spec), spec
    declared = Feed("default", "feed", "uid", 1, spec, Defaults("w:1", "c:1"))
    context = [
        worker(declared, "s"),
        database_job(declared),
        consumer(declared, "trade"),
        consumer(declared, "bookTicker"),
    ]
    read = {
        each["valueFrom"]["secretKeyRef"]["name"]
        for every in context for each in every.env if "secretKeyRef" in each.get("valueFrom", {})
    } | {
        volume["secret"]["secretName"] for every in context for volume in every.volumes if "secret" in volume
    }  # fmt: skip
    assert read == set().union(*(every.secrets for every in context)) == spec.secret_names()


@pytest.mark.parametrize(
    ("known", "stored", "expected"),
    [
        ({}, "", ""),
        ({"ca": "7"}, "", "ca=7"),
        ({"marketfeed-kafka": "3", "ca": "7", "client": "9"}, "", "ca=7,client=9,marketfeed-kafka=3"),
        ({"marketfeed-kafka": "4"}, "ca=7,marketfeed-kafka=3", "ca=7,marketfeed-kafka=4"),
        ({}, "ca=7,marketfeed-kafka=3", "ca=7,marketfeed-kafka=3"),
        ({"ca": "7", "marketfeed-database": "5"}, "", "ca=7"),
        ({"ca": "8"}, "ca=7,elsewhere=1", "ca=8"),
    ],
    ids=[
        "none known", "one known", "all known, in order", "one new version", "none readable any more",
        "Secret of consumers only", "Secret no longer used",
    ],
)  # fmt: skip
def test_secrets_versions_in_the_template_are_kept_until_newer_ones_are_known(known, stored, expected):
    declared = feed(known, stored)
    reported = secret_versions(declared, DEPLOYMENT, "feed-shard-0", worker(declared, "feed-shard-0"))
    assert reported == ({SECRET_VERSIONS: expected} if expected else {})


@pytest.fixture
def start(start_operator):
    """Starts operators and stops them with the test, so that the next one leads at once."""
    started = []

    def one(**environment: str):
        started.append(start_operator(POD_METRICS_PORT=str(PORT), **environment))
        return started[-1]

    yield one
    for operator in started:
        if operator.process.poll() is None:
            operator.stop()


async def put(admin: Admin, name: str, value: str) -> None:
    body = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": admin.namespace},
        "stringData": {"password": value, "DATABASE_URL": value},
    }  # fmt: skip
    await admin.cluster.apply(SECRET, body, manager="tests")


async def grant(admin: Admin) -> None:
    """The Role of docs/operator.md."""
    text = (REPOSITORY / "docs" / "operator.md").read_text().partition("### Rotation of a Secret")[2]
    for body in yaml.safe_load_all(text.partition("```yaml\n")[2].partition("```")[0]):
        body["metadata"]["namespace"] = admin.namespace
        await admin.cluster.apply(KINDS[body["kind"]], body, manager="tests")


async def pods(admin: Admin) -> dict[str, str]:
    """Return the uid of each pod, by component; without the migration's."""
    found = await admin.cluster.list_all(KINDS["Pod"], admin.namespace, "marketfeed.dev/feed")
    return {
        label: pod["metadata"]["uid"]
        for pod in found
        if (label := pod["metadata"]["labels"]["app.kubernetes.io/component"]) != "migration"
        and not pod["metadata"].get("deletionTimestamp")
    }


async def settled(admin: Admin, name: str) -> bool:
    ready, progressing = [await admin.condition(name, kind) for kind in ("Ready", "Progressing")]
    assert (ready["reason"], progressing["reason"]) == ("AllReady", "Settled"), (ready, progressing)
    return True


@pytest.mark.integration
async def test_secrets_new_version_restarts_only_the_pods_that_use_it(admin: Admin, start):
    await grant(admin)
    await put(admin, "marketfeed-database", "first")
    await put(admin, "marketfeed-kafka", "first")
    environment = {"WATCH_SECRETS": "true", "SECRETS_SECONDS": "0.3"}
    operator = start(**environment)
    kafka = {"bootstrapServers": "k:9092", "credentials": {"sasl": SASL}}
    async with kubelet(admin.cluster, admin.namespace, PORT):
        await admin.feed("rotated", symbols=["AA"], kafka=kafka, storage=STORAGE)
        await eventually(lambda: settled(admin, "rotated"))
        first = await pods(admin)
        assert set(first) == {"ingestion", "consumer-trades", "consumer-book"}
        generation = (await admin.get("Deployment", "rotated-shard-0"))["metadata"]["generation"]
        assert generation == 1, "the versions were known before the pods were created"

        await put(admin, "marketfeed-database", "second")

        async def consumers_are_new():
            now = await pods(admin)
            assert now.keys() == first.keys(), now
            return all(now[name] != first[name] for name in ("consumer-trades", "consumer-book"))

        await eventually(consumers_are_new)
        await eventually(lambda: settled(admin, "rotated"))
        second = await pods(admin)
        assert second["ingestion"] == first["ingestion"], (
            "workers do not use the database's connection string"
        )
        assert len(await admin.names("Job")) == 1, "no new migration"

        await put(admin, "marketfeed-kafka", "second")

        async def all_are_new():
            now = await pods(admin)
            return now.keys() == second.keys() and all(now[name] != second[name] for name in now)

        await eventually(all_are_new)
        await eventually(lambda: settled(admin, "rotated"))
        third = await pods(admin)

        # Deleted, and an operator that has never seen it: nothing has changed for existing pods.
        await admin.delete("Secret", "marketfeed-kafka")
        assert await asyncio.to_thread(operator.stop) == 0
        operator = await asyncio.to_thread(lambda: start(**environment))
        # The same with an operator that watches no Secrets.
        await looked_at_again(admin, operator)
        assert await pods(admin) == third
        assert await asyncio.to_thread(operator.stop) == 0
        operator = await asyncio.to_thread(start)
        await looked_at_again(admin, operator)
        assert await pods(admin) == third


async def looked_at_again(admin: Admin, operator) -> None:
    """Wait until the operator has reconciled the one feed of this module three times."""

    async def thrice():
        done = await asyncio.to_thread(
            operator.total, "marketfeed_operator_reconciles_total", result="success"
        )
        return done >= 3

    await eventually(thrice)


@pytest.mark.integration
async def test_secrets_without_permission_are_logged_once_and_block_nothing(admin: Admin, start):
    await put(admin, "not-granted", "first")
    operator = start(WATCH_SECRETS="true", SECRETS_SECONDS="0.2")
    async with kubelet(admin.cluster, admin.namespace, PORT):
        await admin.feed("barred", symbols=["AA"], storage={**STORAGE, "dsnSecretName": "not-granted"})
        await eventually(lambda: settled(admin, "barred"))

        async def refused_again():
            failures = await asyncio.to_thread(
                operator.total, "marketfeed_operator_api_failures_total", status="403"
            )
            return failures >= 3

        await eventually(refused_again)
    lines = [
        line
        for line in operator.log.read_text().splitlines()
        if "its changes restart no pods" in line and "not-granted" in line
    ]
    assert len(lines) == 1, lines
    assert "not-granted" in lines[0]


@pytest.mark.integration
async def test_secrets_are_requested_as_metadata_only(admin: Admin):
    await put(admin, "marketfeed-database", "confidential")
    whole = await admin.cluster._request(
        "get", SECRET.path(admin.namespace, "marketfeed-database"),
        header_params={"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
    )  # fmt: skip
    assert whole["kind"] == "PartialObjectMetadata"
    assert "data" not in whole
    found = await admin.cluster.metadata(SECRET, admin.namespace, "marketfeed-database")
    assert found == whole["metadata"]


@pytest.mark.integration
async def test_secrets_rollout_restart_by_a_user_is_not_corrected(admin: Admin, api_server, start):
    """``kubectl rollout restart`` writes into the pod template; that is not drift."""
    if api_server.programs is None or not (api_server.programs / "kubectl").exists():
        pytest.skip("there is no kubectl beside the API server's programs")
    operator = start()
    async with kubelet(admin.cluster, admin.namespace, PORT):
        await admin.feed("again", symbols=["AA"])
        await eventually(lambda: settled(admin, "again"))
        before = await pods(admin)
        done = await asyncio.to_thread(
            subprocess.run,
            [
                str(api_server.programs / "kubectl"), "--kubeconfig", str(api_server.kubeconfig), "--namespace",
                admin.namespace, "rollout", "restart", "deployment", "--selector", "marketfeed.dev/feed=again",
            ],
            check=False, capture_output=True, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

        async def another():
            now = await pods(admin)
            return now.keys() == before.keys() and now["ingestion"] != before["ingestion"]

        await eventually(another)
        await eventually(lambda: settled(admin, "again"))
    corrected = await asyncio.to_thread(
        operator.total, "marketfeed_operator_drift_corrected_total", kind="Deployment"
    )
    assert corrected == 0
