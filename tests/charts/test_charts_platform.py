"""charts/marketfeed-platform, with stand-ins where the real charts' repositories are not asked.

A stand-in has the name and version of the chart that is pinned, and renders the values it was given: so that what
reaches the real one is seen. Whether the real ones still take these values only an installation can tell.
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
    """A copy of the chart whose dependencies are there."""
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
    """The values that each dependency gets, by its name."""

    def render(*arguments: str) -> dict[str, Object]:
        done = helm("template", "platform", chart, *arguments)
        assert done.returncode == 0, done.stderr
        bodies = [body for body in yaml.safe_load_all(done.stdout) if body]
        return {body["metadata"]["name"]: yaml.safe_load(body["data"]["given"]) for body in bodies}

    return render


@pytest.mark.parametrize("values", ["values.yaml", "values-local.yaml"])
def test_the_chart_passes_helms_own_strict_check(chart: Path, helm: Helm, values: str) -> None:
    done = helm("lint", "--strict", chart, "--values", chart / values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_dependency_is_pinned_to_one_version() -> None:
    dependencies = yaml.safe_load((PLATFORM / "Chart.yaml").read_text())["dependencies"]
    assert {one["name"]: one["version"] for one in dependencies} == PINNED
    assert all(one["repository"].startswith(("oci://", "https://")) for one in dependencies)


def test_all_three_are_installed_by_default(given: Given) -> None:
    assert set(given()) == set(PINNED)


@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("strimzi", "strimzi-kafka-operator"),
        ("cockroachdb", "cockroachdb-operator-chart"),
        ("monitoring", "kube-prometheus-stack"),
    ],
)
def test_each_can_be_switched_off_by_itself(given: Given, switch: str, name: str) -> None:
    assert set(given("--set", f"{switch}.enabled=false")) == set(PINNED) - {name}


def test_strimzi_serves_every_namespace(given: Given) -> None:
    assert given()["strimzi-kafka-operator"]["watchAnyNamespace"] is True


def test_prometheus_takes_every_monitor_and_rule(given: Given) -> None:
    spec = given()["kube-prometheus-stack"]["prometheus"]["prometheusSpec"]
    kinds = ("rule", "serviceMonitor", "podMonitor", "probe", "scrapeConfig")
    assert {f"{kind}SelectorNilUsesHelmValues": False for kind in kinds}.items() <= spec.items()


def test_grafana_takes_the_dashboards_of_the_product_chart(given: Given) -> None:
    """Label, value and namespaces of the sidecar are those that charts/marketfeed puts on its dashboards."""
    product = yaml.safe_load((ROOT / "charts/marketfeed/values.yaml").read_text())["dashboards"]
    sidecar = given()["kube-prometheus-stack"]["grafana"]["sidecar"]["dashboards"]
    assert (sidecar["label"], sidecar["labelValue"]) == (product["label"], product["labelValue"])
    assert sidecar["searchNamespace"] == "ALL"


def test_the_database_is_in_the_region_of_its_operator(given: Given) -> None:
    product = yaml.safe_load((ROOT / "charts/marketfeed/values.yaml").read_text())["cockroachdb"]
    assert given()["cockroachdb-operator-chart"]["cloudRegion"] == product["region"]


def test_one_node_gets_one_pod_of_each(given: Given) -> None:
    local = given("--values", str(PLATFORM / "values-local.yaml"))
    assert local["cockroachdb-operator-chart"]["numReplicas"] == 1
    assert local["kube-prometheus-stack"]["alertmanager"]["enabled"] is False


def test_a_key_that_is_not_known_is_refused(chart: Path, helm: Helm) -> None:
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
def test_values_that_contradict_each_other_are_refused(
    chart: Path, helm: Helm, values: str, sentence: str
) -> None:
    done = helm("template", "platform", chart, "--set", values)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_what_to_do_next_is_said(chart: Path, helm: Helm) -> None:
    done = helm("install", "platform", chart, "--dry-run=client", "--namespace", "platform")
    assert done.returncode == 0, done.stderr
    assert "kubectl -n platform port-forward service/platform-grafana 3000:80" in done.stdout
    assert "topology.kubernetes.io/region=local" in done.stdout
