"""Fixtures of the charts' tests: helm and other programs, a rendering of the chart, an API server."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts_support import (
    CHART,
    KINDS,
    NEIGHBOURS,
    ControlPlane,
    Helm,
    Kubectl,
    Object,
    Render,
    charts_tools,
    control_plane,
)

from marketfeed_devtools.programs import Unavailable
from marketfeed_devtools.skipping import skip_or_fail


@pytest.fixture(scope="session")
def tools() -> charts_tools.Tools:
    try:
        return charts_tools.find_tools()
    except Unavailable as reason:
        skip_or_fail(reason)


@pytest.fixture(scope="session")
def helm(tools: charts_tools.Tools) -> Helm:
    """Return a function that runs helm and returns its result, whatever its exit code."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        words = [str(tools.helm), *map(str, arguments)]
        environment = {**os.environ, **variables}
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)

    return run


@pytest.fixture(scope="session")
def render(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Return a function that renders charts/marketfeed with a profile and values."""

    def objects(profile: str = "", *, kinds: tuple[str, ...] = KINDS, **values: Any) -> list[Object]:
        file = tmp_path_factory.mktemp("values") / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        chosen = ["--values", CHART / f"values-{profile}.yaml"] if profile else []
        known = [word for kind in kinds for word in ("--api-versions", kind)]
        done = helm(
            "template", "marketfeed", CHART, "--namespace", "feeds", *chosen, "--values", file, *known
        )
        assert done.returncode == 0, done.stderr
        # The C parser: the Python one takes seconds for the dashboards alone.
        return [body for body in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if body]

    return objects


@pytest.fixture(scope="session")
def neighbours() -> list[Path]:
    """Return the files of the third-party CRDs that the chart uses."""
    files = [*NEIGHBOURS.glob("strimzi/*.yaml"), *NEIGHBOURS.glob("prometheus-operator/*.yaml")]
    if not files:
        pytest.skip(f"the CRDs of Strimzi and the Prometheus operator are external data, not in {NEIGHBOURS}")
    return sorted(files)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with contextlib.ExitStack() as running:
        try:
            plane = running.enter_context(control_plane(tmp_path_factory.mktemp("apiserver")))
        except Unavailable as reason:
            skip_or_fail(reason)
        yield plane


@pytest.fixture(scope="session")
def kubectl(api_server: ControlPlane) -> Kubectl:
    """Return a function that runs kubectl as an administrator and returns its result, whatever its exit code."""
    program = api_server.programs / "kubectl" if api_server.programs else Path("kubectl")

    def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        words = [str(program), "--kubeconfig", str(api_server.kubeconfig), *map(str, arguments)]
        return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def platform(kubectl: Kubectl, neighbours: list[Path]) -> None:
    """Apply the CRDs of Strimzi, the Prometheus operator and CockroachDB, as the platform chart would install them."""
    crdb = yaml.safe_load((NEIGHBOURS / "cockroachdb/crdbcluster-v1alpha1.yaml").read_text())
    # The newer API has the same name and its schema was not available: here it accepts every object.
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    crdb["spec"]["versions"] = [{"name": "v1beta1", "served": True, "storage": True, "schema": schema}]
    crdb["metadata"] = {"name": crdb["metadata"]["name"]}
    for text in (*(file.read_text() for file in neighbours), json.dumps(crdb)):
        done = kubectl("apply", "--server-side", "-f", "-", stdin=text)
        assert done.returncode == 0, done.stderr
    established = kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    assert established.returncode == 0, established.stderr
