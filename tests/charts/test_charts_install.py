"""make install and make uninstall: their wait conditions, and their effect on a real API server."""

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from charts_support import ROOT, ControlPlane, Kubectl, Object, charts_cluster
from charts_tools import Tools

pytest_plugins = ["charts_fixtures"]


class Clock:
    """A clock that advances only by sleeping."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class TestWaiting:
    def _waiting(self, seconds: float) -> tuple[charts_cluster.Waiting, list[str]]:
        printed: list[str] = []
        clock = Clock()
        return charts_cluster.Waiting(seconds, printed.append, clock.now, clock.sleep), printed

    def test_wait_prints_each_state_once_and_the_end(self) -> None:
        waiting, printed = self._waiting(60)
        states = iter(["no pod", "no pod", "one pod", ""])
        waiting.until("the operator", lambda: next(states))
        assert printed == [
            "waiting for the operator: no pod", "waiting for the operator: one pod", "the operator: ready",
        ]  # fmt: skip

    def test_wait_deadline_names_the_last_missing_object(self) -> None:
        waiting, _ = self._waiting(10)
        with pytest.raises(charts_cluster.Failed, match="not ready within 10 s: the operator: no pod"):
            waiting.until("the operator", lambda: "no pod")

    def test_wait_deadline_is_shared(self) -> None:
        waiting, _ = self._waiting(10)
        states = iter(["no pod"] * 4 + [""])
        waiting.until("one", lambda: next(states))
        more = iter(["no pod"] * 3 + [""])
        with pytest.raises(charts_cluster.Failed, match="two: no pod"):
            waiting.until("two", lambda: next(more))


def _workload(kind: str = "Deployment", *, observed: int = 2, **counts: int) -> Object:
    body: Object = {"kind": kind, "metadata": {"name": "x", "generation": 2}, "spec": {"replicas": 2}}
    return {**body, "status": {"observedGeneration": observed, **counts}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (_workload(readyReplicas=2, updatedReplicas=2), ""),
        (_workload(readyReplicas=1, updatedReplicas=2), "Deployment x has 1 of 2 pods ready"),
        (_workload(readyReplicas=2, updatedReplicas=1), "Deployment x has 1 of 2 pods ready"),
        (_workload(), "Deployment x has 0 of 2 pods ready"),
        (_workload(observed=1, readyReplicas=2, updatedReplicas=2), "Deployment x is not observed yet"),
        (_workload("DaemonSet", desiredNumberScheduled=3, numberReady=3), ""),
        (_workload("DaemonSet", desiredNumberScheduled=3, numberReady=1), "DaemonSet x has 1 of 3 pods ready"),
    ],
)  # fmt: skip
def test_wait_for_workloads_ends_when_their_newest_pods_are_ready(body: Object, says: str) -> None:
    assert charts_cluster.workloads([body]) == says


def _conditioned(observed: int, **ready: str) -> Object:
    conditions = [{"type": "Ready", "observedGeneration": observed, **ready}] if ready else []
    return {"metadata": {"name": "x", "generation": 2}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, "does not exist yet"),
        (_conditioned(2), "has no condition Ready yet"),
        (_conditioned(2, status="True"), ""),
        (_conditioned(1, status="True"), "its current generation is not observed yet"),
        (_conditioned(2, status="False", reason="Creating", message="2 pods"), "Creating: 2 pods"),
        (_conditioned(2, status="False"), "is not Ready"),
    ],
)  # fmt: skip
def test_wait_for_an_object_ends_when_its_newest_spec_is_ready(body: Object, says: str) -> None:
    assert charts_cluster.readiness(body) == says


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({}, "has 0 of 3 nodes ready"),
        ({"readyNodes": 3}, "is not reconciled yet"),
        ({"readyNodes": 3, "reconciled": True}, ""),
    ],
)
def test_wait_for_a_database_ends_when_nodes_and_operator_are_ready(status: Object, says: str) -> None:
    body = {"spec": {"regions": [{"nodes": 2}, {"nodes": 1}]}, "status": status}
    assert charts_cluster.database(body) == says


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(api_server: ControlPlane, tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs scripts/charts_install.py against the API server, as make does."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "helm").symlink_to(tools.helm)
    if api_server.programs:
        (folder / "kubectl").symlink_to(api_server.programs / "kubectl")
    variables = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "KUBECONFIG": str(api_server.kubeconfig),
    }

    def script(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(ROOT / "scripts/charts_install.py"), *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=variables)

    return script


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"install-{uuid.uuid4().hex[:8]}"
    yield name
    for kind in ("clusterroles", "clusterrolebindings"):  # of a release that a failed test left
        kubectl("delete", kind, "--selector", "app.kubernetes.io/part-of=marketfeed")
    kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
    kubectl("delete", "crd", "marketfeeds.marketfeed.dev", "--ignore-not-found")


READY = {"status": {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]}}
STATUSES = {
    "pods": ("--subresource=status", READY["status"] | {"phase": "Running"}),
    "kafkas.kafka.strimzi.io": ("--subresource=status", READY["status"] | {"observedGeneration": 1}),
    "kafkatopics.kafka.strimzi.io": ("--subresource=status", READY["status"] | {"observedGeneration": 1}),
    "marketfeeds.marketfeed.dev": (
        "--subresource=status",
        {
            "conditions": [
                {
                    **READY["status"]["conditions"][0],
                    "reason": "AllReady",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ]
        },
    ),
    "crdbclusters.crdb.cockroachlabs.com": ("", {"readyNodes": 1, "reconciled": True}),
}


@pytest.fixture
def life(kubectl: Kubectl, namespace: str) -> Iterator[None]:
    """Set the status of nodes' and other operators' objects, which this API server lacks: everything becomes ready."""
    over = threading.Event()

    def live() -> None:
        while not over.wait(1):
            for kind, (how, status) in STATUSES.items():
                names = kubectl("get", kind, "--namespace", namespace, "--output=name").stdout.split()
                patch = ("--type=merge", "--patch", json.dumps({"status": status}), *([how] if how else []))
                for name in names:
                    kubectl("patch", name, "--namespace", namespace, *patch)

    thread = threading.Thread(target=live)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.integration
def test_install_of_local_with_its_feed_is_repeatable_and_removable(
    run: Run, kubectl: Kubectl, namespace: str, life: None, platform: None
) -> None:
    values = ROOT / "charts/marketfeed/values-local.yaml"
    done = run("install", "--namespace", namespace, "--values", values, "--timeout-seconds", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Deployment marketfeed-operator: ready" in done.stdout
    assert "the CRD was installed by this release: upgrading again for the MarketFeed" in done.stdout
    assert "Kafka market: ready" in done.stdout
    assert "MarketFeed first: ready" in done.stdout
    assert f"kubectl -n {namespace} get marketfeed first" in done.stdout

    again = run("install", "--namespace", namespace, "--values", values, "--timeout-seconds", "200")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "the CRD was installed by this release" not in again.stdout

    gone = run("uninstall", "--namespace", namespace, "--timeout-seconds", "200")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "kept: CustomResourceDefinition.v1.apiextensions.k8s.io/marketfeeds.marketfeed.dev" in gone.stdout
    assert "kept: Kafka" not in gone.stdout
    assert kubectl("get", "marketfeeds", "--namespace", namespace, "--output=name").stdout == ""

    nothing = run("uninstall", "--namespace", namespace)
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert f"no release marketfeed in namespace {namespace}: nothing to uninstall" in nothing.stdout


@pytest.mark.integration
def test_install_names_an_operator_that_does_not_become_ready(
    run: Run, namespace: str, platform: None
) -> None:
    values = ROOT / "charts/marketfeed/values-existing.yaml"
    done = run("install", "--namespace", namespace, "--values", values, "--timeout-seconds", "4")
    assert done.returncode == 1
    assert "not ready within 4 s: Deployment marketfeed-operator: " in done.stderr
    assert run("uninstall", "--namespace", namespace).returncode == 0


@pytest.mark.integration
def test_install_names_missing_crds_before_it_creates_anything(
    run: Run, kubectl: Kubectl, namespace: str, platform: None
) -> None:
    values = ROOT / "charts/marketfeed/values-production.yaml"
    done = run("install", "--namespace", namespace, "--values", values)
    assert done.returncode == 1
    assert "CRDs that are not installed: Certificate of cert-manager.io/v1" in done.stderr
    assert kubectl("get", "namespace", namespace).returncode != 0


@pytest.mark.integration
def test_install_prints_helms_message_about_wrong_values(run: Run, namespace: str) -> None:
    done = run("install", "--namespace", namespace, "--set", "operator.replica=3")
    assert done.returncode == 1
    assert "additional properties 'replica' not allowed" in done.stderr


def test_install_names_missing_helm(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "scripts/charts_install.py"), "install"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "helm and kubectl must be in PATH" in done.stderr
