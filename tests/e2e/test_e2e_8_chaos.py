"""Journey 4, second part: a node stopped and started, then random kills for five minutes, by a seed."""

import os
import random
import time

import e2e_chaos
import kind_cluster
import pytest
from e2e_kube import Failed, Kube
from e2e_system import NAMESPACE, Object, System

pytest_plugins = ["e2e_fixtures"]

SEED = int(os.environ.get("E2E_SEED", "9"))
SECONDS = float(os.environ.get("E2E_CHAOS_SECONDS", "300"))
DOWN_SECONDS = 30.0


@pytest.mark.parametrize("number", [0, 1])
def test_node(system: System, number: int) -> None:
    """A node loses power for half a minute, with everything on it."""
    if not system.kube.on_kind:
        pytest.skip("E2E_KUBECONFIG: the nodes of that cluster must not be stopped")
    node = [name for name in kind_cluster.nodes() if "worker" in name][number]
    begun = time.monotonic()
    e2e_chaos.stop_node(node)
    down = time.monotonic()
    while time.monotonic() - down < DOWN_SECONDS:
        time.sleep(1)
    e2e_chaos.start_node(system.kube, node)
    system.recovered("node ready", begun)
    system.trades_flow(seconds=300)
    system.recovered("data flows", begun)
    system.await_ready()
    system.recovered("ready", begun)
    system.compare(seconds=300)


def test_random(system: System) -> None:
    """SIGKILL of a random container every few seconds; the seed is in the report."""
    chance = random.Random(SEED)  # noqa: S311 - which pod dies is no secret
    ends = time.monotonic() + SECONDS
    killed: list[str] = []
    while time.monotonic() < ends:
        try:
            victims = _victims(system)
            pod = chance.choice(victims)
            e2e_chaos.kill(system.kube, pod)
            killed.append(pod["metadata"]["name"])
        except (Failed, AssertionError) as error:
            # The chosen container may be down already, or not yet restarted: that is intended.
            print(f"not killed: {error}", flush=True)
        pause = time.monotonic() + chance.uniform(5, 20)
        while time.monotonic() < min(pause, ends):
            time.sleep(0.5)
    begun = time.monotonic()
    system.journey.name += f", seed {SEED}, {len(killed)} kills"
    assert len(killed) >= SECONDS / 40, f"only {killed} were killed"
    system.trades_flow(seconds=300)
    system.recovered("data flows", begun)
    system.await_ready()
    system.recovered("ready", begun)
    system.compare(seconds=300)


def _victims(system: System) -> list[Object]:
    """Return every running pod of the system, in a deterministic order."""
    kube: Kube = system.kube
    found = [
        *kube.pods(NAMESPACE, "marketfeed.dev/feed"),
        *system.operators(),
        *kube.pods("data", "app in (kafka,postgres)"),
    ]
    return sorted(
        (pod for pod in found if e2e_chaos.container(pod) and pod["status"]["phase"] == "Running"),
        key=lambda pod: str(pod["metadata"]["name"]),
    )
