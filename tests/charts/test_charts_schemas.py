"""Every profile, manifest and example against the schemas of Kubernetes 1.30 to 1.34 and of the CRDs."""

import subprocess
from pathlib import Path

import charts_schemas
import pytest
import yaml
from charts_support import CHART, PROFILES, ROOT, Render
from charts_tools import Tools

pytest_plugins = ["charts_fixtures"]

CRD = ROOT / "manifests/crd.yaml"
NOT_HERE = {"CrdbCluster", "Certificate"}
"""Kinds whose CRDs were not available; of CockroachDB only its older API is. They are compared with their published
examples instead, below."""


def _validated(
    tools: Tools, schemas: Path, version: str, files: list[Path]
) -> subprocess.CompletedProcess[str]:
    location = f"{schemas}/{charts_schemas.LOCATION}"
    command: list[str | Path] = [
        tools.kubeconform,
        "-strict",
        "-summary",
        "-n",
        "1",
        "-kubernetes-version",
        version,
    ]
    skipped = ["-skip", ",".join(sorted(NOT_HERE))]
    return subprocess.run(
        [*command, *skipped, "-schema-location", location, *files],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def rendered(render: Render, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return files of the profiles' objects, and the committed manifests and examples."""
    folder = tmp_path_factory.mktemp("rendered")
    for name, objects in {
        **{profile: render(profile) for profile in PROFILES},
        "default": render(),
        "namespaced": render(
            rbac={"scope": "namespaced"}, operator={"watchNamespaces": ["a"], "watchSecrets": ["market"]}
        ),
        "certificates": render("production", kafka={"authentication": "tls"}, feed={"enabled": True}),
    }.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(objects))
    return [*sorted(folder.iterdir()), *sorted((ROOT / "manifests").rglob("*.yaml"))]


@pytest.fixture(scope="module")
def schemas(rendered: list[Path], neighbours: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bodies = (body for file in rendered for body in yaml.safe_load_all(file.read_text()) if body)
    folder = tmp_path_factory.mktemp("schemas")
    charts_schemas.write(folder, {(body["apiVersion"], body["kind"]) for body in bodies}, [CRD, *neighbours])
    return folder


@pytest.mark.parametrize("version", charts_schemas.KUBERNETES)
def test_schema_accepts_every_object(tools: Tools, schemas: Path, rendered: list[Path], version: str) -> None:
    done = _validated(tools, schemas, version, rendered)
    assert done.returncode == 0, done.stdout
    assert "Invalid: 0, Errors: 0" in done.stdout


@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [
        ("Deployment", "replicas", "two"),
        ("NetworkPolicy", "podSelectors", {}),
        ("PodDisruptionBudget", "unhealthyPodEvictionPolicy", 1),
        ("Kafka", "zookeeper", {}),
        ("KafkaNodePool", "roles", ["zookeeper"]),
        ("KafkaTopic", "partitions", 0),
        ("KafkaUser", "authorization", {"type": "simple", "acls": [{"operation": "Read"}]}),
        ("PodMonitor", "podMetricsEndpoints", [{"port": 1}]),
        ("PrometheusRule", "groups", [{"rules": []}]),
        ("MarketFeed", "shardSize", 0),
    ],
)  # fmt: skip
def test_schema_rejects_a_wrong_field(
    tools: Tools, schemas: Path, render: Render, tmp_path: Path, kind: str, field: str, wrong: object
) -> None:
    body = next(body for body in render("production") if body["kind"] == kind)
    body["spec"][field] = wrong
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(body))
    done = _validated(tools, schemas, charts_schemas.KUBERNETES[-1], [file])
    assert done.returncode != 0
    assert f"{kind} {body['metadata']['name']} is invalid" in done.stdout


def test_schema_of_the_database_follows_its_published_examples(render: Render) -> None:
    (body,) = [body for body in render("production") if body["kind"] == "CrdbCluster"]
    assert body["apiVersion"] == "crdb.cockroachlabs.com/v1beta1"
    assert set(body["spec"]) <= {
        "mode", "tlsEnabled", "regions", "template", "clusterSettings", "postInitSQL", "features",
        "disruptionBudget", "rollingRestartDelay", "isClusterDisrupted",
    }  # fmt: skip
    assert set(body["spec"]["regions"][0]) <= {
        "code", "cloudProvider", "namespace", "nodes", "domain", "encryptionAtRest",
    }  # fmt: skip
    assert set(body["spec"]["template"]["spec"]) <= {
        "image", "certificates", "dataStore", "grpcPort", "sqlPort", "httpPort", "localityMappings", "podTemplate",
    }  # fmt: skip


def test_crd_of_the_chart_is_the_generated_one() -> None:
    assert (CHART / "files/crd.yaml").read_text() == CRD.read_text(), (
        "files/crd.yaml is outdated: make charts"
    )
