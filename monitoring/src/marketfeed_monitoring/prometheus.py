"""A local Prometheus server on a free port and its HTTP API, for query tests and pictures.

The executables `prometheus` and `promtool` come from PATH, otherwise from Debian's package, which is unpacked once into
the cache (``marketfeed_devtools.cache``). This needs apt but no privileges: nothing is installed and no service
started."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from marketfeed_devtools import cache
from marketfeed_devtools.ports import free_port
from marketfeed_devtools.programs import CommandFailed, Unavailable, run, say

PACKAGE: Final = "prometheus"
PROMTOOL: Final = "promtool"
"""A separate package since Debian 13."""
START_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the executables."""

    prometheus: Path
    promtool: Path


@dataclass(frozen=True, slots=True)
class Target:
    """A scrape target.

    Attributes:
        address: host:port.
        labels: Labels that a PodMonitor would add; empty for a static scrape job.
    """

    job: str
    address: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """A series of a query result: labels, and pairs of Unix time in seconds and value."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


def programs() -> Programs:
    """Return the executables; the first call unpacks Debian's package into the cache if they are not in PATH.

    Raises:
        Unavailable: They are not in PATH and apt is not available.
    """
    found = [shutil.which(name) for name in ("prometheus", "promtool")]
    if found[0] and found[1]:
        return Programs(Path(found[0]), Path(found[1]))
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("prometheus and promtool are not in PATH and apt is not available; install them")
    folder = cache.once(PACKAGE, _unpack)
    return Programs(folder / "usr/bin/prometheus", folder / "usr/bin/promtool")


def _unpack(folder: Path) -> None:
    say(f"fetching Debian's package {PACKAGE}, once")
    _extract(PACKAGE, folder)
    if not (folder / "usr/bin/promtool").exists():
        _extract(PROMTOOL, folder)


def _extract(package: str, folder: Path) -> None:
    try:
        _download(package, folder)
    except CommandFailed as reason:
        raise Unavailable(
            f"apt cannot download the package {package}; install it, or run apt-get update first: {reason}"
        ) from reason
    for file in folder.glob("*.deb"):
        run(["dpkg-deb", "--extract", file, folder])
        file.unlink()


def _download(package: str, folder: Path) -> None:
    command = ["apt-get", "download", package]
    try:
        run(command, cwd=folder)
    except CommandFailed:
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update"])  # the package lists may be missing
        run(command, cwd=folder)


class Prometheus:
    """A server that scrapes `targets` and evaluates `rules`; a context manager.

    Attributes:
        url: Base URL of the HTTP API.
    """

    def __init__(
        self,
        found: Programs,
        folder: Path,
        targets: Iterable[Target],
        rules: Path,
        *,
        scrape_seconds: float = 1.0,
    ) -> None:
        self._program = found.prometheus
        self._folder = folder
        self._config = folder / "prometheus.yml"
        interval = f"{scrape_seconds * 1000:.0f}ms"
        self._config.write_text(
            yaml.safe_dump(
                {
                    "global": {
                        "scrape_interval": interval,
                        "scrape_timeout": interval,
                        "evaluation_interval": interval,
                    },
                    "rule_files": [str(rules)],
                    "scrape_configs": _jobs(targets),
                }
            )
        )
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            str(self._program), f"--config.file={self._config}", f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
        ]  # fmt: skip
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603
        try:
            self._await_ready(self._process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end()

    def instant(self, query: str, at: float | None = None) -> list[Series]:
        """Evaluate an instant query (by default now); a scalar is returned as a series without labels.

        Raises:
            ValueError: Prometheus rejected the query; the message contains its error.
        """
        data = self._request("query", {"query": query} | ({} if at is None else {"time": f"{at}"}))
        if data["resultType"] == "scalar":
            return [Series({}, (_point(data["result"]),))]
        return [Series(each["metric"], (_point(each["value"]),)) for each in data["result"]]

    def over_time(self, query: str, begin: float, end: float, step_seconds: float) -> list[Series]:
        """Evaluate a range query.

        Args:
            query: PromQL.
            begin: Start of the range in seconds since the epoch.
            end: End of the range in seconds since the epoch.
            step_seconds: Resolution.

        Raises:
            ValueError: Prometheus rejected the query; the message contains its error.
        """
        parameters = {"query": query, "start": f"{begin}", "end": f"{end}", "step": f"{step_seconds}"}
        return [
            Series(each["metric"], tuple(map(_point, each["values"])))
            for each in self._request("query_range", parameters)["result"]
        ]

    def _request(self, endpoint: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        body = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{endpoint}", body, timeout=30) as response:  # noqa: S310 - local
                return dict(json.load(response)["data"])
        except urllib.error.HTTPError as error:
            raise ValueError(f"{json.load(error)['error']}: {parameters['query']}") from error

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):  # noqa: S310 - local
                return
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "prometheus.log").read_text(errors="replace")
                raise Unavailable(f"Prometheus did not start:\n{log[-2000:]}")
            time.sleep(POLL_SECONDS)

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _jobs(targets: Iterable[Target]) -> list[dict[str, object]]:
    by_job: dict[str, list[Target]] = {}
    for target in targets:
        by_job.setdefault(target.job, []).append(target)
    return [
        {
            "job_name": job,
            # As in the PodMonitors of the operator and of the chart.
            "honor_labels": any(target.labels for target in same),
            "static_configs": [
                {"targets": [target.address], "labels": dict(target.labels)} for target in same
            ],
        }
        for job, same in by_job.items()
    ]


def _point(pair: tuple[float, str]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
