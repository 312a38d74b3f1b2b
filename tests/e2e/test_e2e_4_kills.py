"""Journey 4, first part: SIGKILL of one component at a time."""

import time
from collections.abc import Callable

import e2e_chaos
import pytest
from e2e_kube import until
from e2e_platform import RELEASE
from e2e_system import Object, System

pytest_plugins = ["e2e_fixtures"]


def _worker(system: System) -> Object:
    return system.workers()[0]


def _trades_consumer(system: System) -> Object:
    return next(pod for pod in system.consumers() if "consumer-trades" in pod["metadata"]["name"])


def _book_consumer(system: System) -> Object:
    return next(pod for pod in system.consumers() if "consumer-book" in pod["metadata"]["name"])


def _kafka(system: System) -> Object:
    return system.kube.get("data", "pod", "kafka-0")


def _postgres(system: System) -> Object:
    return system.kube.get("data", "pod", "postgres-0")


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(_worker, id="worker"),
        pytest.param(_trades_consumer, id="trades consumer"),
        pytest.param(_book_consumer, id="book consumer"),
        pytest.param(_kafka, id="Kafka"),
        pytest.param(_postgres, id="PostgreSQL"),
    ],
)
def test_kill(system: System, victim: Callable[[System], Object]) -> None:
    pod = victim(system)
    begun = time.monotonic()
    e2e_chaos.kill(system.kube, pod)
    system.trades_flow(seconds=240)
    system.recovered("data flows", begun)
    system.await_ready()
    system.recovered("ready", begun)
    system.compare()


def test_kill_operator_leader(system: System) -> None:
    leader = e2e_chaos.leader(system.kube, RELEASE)
    pod = next(each for each in system.operators() if each["metadata"]["name"] == leader)
    begun = time.monotonic()
    e2e_chaos.kill(system.kube, pod)
    # A change meanwhile is applied by the next leader, or by the same one after its restart.
    system.patch_feed({"template": {"labels": {"e2e.marketfeed.dev/killed": str(int(time.time()))}}})
    until(
        "a leader reconciles",
        lambda: (feed := system.feed())["status"].get("observedGeneration") == feed["metadata"]["generation"],
        seconds=120,
    )
    system.recovered("acts", begun)
    system.await_ready()
    system.recovered("ready", begun)
    system.compare()
