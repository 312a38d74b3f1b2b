"""The cluster for a run of journeys, evidence when one fails, the report at the end.

Each journey's module names this one in ``pytest_plugins``. In the environment, E2E_KUBECONFIG=FILE is an existing
cluster; E2E_KEEP=1 keeps the test's own and prints how to inspect it; E2E_FOLDER=DIR is the folder of report
and evidence; E2E_DOCUMENT=FILE is the document whose marks enclose the report's table.
"""

import datetime
import os
import shlex
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import e2e_evidence
import e2e_platform
import kind_programs
import pytest
from e2e_kube import Failed, run
from e2e_platform import Platform
from e2e_report import Journey, Report, put, table
from e2e_system import FEED, NAMESPACE, System

from marketfeed_devtools import cache
from marketfeed_devtools.skipping import skip_or_fail

_COMMAND = os.environ.get("E2E_COMMAND") or shlex.join(["pytest", *sys.argv[1:]])
_journeys: list[Journey] = []


def _folder() -> Path:
    return Path(os.environ.get("E2E_FOLDER") or cache.folder() / "e2e")


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """Yield everything but a MarketFeed; removed after the run unless E2E_KEEP is set."""
    began = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    commit = _commit()  # the images' commit: later ones may follow while the journeys run
    try:
        found = e2e_platform.start()
    except e2e_platform.Skipped as reason:
        skip_or_fail(f"no cluster is available here: {reason}")
    yield found
    report = Report(_COMMAND, began, _versions(found, commit), _rounded(found.timings_seconds), _journeys)
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / "report.json")
    if document := os.environ.get("E2E_DOCUMENT"):
        file = Path(document)
        file.write_text(put(file.read_text(), table(report)))
    text = f"\n{table(report)}\n\nreport: {folder / 'report.json'}"
    for note in found.notes:
        text += f"\nskipped: {note}"
    if not found.kube.on_kind:
        pass
    elif os.environ.get("E2E_KEEP"):
        text += (
            f"\nthe cluster is kept (E2E_KEEP). To inspect it:\n  export KUBECONFIG={found.kube.kubeconfig}\n"
            f"  {found.kube.kubectl} -n {NAMESPACE} get marketfeeds,pods\nTo end it:\n"
            "  make e2e-down"
        )
    else:
        e2e_platform.stop(found)
    _say(request, text)


def _say(request: pytest.FixtureRequest, text: str) -> None:
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(text, flush=True)


@pytest.fixture(scope="session")
def running(platform: Platform) -> System:
    """Yield the feed of most journeys, ready: every symbol of the venue, 50 per shard."""
    system = System(platform)
    if platform.kube.find(NAMESPACE, "marketfeed", FEED) is None:
        system.apply_feed(system.spec(system.symbols()))
    system.await_ready()
    return system


@pytest.fixture
def system(running: System, request: pytest.FixtureRequest) -> Iterator[System]:
    """Yield the system for one journey, which must leave it unchanged: ready, without a fault."""
    running.journey = Journey(_title(request))
    _journeys.append(running.journey)
    begun = time.monotonic()
    yield running
    running.clear_faults()
    running.journey.seconds = round(time.monotonic() - begun, 1)


def _title(request: pytest.FixtureRequest) -> str:
    words = request.node.name.removeprefix("test_").replace("_", " ")
    number = request.module.__name__.removeprefix("test_e2e_").split("_")[0]
    return f"{number}: {words}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record the outcome; collect evidence of a failure and print its folder."""
    report = yield
    if not _journeys or (report.when != "call" and report.passed):
        return report
    if report.when == "call" or report.failed:
        _journeys[-1].outcome = report.outcome if not report.skipped else f"skipped: {call.excinfo}"
    if report.failed and (platform := getattr(item, "funcargs", {}).get("platform")) is None:
        system = getattr(item, "funcargs", {}).get("system")
        platform = system.platform if system else None
    if report.failed and platform is not None:
        moment = datetime.datetime.now(datetime.UTC).strftime("%H%M%S")
        where = e2e_evidence.collect(platform.kube, _folder() / f"{item.name}-{moment}")
        report.sections.append(("evidence", f"logs, events, MarketFeeds and statuses are in {where}"))
    return report


def _rounded(timings: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds, 1) for name, seconds in timings.items()}


def _commit() -> str:
    try:
        return run(["git", "-C", str(e2e_platform.ROOT), "rev-parse", "--short", "HEAD"]).strip()
    except (Failed, OSError):
        return "unknown"


def _versions(platform: Platform, commit: str) -> dict[str, str]:
    found = {"marketfeed": platform.images["worker"].rpartition(":")[2], "commit": commit}
    try:
        node = platform.kube.get("default", "nodes")["items"][0]["status"]["nodeInfo"]
        found |= {"Kubernetes": node["kubeletVersion"], "container runtime": node["containerRuntimeVersion"]}
    except Failed as error:
        platform.notes.append(f"versions: {error}")
    found["Kafka"] = platform.images["kafka"].rpartition(":")[2]
    found["PostgreSQL"] = platform.images["postgres"].rpartition(":")[2]
    found["Prometheus"] = kind_programs.PROMETHEUS_VERSION
    found["Prometheus operator"] = kind_programs.PROMETHEUS_OPERATOR_VERSION
    return found | {"kind": kind_programs.KIND_VERSION, "cores": str(os.cpu_count())}
