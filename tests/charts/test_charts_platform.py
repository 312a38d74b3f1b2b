"""charts/marketfeed-platform, with stand-ins for the charts of its dependencies.

A stand-in has the name and version of the pinned chart and renders the values passed to it. Only an installation shows
whether the real charts still accept these values.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from charts_support import ROOT, Helm, Object

pytest_plugins = ["charts_fixtures"]

PLATFORM = ROOT / "charts/marketfeed-platform"
PINNED = {
    "strimzi-kafka-operator": "1.2.0",
    "cockroachdb-operator-chart": "1.1.0",
    "kube-prometheus-stack": "88.5.3",
}

Given = Callable[..., dict[str, Object]]


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the chart with its dependencies."""
    copy = tmp_path_factory.mktemp("platform") / PLATFORM.name
    shutil.copytree(PLATFORM, copy, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    for dependency in yaml.safe_load((PLATFORM / "Chart.yaml").read_text())["dependencies"]:
        folder = copy / "charts" / dependency["name"]
        (folder / "templates").mkdir(parents=True)
        about = {"apiVersion": "v2", "name": dependency["name"], "version": dependency["version"]}
        (folder / "Chart.yaml").write_text(yaml.safe_dump(about))
        (folder / "templates" / "given.yaml").write_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Chart.Name }}\ndata:\n"
            "  given: {{ .Values | toJson | quote }}\n"
        )
    return copy


@pytest.fixture(scope="module")
def given(chart: Path, helm: Helm) -> Given:
    """Return the values passed to each dependency, by its name."""

    def render(*arguments: str) -> dict[str, Object]:
        done = helm("template", "platform", chart, *arguments)
        assert done.returncode == 0, done.stderr
        bodies = [body for body in yaml.safe_load_all(done.stdout) if body]
        return {body["metadata"]["name"]: yaml.safe_load(body["data"]["given"]) for body in bodies}

    return render


@pytest.mark.parametrize("values", ["values.yaml", "values-local.yaml"])
def test_platform_chart_passes_helm_lint(chart: Path, helm: Helm, values: str) -> None:
    done = helm("lint", "--strict", chart, "--values", chart / values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_platform_dependencies_are_pinned_to_one_version() -> None:
    dependencies = yaml.safe_load((PLATFORM / "Chart.yaml").read_text())["dependencies"]
    assert {one["name"]: one["version"] for one in dependencies} == PINNED
    assert all(one["repository"].startswith(("oci://", "https://")) for one in dependencies)


def test_platform_installs_all_three_by_default(given: Given) -> None:
    assert set(given()) == set(PINNED)


@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("strimzi", "strimzi-kafka-operator"),
        ("cockroachdb", "cockroachdb-operator-chart"),
        ("monitoring", "kube-prometheus-stack"),
    ],
)
def test_platform_dependencies_can_be_disabled_one_by_one(given: Given, switch: str, name: str) -> None:
    assert set(given("--set", f"{switch}.enabled=false")) == set(PINNED) - {name}


def test_platform_strimzi_watches_every_namespace(given: Given) -> None:
    assert given()["strimzi-kafka-operator"]["watchAnyNamespace"] is True


def test_platform_prometheus_selects_every_monitor_and_rule(given: Given) -> None:
    spec = given()["kube-prometheus-stack"]["prometheus"]["prometheusSpec"]
    kinds = ("rule", "serviceMonitor", "podMonitor", "probe", "scrapeConfig")
    assert {f"{kind}SelectorNilUsesHelmValues": False for kind in kinds}.items() <= spec.items()


def test_platform_grafana_loads_the_dashboards_of_the_product_chart(given: Given) -> None:
    """Label, value and namespaces of the sidecar match the dashboards of charts/marketfeed."""
    product = yaml.safe_load((ROOT / "charts/marketfeed/values.yaml").read_text())["dashboards"]
    sidecar = given()["kube-prometheus-stack"]["grafana"]["sidecar"]["dashboards"]
    assert (sidecar["label"], sidecar["labelValue"]) == (product["label"], product["labelValue"])
    assert sidecar["searchNamespace"] == "ALL"


def test_platform_database_is_in_the_region_of_its_operator(given: Given) -> None:
    product = yaml.safe_load((ROOT / "charts/marketfeed/values.yaml").read_text())["cockroachdb"]
    assert given()["cockroachdb-operator-chart"]["cloudRegion"] == product["region"]


def test_platform_on_one_node_has_one_pod_of_each(given: Given) -> None:
    local = given("--values", str(PLATFORM / "values-local.yaml"))
    assert local["cockroachdb-operator-chart"]["numReplicas"] == 1
    assert local["kube-prometheus-stack"]["alertmanager"]["enabled"] is False


def test_platform_rejects_an_unknown_key(chart: Path, helm: Helm) -> None:
    done = helm("template", "platform", chart, "--set", "strimzi.enable=false")
    assert done.returncode != 0
    assert "additional properties 'enable' not allowed" in done.stderr


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ("strimzi.enabled=false,cockroachdb.enabled=false,monitoring.enabled=false", "there is nothing to install"),
        ("cockroachdb-operator-chart.cloudRegion=", "cloudRegion is empty"),
    ],
)  # fmt: skip
def test_platform_rejects_contradictory_values(chart: Path, helm: Helm, values: str, sentence: str) -> None:
    done = helm("template", "platform", chart, "--set", values)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_platform_notes_name_the_next_steps(chart: Path, helm: Helm) -> None:
    done = helm("install", "platform", chart, "--dry-run=client", "--namespace", "platform")
    assert done.returncode == 0, done.stderr
    assert "kubectl -n platform port-forward service/platform-grafana 3000:80" in done.stdout
    assert "topology.kubernetes.io/region=local" in done.stdout
