"""Shared parts of the operator's tests and benchmarks: an administrator, a running operator, a wait with a deadline."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_kube_config
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from marketfeed_devtools.waiting import until
from marketfeed_operator.cluster import FEEDS, Cluster
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import ApiError
from marketfeed_operator.kinds import BY_NAME, SECRET, Kind

REPOSITORY = Path(__file__).parents[2]
SYSTEM = "marketfeed-system"
WAIT_SECONDS = 120.0
"""Deadline of waits. It is no performance limit: machines may be busy."""
ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
KINDS = {
    **BY_NAME,
    SECRET.kind: SECRET,
    "Namespace": Kind("v1", "Namespace", "namespaces"),
    "ClusterRole": Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles"),
    "ClusterRoleBinding": Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    "Role": Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    "RoleBinding": Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    "CustomResourceDefinition": Kind(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"
    ),
    "MarketFeed": FEEDS,
}


class Clock:
    """A clock that advances on request, and by `step` on each read."""

    def __init__(self, *, at: float = 1000.0, step: float = 0.0) -> None:
        self.seconds, self.step = at, step

    def __call__(self) -> float:
        self.seconds += self.step
        return self.seconds


async def eventually(
    check: Callable[[], Awaitable[Any]], *, seconds: float = WAIT_SECONDS, every: float = 0.1
) -> Any:
    """Return the first true result of `check`; after the deadline, fail with its last AssertionError or result."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := await check():
                return answer
            problem: object = f"the result stayed {answer!r}"
        except (AssertionError, ApiError) as error:
            problem = error
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {problem}"
        await asyncio.sleep(every)


class Admin:
    """An administrator of the API server, in a namespace of its own."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    async def feed(self, name: str, **spec: Any) -> dict[str, Any]:
        """Declare a MarketFeed, with defaults for the required fields."""
        body = {
            "apiVersion": FEEDS.api_version,
            "kind": FEEDS.kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"venue": "binance_us", "kafka": {"bootstrapServers": "kafka:9092"}, **spec},
        }
        return await self.cluster.apply(FEEDS, body, manager="tests")

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Get an object; None when it does not exist."""
        try:
            return await self.cluster.get(KINDS[kind].path(self.namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def names(self, kind: str) -> list[str]:
        """Return the names of the children of a kind."""
        found = await self.cluster.list_all(KINDS[kind], self.namespace, "marketfeed.dev/feed")
        return sorted(item["metadata"]["name"] for item in found)

    async def delete(self, kind: str, name: str) -> None:
        found = await self.get(kind, name)
        assert found is not None
        await self.cluster.delete(KINDS[kind], self.namespace, name, uid=found["metadata"]["uid"])

    async def condition(self, feed: str, kind: str) -> dict[str, Any]:
        found = await self.get("MarketFeed", feed)
        assert found is not None
        conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
        assert kind in conditions, f"no condition {kind} yet"
        generation = found["metadata"]["generation"]
        assert conditions[kind]["observedGeneration"] == generation, "the latest spec is not reconciled yet"
        return conditions[kind]


class Operator:
    """A running `marketfeed-operator`."""

    def __init__(
        self, process: subprocess.Popen[bytes], folder: Path, *, port_file: Path | None = None
    ) -> None:
        self.process = process
        self.log = folder / "operator.log"
        self._port_file = port_file or folder / "port"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port_file.read_text().strip()}{path}"

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        with urllib.request.urlopen(self.url("/metrics"), timeout=WAIT_SECONDS) as answer:  # noqa: S310 - our own process
            text = answer.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels."""
        return sum(
            value
            for (found, pairs), value in self.metrics().items()
            if found == name and set(labels.items()) <= pairs
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_SECONDS)

    def await_log(self, text: str, seconds: float = WAIT_SECONDS) -> None:
        def is_logged() -> bool:
            if text in self.log.read_text():
                return True
            assert self.process.poll() is None, f"the operator exited:\n{self.log.read_text()[-3000:]}"
            return False

        until(is_logged, lambda: f"{text!r} in the log:\n{self.log.read_text()[-3000:]}", seconds)


@contextlib.asynccontextmanager
async def admin_client(kubeconfig: Path):
    configuration = Configuration()
    await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as client:
        yield Cluster(client, Metrics(CollectorRegistry()))


async def apply_yaml(cluster: Cluster, text: str) -> None:
    """Apply all objects of a YAML text."""
    for body in yaml.safe_load_all(text):
        await cluster.apply(KINDS[body["kind"]], body, manager="tests")


async def install(kubeconfig: Path) -> None:
    """Apply the CRD and the operator's roles from manifests/."""
    texts = [(REPOSITORY / "manifests" / file).read_text() for file in ("crd.yaml", "operator/rbac.yaml")]
    async with admin_client(kubeconfig) as cluster:
        for text in texts:
            await apply_yaml(cluster, text)
        await eventually(lambda: cluster.get(FEEDS.path(None)))


async def operator_token(kubeconfig: Path) -> str:
    """Return a token of the operator's own ServiceAccount, so that a permission missing in manifests/ is detected."""
    async with admin_client(kubeconfig) as cluster:
        answer = await cluster.create(
            ACCOUNT.path(SYSTEM, "marketfeed-operator") + "/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 7200},
            },
        )
    return str(answer["status"]["token"])


async def serve_in(admin: Admin, namespace: str) -> None:
    """Grant the account `narrow` of the test's namespace the operator's permissions in a namespace."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "narrow", "namespace": namespace},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "marketfeed-operator",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "narrow", "namespace": admin.namespace}],
    }  # fmt: skip
    await admin.cluster.apply(KINDS["RoleBinding"], binding, manager="tests")


async def home_in(
    cluster: Cluster, namespace: str, account: tuple[str, str] = ("marketfeed-operator", SYSTEM)
) -> None:
    """Grant an account, by name and namespace, the permissions of an operator in its own namespace."""
    home = await cluster.get(KINDS["Role"].path(SYSTEM, "marketfeed-operator"))
    rbac = {"apiVersion": home["apiVersion"], "metadata": {"name": "home", "namespace": namespace}}
    await cluster.apply(KINDS["Role"], {**rbac, "kind": "Role", "rules": home["rules"]}, manager="tests")
    binding = {
        **rbac, "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "home"},
        "subjects": [{"kind": "ServiceAccount", "name": account[0], "namespace": account[1]}],
    }  # fmt: skip
    await cluster.apply(KINDS["RoleBinding"], binding, manager="tests")


async def narrow_token(admin: Admin) -> str:
    """Return a token of an account `narrow` that has the operator's permissions in the test's namespace only."""
    account = {
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "narrow", "namespace": admin.namespace},
    }  # fmt: skip
    await admin.cluster.apply(ACCOUNT, account, manager="tests")
    await serve_in(admin, admin.namespace)
    await home_in(admin.cluster, admin.namespace, ("narrow", admin.namespace))
    answer = await admin.cluster.create(
        ACCOUNT.path(admin.namespace, "narrow") + "/token",
        {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        },
    )  # fmt: skip
    return str(answer["status"]["token"])


def launch(folder: Path, kubeconfig: Path, running: contextlib.ExitStack, **environment: str) -> Operator:
    """Start an operator with short intervals; it is stopped with `running`.

    The lease keeps its default: a leader on a busy machine would lose a short one, and it is released on shutdown
    anyway.
    """
    variables = {
        "PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0", "METRICS_PORT_FILE": str(folder / "port"), "RESYNC_SECONDS": "2",
        "AUDIT_SECONDS": "2", "REPORT_SECONDS": "0.2",
        "LEASE_SECONDS": "15", "LEASE_RETRY_SECONDS": "0.3", "WORKER_IMAGE": "worker:1",
        "OPERATOR_NAMESPACE": SYSTEM, "CONSUMER_IMAGE": "consumer:1", **environment,
    }  # fmt: skip
    log = running.enter_context((folder / "operator.log").open("wb"))
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "marketfeed-operator")], env=variables, stderr=log, stdout=log
    )
    running.callback(_end, process)
    return Operator(process, folder)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
