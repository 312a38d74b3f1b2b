"""Evidence of a failed journey: logs, events, MarketFeeds, and the services' statuses."""

import contextlib
import json
from pathlib import Path
from typing import Any, Final

from e2e_kube import Failed, Kube

_OBJECTS: Final = "pods,deployments,statefulsets,jobs,cronjobs,configmaps,pvc,nodes"
_STATUS_PORT: Final = 8000


def collect(kube: Kube, folder: Path) -> Path:
    """Write all evidence into `folder`, which is created; skip what is unavailable. Return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(kube, folder / "events.txt", "get", "events", "-A", "--sort-by=.lastTimestamp")
    _write(kube, folder / "objects.txt", "get", _OBJECTS, "-A", "-o", "wide")
    _write(kube, folder / "marketfeeds.yaml", "get", "marketfeeds", "-A", "-o", "yaml")
    _write(kube, folder / "nodes.txt", "describe", "nodes")
    with contextlib.suppress(Failed):
        for pod in json.loads(kube.run("get", "pods", "-A", "-o", "json"))["items"]:
            _pod(kube, folder, pod)
    return folder


def _pod(kube: Kube, folder: Path, pod: dict[str, Any]) -> None:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    own = folder / namespace
    own.mkdir(exist_ok=True)
    log = ["--namespace", namespace, "logs", name, "--all-containers", "--timestamps", "--tail=5000"]
    _write(kube, own / f"{name}.log", *log)
    if any(each["restartCount"] for each in pod["status"].get("containerStatuses", [])):
        _write(kube, own / f"{name}.previous.log", *log, "--previous")
    if "marketfeed.dev/feed" in pod["metadata"].get("labels", {}):
        with contextlib.suppress(Failed):
            status = kube.text(namespace, f"pods/{name}:{_STATUS_PORT}", "/status")
            (own / f"{name}.status.json").write_text(status)


def _write(kube: Kube, file: Path, *arguments: str) -> None:
    try:
        file.write_text(kube.run(*arguments))
    except Failed as error:
        file.write_text(f"unavailable: {error}\n")
