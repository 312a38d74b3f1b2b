"""The platform of the journeys: CRDs, Prometheus, Kafka, PostgreSQL, the venue, the project's chart.

Every step is repeatable: existing objects stay, changed ones are updated.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
sys.path += [str(HERE / "kind"), str(HERE / "images"), str(ROOT / "tests" / "charts")]

import build_images  # noqa: E402 - found through the line above
import charts_tools  # noqa: E402
import docker_engine  # noqa: E402
import kind_cluster  # noqa: E402
import kind_images  # noqa: E402
import kind_programs  # noqa: E402
from e2e_kube import Kube, run, until  # noqa: E402

from marketfeed_devtools.programs import Unavailable  # noqa: E402

SHARED_CRDS: Final = ROOT.parent / "shared" / "crds"
CHART: Final = ROOT / "charts" / "marketfeed"
RELEASE: Final = "marketfeed"
START_SECONDS: Final = 240.0
_VENUE_IMAGE: Final = "e2e.marketfeed.dev/image"


class Skipped(Exception):
    """The run is impossible on this machine; the message has the reason."""


@dataclass
class Platform:
    """The cluster and its platform.

    Attributes:
        kube: the cluster.
        images: role -> reference of the image.
        started_engine: whether the run started Docker's engine.
        timings_seconds: step -> its duration.
        notes: skipped steps with their reasons.
    """

    kube: Kube
    images: dict[str, str]
    started_engine: bool = False
    timings_seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def helm_program(self) -> Path:
        return charts_tools.find_tools().helm

    def helm(self, *arguments: str, seconds: float = 300.0) -> str:
        """Return the output of helm.

        Raises:
            Failed: it ended with an error.
        """
        command = [str(self.helm_program), f"--kubeconfig={self.kube.kubeconfig}", *arguments]
        return run(command, seconds=seconds)

    def step(self, name: str, work: Callable[[], object]) -> None:
        """Run one step and record its duration."""
        begun = time.monotonic()
        work()
        self.timings_seconds[name] = time.monotonic() - begun
        print(f"[e2e] {name}: {self.timings_seconds[name]:.0f} s", flush=True)

    def up(self) -> None:
        """Install everything but a MarketFeed."""
        self.step("images into the nodes", self._load)
        self.step("CRDs", self._crds)
        self._forget_another_market()
        self.step("Prometheus operator", self._prometheus_operator)
        for name, role in (("kafka", "kafka"), ("postgres", "postgres"), ("simulator", "simulator")):
            self._platform(name, {f"{role.upper()}_IMAGE": self.images[role]})
        self.step("Kafka, PostgreSQL, venue", self._await_platform)
        self.step("chart", self.install)
        self.step("Prometheus", self._prometheus)

    def install(self, *settings: str) -> None:
        """Install or upgrade the chart, as a user with an existing Kafka, database and Prometheus does."""
        images = [
            f"--set=image.{role}.tag={self.images[role].rpartition(':')[2]}"
            for role in ("operator", "worker", "consumer")
        ]
        self.helm(
            *("upgrade", "--install", RELEASE, str(CHART), "--namespace", RELEASE, "--create-namespace"),
            *("--values", str(CHART / "values-existing.yaml"), "--set=monitors.interval=5s"),
            *("--set=operator.resources.requests.cpu=20m", *images, *settings),
            *("--wait", "--timeout", "4m"),
        )

    def _load(self) -> None:
        if not self.kube.on_kind:
            self.notes.append("E2E_KUBECONFIG: the nodes must be able to pull the images")
            return
        loaded_file = kind_cluster.kubeconfig().with_name("loaded.json")
        loaded = json.loads(loaded_file.read_text()) if loaded_file.exists() else {}
        identities = run(["docker", "image", "inspect", "--format={{.Id}}", *self.images.values()]).split()
        current = dict(zip(self.images.values(), identities, strict=True))
        if changed := [image for image, identity in current.items() if loaded.get(image) != identity]:
            venue = [image for image in changed if image == self.images["simulator"]]
            for images, everywhere in (
                (venue, True),
                ([each for each in changed if each not in venue], False),
            ):
                if images:
                    kind_cluster.load(images, everywhere=everywhere)
            loaded_file.write_text(json.dumps(loaded | current))

    def _crds(self) -> None:
        folders = [
            kind_programs.module_source(kind_programs.PROMETHEUS_OPERATOR) / "example/prometheus-operator-crd"
        ]
        if SHARED_CRDS.exists():
            folders += [SHARED_CRDS / name for name in ("strimzi", "cockroachdb", "keda")]
        else:
            self.notes.append("../shared/crds is absent: no CRDs of Strimzi, CockroachDB and KEDA")
        for folder in folders:
            self.kube.run("apply", "--server-side", "--force-conflicts", "-f", str(folder))

    @property
    def has_others_kinds(self) -> bool:
        """Whether the cluster has the CRDs of Strimzi, CockroachDB and KEDA."""
        return SHARED_CRDS.exists()

    def _prometheus_operator(self) -> None:
        self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}})
        source = kind_programs.module_source(kind_programs.PROMETHEUS_OPERATOR)
        for file in sorted((source / "example/rbac/prometheus-operator").glob("*.yaml")):
            for found in yaml.safe_load_all(file.read_text()):
                self.kube.apply(_in_monitoring(found))
        self._rollout("monitoring", "deployment/prometheus-operator")

    def _prometheus(self) -> None:
        self._platform(
            "prometheus",
            {
                "PROMETHEUS_IMAGE": self.images["prometheus"],
                "PROMETHEUS_VERSION": kind_programs.PROMETHEUS_VERSION,
            },
        )
        until(
            "Prometheus runs",
            lambda: self.kube.find("monitoring", "statefulset/prometheus-e2e"),
            seconds=START_SECONDS,
        )
        self._rollout("monitoring", "statefulset/prometheus-e2e")

    def _platform(self, name: str, words: Mapping[str, str]) -> None:
        text = (HERE / "platform" / f"{name}.yaml").read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        objects = list(yaml.safe_load_all(text))
        if name == "simulator":
            if self.kube.find("venue", "pod/simulator"):
                return  # a pod is immutable, and this one keeps its market in memory
            objects[1]["metadata"]["annotations"] = {_VENUE_IMAGE: self._image_identity("simulator")}
        self.kube.apply(*objects)

    def _image_identity(self, role: str) -> str:
        if not self.kube.on_kind:
            return self.images[role]
        return run(["docker", "image", "inspect", "--format={{.Id}}", self.images[role]]).strip()

    def _forget_another_market(self) -> None:
        """Delete the stored trades of a previous venue: a restarted one has other trades with the same ids."""
        venue = self.kube.find("venue", "pod/simulator")
        annotations = venue["metadata"].get("annotations", {}) if venue else {}
        running = venue is not None and venue["status"].get("phase") == "Running"
        if running and annotations.get(_VENUE_IMAGE) == self._image_identity("simulator"):
            return
        for namespace in ("feeds", "data", "venue"):
            self.kube.run("delete", "namespace", namespace, "--ignore-not-found", seconds=180)

    def _await_platform(self) -> None:
        self._rollout("data", "statefulset/kafka")
        self._rollout("data", "statefulset/postgres")
        self.kube.run(
            *("--namespace", "venue", "wait", "--for=condition=Ready", "pod/simulator", "--timeout=180s"),
            seconds=200,
        )

    def _rollout(self, namespace: str, target: str) -> None:
        self.kube.run(
            *("--namespace", namespace, "rollout", "status", target, f"--timeout={START_SECONDS:.0f}s"),
            seconds=START_SECONDS + 20,
        )


def _in_monitoring(found: dict[str, Any]) -> dict[str, Any]:
    """Return an object of the Prometheus operator's own example, with the test's namespace and images."""
    if not found["kind"].startswith("Cluster"):
        found["metadata"]["namespace"] = "monitoring"
    for subject in found.get("subjects", []):
        subject["namespace"] = "monitoring"
    if found["kind"] == "Deployment":
        container = found["spec"]["template"]["spec"]["containers"][0]
        container["image"] = kind_images.PROMETHEUS_OPERATOR
        container["args"] = [
            f"--prometheus-config-reloader={kind_images.CONFIG_RELOADER}"
            if argument.startswith("--prometheus-config-reloader=")
            else argument
            for argument in container["args"]
        ]
        container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}}
    return found


def _all_images() -> dict[str, str]:
    """Return role -> reference; missing images are built first."""
    made = {name: build_images.provide(name) for name in ("kafka", "postgres")}
    for reference in build_images.provide_components():
        made[reference.rpartition(":")[0].rpartition("-")[2]] = reference
    prometheus, operator, reloader = kind_images.build_monitoring_images(
        kind_programs.build(kind_programs.MONITORING_PROGRAMS)
    )
    return made | {"prometheus": prometheus, "prometheus-operator": operator, "config-reloader": reloader}


def stop(platform: Platform) -> None:
    """Delete the test's own cluster, and stop Docker's engine if the run started it."""
    if platform.kube.on_kind:
        kind_cluster.down()
    if platform.started_engine:
        docker_engine.stop()


def start() -> Platform:
    """Return the platform on the cluster of E2E_KUBECONFIG, or on the test's own, which is started first.

    Raises:
        Skipped: this machine has no Docker, or lacks a program that builds images.
    """
    kubectl = kind_programs.build([kind_programs.KUBECTL])["kubectl"]
    timings = {}
    try:
        if existing := os.environ.get("E2E_KUBECONFIG"):
            platform = Platform(Kube(kubectl, Path(existing), on_kind=False), _all_images())
        else:
            begins_engine = docker_engine.start()
            begun = time.monotonic()
            images = _all_images()
            timings["images"] = time.monotonic() - begun
            print(f"[e2e] images: {timings['images']:.0f} s", flush=True)
            begun = time.monotonic()
            kubeconfig = kind_cluster.up()
            timings["cluster"] = time.monotonic() - begun
            print(f"[e2e] cluster: {timings['cluster']:.0f} s", flush=True)
            platform = Platform(Kube(kubectl, kubeconfig, on_kind=True), images, started_engine=begins_engine)
    except Unavailable as reason:
        raise Skipped(str(reason)) from reason
    platform.timings_seconds.update(timings)
    platform.up()
    return platform
