"""The compose files as rendered by `docker compose config`, for every profile; nothing is started.

CockroachDB and Grafana, whose images cannot be built here, are checked only in this module.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compose_stack import ROOT

from marketfeed_devtools.programs import Unavailable
from marketfeed_devtools.skipping import skip_or_fail

import docker_engine  # isort: skip - found through compose_stack

PROFILES = {
    "": {"postgres"},
    "simulator": {"postgres", "simulator"},
    "cockroachdb": {"cockroachdb", "cockroachdb-init"},
    "cockroachdb,simulator": {"cockroachdb", "cockroachdb-init", "simulator"},
    "cockroachdb-cluster": {"cockroachdb-1", "cockroachdb-2", "cockroachdb-3", "cockroachdb-init"},
    "cockroachdb-cluster,simulator": {
        "cockroachdb-1", "cockroachdb-2", "cockroachdb-3", "cockroachdb-init", "simulator",
    },
}  # fmt: skip
ALWAYS = {
    "consumer-book", "consumer-trades", "grafana", "ingestion-worker", "kafka", "migrate", "prometheus", "topics",
}  # fmt: skip
ONE_SHOTS = {"topics", "migrate", "cockroachdb-init"}
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def compose() -> Iterator[tuple[list[str], dict[str, str]]]:
    try:
        is_ours = docker_engine.start()
        command = docker_engine.compose()
    except Unavailable as reason:
        skip_or_fail(f"the compose files cannot be rendered: {reason}")
    yield command
    if is_ours:
        docker_engine.stop()


def run(
    compose: tuple[list[str], dict[str, str]], *files: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    command, variables = compose
    named = [word for file in files for word in ("--file", str(ROOT / file))]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    return subprocess.run(
        [*command, *named, "config", "--format", "json"],
        env={**clean, **variables, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def read(
    compose: tuple[list[str], dict[str, str]], *files: str, **environment: str
) -> dict[str, dict[str, Any]]:
    """Return service -> its configuration."""
    done = run(compose, *(files or ("compose.yaml",)), **environment)
    assert done.returncode == 0, done.stderr
    services: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.parametrize(("profiles", "own"), PROFILES.items(), ids=lambda value: str(value))
def test_profile_has_its_services(
    compose: tuple[list[str], dict[str, str]], profiles: str, own: set[str]
) -> None:
    assert set(read(compose, COMPOSE_PROFILES=profiles)) == ALWAYS | own


@pytest.mark.parametrize("profiles", PROFILES)
def test_services_have_a_health_check_and_limits(
    compose: tuple[list[str], dict[str, str]], profiles: str
) -> None:
    for name, service in read(compose, COMPOSE_PROFILES=profiles).items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory"} <= set(limits), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name not in ONE_SHOTS:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


@pytest.mark.parametrize("profiles", PROFILES)
def test_ports_are_published_on_loopback_only(
    compose: tuple[list[str], dict[str, str]], profiles: str
) -> None:
    services = read(compose, COMPOSE_PROFILES=profiles)
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    numbers = [port["published"] for port in published]
    assert len(numbers) == len(set(numbers))
    opened = read(compose, COMPOSE_PROFILES=profiles, BIND_ADDRESS="0.0.0.0")
    assert {port["host_ip"] for each in opened.values() for port in each.get("ports", [])} == {"0.0.0.0"}


def test_images_are_pinned(compose: tuple[list[str], dict[str, str]]) -> None:
    for profiles in PROFILES:
        for name, service in read(compose, COMPOSE_PROFILES=profiles).items():
            assert re.search(r":v?\d[\w.]*$", service["image"]), name


@pytest.mark.parametrize("profiles", PROFILES)
def test_profile_sets_the_database_of_every_consumer(
    compose: tuple[list[str], dict[str, str]], profiles: str
) -> None:
    services = read(compose, COMPOSE_PROFILES=profiles, POSTGRES_PASSWORD="secret-1")
    for name in ("migrate", "consumer-trades", "consumer-book"):
        url = services[name]["environment"]["DATABASE_URL"]
        hosts = set(re.findall(r"[@,]([\w-]+):\d+", url))
        assert hosts <= set(services), name
        assert ("postgres" in hosts) == ("secret-1" in url) == (not profiles.startswith("cockroachdb")), name
    awaited = services["migrate"]["depends_on"]
    assert {dependency for dependency in awaited if dependency in services} == (
        {"cockroachdb-init"} if profiles.startswith("cockroachdb") else {"postgres"}
    )


@pytest.mark.parametrize("profiles", PROFILES)
def test_profile_sets_the_simulator_as_venue_only_where_it_runs(
    compose: tuple[list[str], dict[str, str]], profiles: str
) -> None:
    services = read(compose, COMPOSE_PROFILES=profiles)
    environment = services["ingestion-worker"]["environment"]
    expected = ("ws://simulator:9443", "http://simulator:9443") if "simulator" in services else ("", "")
    assert (environment["BINANCE_WS_BASE"], environment["BINANCE_REST_BASE"]) == expected
    assert environment["BINANCE_SYMBOLS"] == "BTCUSDT,ETHUSDT,SOLUSDT,ADAUSDT,DOGEUSDT"
    if "simulator" in services:  # a subscription to an unknown symbol would never deliver data
        assert f"--symbols={environment['BINANCE_SYMBOLS']}" in services["simulator"]["command"]


def test_profile_that_does_not_exist_is_rejected(compose: tuple[list[str], dict[str, str]]) -> None:
    done = run(compose, "compose.yaml", COMPOSE_PROFILES="cockroach")
    assert done.returncode != 0
    assert "compose/profiles/cockroach.yaml" in done.stderr


def test_cockroachdb_health_check_follows_its_documentation(
    compose: tuple[list[str], dict[str, str]],
) -> None:
    single = read(compose, COMPOSE_PROFILES="cockroachdb")["cockroachdb"]
    assert single["command"][0] == "start-single-node"
    cluster = read(compose, COMPOSE_PROFILES="cockroachdb-cluster")
    nodes = [cluster[f"cockroachdb-{number}"] for number in (1, 2, 3)]
    for node in (single, *nodes):
        assert node["healthcheck"]["test"][-1] == "http://localhost:8080/health?ready=1"
    for node in nodes:
        assert "--join=cockroachdb-1,cockroachdb-2,cockroachdb-3" in node["command"]
    assert (
        len({node["hostname"] for node in nodes})
        == len({node["volumes"][0]["source"] for node in nodes})
        == 3
    )


def test_grafana_has_the_dashboards_and_prometheus(compose: tuple[list[str], dict[str, str]]) -> None:
    grafana = read(compose)["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_USER"] == "admin"
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "admin"
    assert grafana["healthcheck"]["test"][-1] == "http://127.0.0.1:3000/api/health"
    mounted = {volume["target"]: Path(volume["source"]) for volume in grafana["volumes"]}
    dashboards = list(mounted[grafana_dashboards(mounted)].glob("*.json"))
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in {
        f"/etc/grafana/dashboards/{file.name}" for file in dashboards
    }
    sources = (mounted["/etc/grafana/provisioning/datasources"] / "prometheus.yaml").read_text()
    assert "url: http://prometheus:9090" in sources


def grafana_dashboards(mounted: dict[str, Path]) -> str:
    """Return the folder that the provisioning names, which must be mounted."""
    provider = (mounted["/etc/grafana/provisioning/dashboards"] / "marketfeed.yaml").read_text()
    found = re.search(r"path: ([^}\s]+)", provider)
    assert found is not None
    return found[1]


def test_zookeeper_overlay_runs_everything_on_kafka_3(compose: tuple[list[str], dict[str, str]]) -> None:
    services = read(compose, "compose.yaml", "compose.zookeeper.yaml")
    assert set(services) == ALWAYS | {"postgres", "zookeeper"}
    assert {services[name]["image"] for name in ("kafka", "topics", "zookeeper")} == {"apache/kafka:3.9.2"}
    assert "zookeeper" in services["kafka"]["depends_on"]
    assert not [name for name in services["kafka"]["environment"] if "CONTROLLER" in name]
    kafka_4 = read(compose)["kafka"]["volumes"]
    assert {volume["source"] for volume in services["kafka"]["volumes"]}.isdisjoint(
        volume["source"] for volume in kafka_4
    )
