"""Cluster access of scripts/charts_install.py: helm, kubectl, and waiting for readiness."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
POLL_SECONDS: Final = 2.0

Object = dict[str, Any]


class Failed(Exception):
    """A step failed; the message is for the user."""


@dataclass(frozen=True)
class Cluster:
    """The cluster of a kubeconfig context.

    Attributes:
        helm, kubectl: Executables.
        context: Context of the kubeconfig; "" for the current one.
    """

    helm: str
    kubectl: str
    context: str = ""

    def run_helm(self, *arguments: str) -> str:
        """Run helm and return its output.

        Raises:
            Failed: helm failed; the message contains its error.
        """
        return _run([self.helm, *arguments, *(["--kube-context", self.context] if self.context else [])])

    def run_kubectl(self, *arguments: str) -> str:
        """Run kubectl and return its output.

        Raises:
            Failed: kubectl failed; the message contains its error.
        """
        return _run([self.kubectl, *(["--context", self.context] if self.context else []), *arguments])

    def find(self, *arguments: str) -> list[Object]:
        """Return the objects of `kubectl get`; an empty list if there are none or the CRD is not installed."""
        try:
            text = self.run_kubectl("get", "--ignore-not-found", "--output=json", *arguments)
        except Failed as failure:
            if "the server doesn't have a resource type" in str(failure):
                return []
            raise
        found: Object = json.loads(text) if text.strip() else {}
        items: list[Object] = found.get("items", [found] if found else [])
        return items

    def kinds(self) -> set[tuple[str, str]]:
        """Return every served kind as (apiVersion, kind)."""
        rows = (line.split() for line in self.run_kubectl("api-resources", "--no-headers").splitlines())
        return {(row[-3], row[-1]) for row in rows if len(row) >= 4}


def programs(context: str) -> Cluster:
    """Return the cluster of `context`, with helm and kubectl from PATH.

    Raises:
        Failed: An executable is missing or the cluster does not respond.
    """
    missing = [name for name in ("helm", "kubectl") if shutil.which(name) is None]
    if missing:
        raise Failed(f"{' and '.join(missing)} must be in PATH: see docs/kubernetes.md, What you need")
    cluster = Cluster("helm", "kubectl", context)
    cluster.run_kubectl("version", "--request-timeout=10s")
    return cluster


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a list, no shell
    if done.returncode:
        raise Failed(f"{' '.join(command[:4])} … failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass
class Waiting:
    """Waits with a common deadline that print each new state once."""

    seconds: float
    output: Callable[[str], None] = print
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self._deadline = self.now() + self.seconds

    def until(self, what: str, state: Callable[[], str]) -> None:
        """Wait until `state` returns ""; other values are the reason of the wait.

        Args:
            what: Name of the awaited object.
            state: Returns the current reason.

        Raises:
            Failed: The deadline has passed; the message has the last reason.
        """
        last = None
        while problem := state():
            if problem != last:
                self.output(f"waiting for {what}: {problem}")
                last = problem
            if self.now() > self._deadline:
                raise Failed(f"not ready within {self.seconds:g} s: {what}: {problem}")
            self.sleep(POLL_SECONDS)
        self.output(f"{what}: ready")


def workloads(items: Iterable[Object]) -> str:
    """Return which Deployments, StatefulSets and DaemonSets are not ready; "" if all are."""
    not_ready = []
    for item in items:
        status, name = item.get("status", {}), f"{item['kind']} {item['metadata']['name']}"
        if item["kind"] == "DaemonSet":
            desired, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        else:
            desired = item["spec"].get("replicas", 1)
            ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
        if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
            not_ready.append(f"{name} is not observed yet")
        elif ready < desired:
            not_ready.append(f"{name} has {ready} of {desired} pods ready")
    return ", ".join(not_ready)


def readiness(item: Object | None) -> str:
    """Return why an object with a condition Ready is not ready; "" if it is."""
    if item is None:
        return "does not exist yet"
    status = item.get("status", {})
    ready = next((each for each in status.get("conditions", []) if each["type"] == "Ready"), None)
    if ready is None:
        return "has no condition Ready yet"
    observed = ready.get("observedGeneration", status.get("observedGeneration", 0))
    if observed < item["metadata"].get("generation", 0):
        return "its current generation is not observed yet"
    if ready["status"] == "True":
        return ""
    return ": ".join(filter(None, (ready.get("reason"), ready.get("message")))) or "is not Ready"


def database(item: Object | None) -> str:
    """Return why a CrdbCluster is not ready; "" if it is."""
    if item is None:
        return "does not exist yet"
    desired = sum(region["nodes"] for region in item["spec"].get("regions", []))
    status = item.get("status", {})
    ready = status.get("readyNodes", 0)
    if ready < desired:
        return f"has {ready} of {desired} nodes ready"
    return "" if status.get("reconciled") else "is not reconciled yet"


def manifests(text: str) -> Iterator[Object]:
    """Yield the objects of a YAML text."""
    for body in yaml.safe_load_all(text):
        if body:
            yield body


def kept(body: Object) -> bool:
    """Return whether helm keeps the object when the release is uninstalled."""
    annotations = body["metadata"].get("annotations") or {}
    return annotations.get("helm.sh/resource-policy") == "keep"


def reference(body: Object) -> str:
    """Return an object in kubectl's notation: kind.version.group/name."""
    group, _, version = body["apiVersion"].rpartition("/")
    kind = f"{body['kind']}.{version}.{group}" if group else body["kind"]
    return f"{kind}/{body['metadata']['name']}"


def location(body: Object) -> tuple[str, ...]:
    """Return kubectl's arguments for the object's namespace."""
    namespace = body["metadata"].get("namespace")
    return ("--namespace", namespace) if namespace else ()


def fail(message: str) -> int:
    """Print an error and return exit code 1."""
    print(message, file=sys.stderr)
    return 1
