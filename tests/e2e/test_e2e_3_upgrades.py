"""Journey 3: new images of every component, Helm upgrade and rollback, uninstall and install, under load."""

import json
import os
import subprocess
import time
from typing import Any

import kind_cluster
import pytest
from e2e_kube import until
from e2e_platform import RELEASE
from e2e_system import System, names

pytest_plugins = ["e2e_fixtures"]

NEXT = "0.1.0-next"


@pytest.fixture(scope="module")
def next_images(running: System) -> dict[str, str]:
    """Role -> another image of the same program, which a cluster treats as a newer build."""
    if not running.kube.on_kind:
        pytest.skip(
            "E2E_KUBECONFIG: a second version of the images cannot be loaded into its nodes from here"
        )
    made = {}
    for role in ("worker", "consumer", "operator"):
        image = running.platform.images[role]
        made[role] = f"{image.rpartition(':')[0]}:{NEXT}"
        subprocess.run(
            ["docker", "build", "--quiet", "--pull=false", "--tag", made[role], "-"],
            input=f"FROM {image}\nLABEL marketfeed.e2e=next\n",
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            text=True,
            capture_output=True,
            check=True,
        )
    kind_cluster.load(list(made.values()), everywhere=False)
    return made


def test_worker_image(system: System, next_images: dict[str, str]) -> None:
    consumers = names(system.consumers())
    begun = time.monotonic()
    system.patch_feed({"images": {"worker": next_images["worker"]}})
    system.await_ready()
    system.recovered("rolled", begun)
    assert _images(system.workers()) == {next_images["worker"]}
    assert names(system.consumers()) == consumers, "the workers' image must not restart consumers"
    system.compare()


def test_consumer_image(system: System, next_images: dict[str, str]) -> None:
    workers = names(system.workers())
    begun = time.monotonic()
    system.patch_feed({"images": {"consumer": next_images["consumer"]}})
    system.await_ready()
    system.recovered("rolled", begun)
    assert _images(system.consumers()) == {next_images["consumer"]}
    assert names(system.workers()) == workers, "the consumers' image must not restart workers"
    system.compare()


def test_operator_upgrade_and_rollback(system: System, next_images: dict[str, str]) -> None:
    pods = names([*system.workers(), *system.consumers()])
    revision = _revision(system)
    system.platform.install(f"--set=image.operator.tag={NEXT}")
    assert _images(system.operators()) == {next_images["operator"]}
    system.await_ready()
    system.platform.helm("rollback", RELEASE, str(revision), "--namespace", RELEASE, "--wait", "--timeout=4m")
    until(
        "the operator is the previous one",
        lambda: _images(system.operators()) == {system.platform.images["operator"]},
        seconds=120,
    )
    system.await_ready()
    assert names([*system.workers(), *system.consumers()]) == pods, (
        "an operator's upgrade restarts no pod of a feed"
    )
    system.compare()


def test_uninstall_and_install(system: System) -> None:
    pods = names([*system.workers(), *system.consumers()])
    system.platform.helm("uninstall", RELEASE, "--namespace", RELEASE, "--wait", "--timeout=4m")
    until("the operator is removed", lambda: not system.operators(), seconds=120)
    # CRD, feeds and all workloads stay: data flows without an operator.
    assert names([*system.workers(), *system.consumers()]) == pods
    system.trades_flow()
    system.platform.install()
    system.await_ready()
    assert names([*system.workers(), *system.consumers()]) == pods, "a new operator must change nothing"
    system.compare()


def _images(pods: list[dict[str, Any]]) -> set[str]:
    return {container["image"] for pod in pods for container in pod["spec"]["containers"]}


def _revision(system: System) -> int:
    status = system.platform.helm("status", RELEASE, "--namespace", RELEASE, "--output=json")
    return int(json.loads(status)["version"])
