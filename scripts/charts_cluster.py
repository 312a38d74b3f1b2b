"""What scripts/charts_install.py does to a cluster: helm and kubectl, and waits that say what they wait for."""

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
LOOK_SECONDS: Final = 2.0

Object = dict[str, Any]


class Failed(Exception):
    """Something could not be done; the message is for the user."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that kubectl's current context names.

    Attributes:
        helm, kubectl: the programs.
        context: another context of the kubeconfig, if not empty.
    """

    helm: str
    kubectl: str
    context: str = ""

    def run_helm(self, *arguments: str) -> str:
        """The output of helm.

        Raises:
            Failed: it failed; with its own words.
        """
        return _run([self.helm, *arguments, *(["--kube-context", self.context] if self.context else [])])

    def run_kubectl(self, *arguments: str) -> str:
        """The output of kubectl.

        Raises:
            Failed: it failed; with its own words.
        """
        return _run([self.kubectl, *(["--context", self.context] if self.context else []), *arguments])

    def find(self, *arguments: str) -> list[Object]:
        """The objects that `kubectl get` gives; none where there are none or the kind is not known."""
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
        """Every kind that the cluster knows, as (apiVersion, kind)."""
        rows = (line.split() for line in self.run_kubectl("api-resources", "--no-headers").splitlines())
        return {(row[-3], row[-1]) for row in rows if len(row) >= 4}


def programs(context: str) -> Cluster:
    """A cluster by the helm and kubectl of PATH.

    Raises:
        Failed: one of them is missing, or the cluster does not answer.
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
    """Waits until a deadline that all of them share, and tells each new state once."""

    seconds: float
    tell: Callable[[str], None] = print
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self._deadline = self.now() + self.seconds

    def until(self, what: str, state: Callable[[], str]) -> None:
        """Wait until `state` is empty; what it says otherwise is why not yet.

        Raises:
            Failed: the deadline has passed; with the last state.
        """
        told = None
        while problem := state():
            if problem != told:
                self.tell(f"waiting for {what}: {problem}")
                told = problem
            if self.now() > self._deadline:
                raise Failed(f"not usable within {self.seconds:g} s: {what}: {problem}")
            self.sleep(LOOK_SECONDS)
        self.tell(f"{what}: ready")


def workloads(items: Iterable[Object]) -> str:
    """Which Deployments, StatefulSets and DaemonSets are not up yet; empty when all are."""
    behind = []
    for item in items:
        status, name = item.get("status", {}), f"{item['kind']} {item['metadata']['name']}"
        if item["kind"] == "DaemonSet":
            wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        else:
            wanted = item["spec"].get("replicas", 1)
            ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
        if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
            behind.append(f"{name} is not looked at yet")
        elif ready < wanted:
            behind.append(f"{name} has {ready} of {wanted} pods ready")
    return ", ".join(behind)


def readiness(item: Object | None) -> str:
    """Why an object with a condition Ready is not ready; empty when it is."""
    if item is None:
        return "is not there yet"
    status = item.get("status", {})
    ready = next((each for each in status.get("conditions", []) if each["type"] == "Ready"), None)
    if ready is None:
        return "has no condition Ready yet"
    seen = ready.get("observedGeneration", status.get("observedGeneration", 0))
    if seen < item["metadata"].get("generation", 0):
        return "its newest spec is not looked at yet"
    if ready["status"] == "True":
        return ""
    return ": ".join(filter(None, (ready.get("reason"), ready.get("message")))) or "is not Ready"


def database(item: Object | None) -> str:
    """Why a CrdbCluster is not usable yet; empty when it is."""
    if item is None:
        return "is not there yet"
    wanted = sum(region["nodes"] for region in item["spec"].get("regions", []))
    status = item.get("status", {})
    ready = status.get("readyNodes", 0)
    if ready < wanted:
        return f"has {ready} of {wanted} nodes ready"
    return "" if status.get("reconciled") else "is not reconciled yet"


def manifests(text: str) -> Iterator[Object]:
    """The objects of a YAML text."""
    for body in yaml.safe_load_all(text):
        if body:
            yield body


def kept(body: Object) -> bool:
    """Whether helm leaves the object when it uninstalls the release."""
    annotations = body["metadata"].get("annotations") or {}
    return annotations.get("helm.sh/resource-policy") == "keep"


def reference(body: Object) -> str:
    """An object as kubectl takes it: kind.version.group/name."""
    group, _, version = body["apiVersion"].rpartition("/")
    kind = f"{body['kind']}.{version}.{group}" if group else body["kind"]
    return f"{kind}/{body['metadata']['name']}"


def location(body: Object) -> tuple[str, ...]:
    """The arguments of kubectl that name the object's namespace."""
    namespace = body["metadata"].get("namespace")
    return ("--namespace", namespace) if namespace else ()


def fail(message: str) -> int:
    """Tell why it ends, for exit code 1."""
    print(message, file=sys.stderr)
    return 1
