"""The stack as a user starts it, on the simulator profile: services are killed in turn, and every trade is found.

Needs root and Docker, which it installs on Debian where it is missing; elsewhere it is skipped with that reason, and
with CI=true that is a failure.
"""

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from compose_stack import SYMBOLS, Stack, eventually

from marketfeed_devtools.programs import Unavailable
from marketfeed_devtools.skipping import skip_or_fail

import docker_engine  # isort: skip - found through compose_stack

pytestmark = pytest.mark.timeout(2400)
TOPICS = {
    "market.trades.raw",
    "market.book_ticker.raw",
    "market.gaps",
    "market.progress",
    "market.rejected.raw",
}


@pytest.fixture(scope="module")
def engine() -> Iterator[None]:
    try:
        is_ours = docker_engine.start()
        docker_engine.compose()
    except Unavailable as reason:
        skip_or_fail(f"the compose stack cannot be tested: {reason}")
    yield
    if is_ours:
        docker_engine.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compose")


@pytest.fixture(scope="module")
def stack(engine: None, folder: Path) -> Iterator[Stack]:
    """Yield a stack on Kafka 4, with data flowing."""
    with Stack(folder) as started:
        yield started


@pytest.fixture(scope="module")
def zookeeper_stack(engine: None, folder: Path) -> Iterator[Stack]:
    """Yield a stack on Kafka 3.9 with ZooKeeper."""
    own = folder / "zookeeper"
    own.mkdir()
    with Stack(own, zookeeper=True) as started:
        yield started


@pytest.fixture(autouse=True)
def evidence(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the containers' logs of a failed test."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        for name in {"stack", "zookeeper_stack"} & set(request.fixturenames):
            request.getfixturevalue(name).collect()


def everything_sent_is_stored(stack: Stack) -> None:
    """Stop the market, wait until all of it is stored, and compare."""
    stack.get("SIMULATOR_PORT", "/control/faults", {"fault": "halt", "symbols": list(SYMBOLS)})
    sent = stack.sent()
    assert set(sent) == set(SYMBOLS)
    assert all(count > 0 for count, _, _ in sent.values())

    def all_stored() -> bool:
        stored = stack.stored()
        return all(stored.get(symbol, (0, 0, 0))[0] >= count for symbol, (count, _, _) in sent.items())

    try:
        eventually(all_stored, "every trade in the database")
    except AssertionError:
        assert stack.stored() == sent
        raise
    assert stack.stored() == sent
    twice = "SELECT count(*) FROM (SELECT 1 FROM trades GROUP BY venue, symbol, trade_id HAVING count(*) > 1) AS t"
    assert stack.sql(twice) == [(0,)]
    assert stack.sql("SELECT count(*) FROM dead_letters") == [(0,)]
    for symbol, state in stack.get("WORKER_PORT", "/status")["symbols"].items():
        assert state["missing"] == 0, symbol


def resume_market(stack: Stack) -> None:
    """Resume the market."""
    stack.get("SIMULATOR_PORT", "/control/faults", {"fault": "resume", "symbols": list(SYMBOLS)})


def test_up_ends_when_data_flows(stack: Stack) -> None:
    """The first query after `up --wait` returns rows of both topics, without further waiting."""
    [[trades, quotes]] = stack.sql(
        "SELECT (SELECT count(*) FROM trades), (SELECT count(*) FROM book_tickers)"
    )
    assert trades > 0
    assert quotes > 0
    assert stack.get("WORKER_PORT", "/status")["ready"]
    for port in ("CONSUMER_TRADES_PORT", "CONSUMER_BOOK_PORT"):
        assert stack.get(port, "/status")["ready"]


def test_containers_run_with_minimal_rights(stack: Stack) -> None:
    for service in (
        "ingestion-worker",
        "consumer-trades",
        "consumer-book",
        "simulator",
        "postgres",
        "prometheus",
    ):
        host = stack.container(service)["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0, service
        assert stack.execute(service, "id", "-u").strip() != "0", service
    for bindings in (
        stack.container(service)["HostConfig"]["PortBindings"] for service in ("kafka", "postgres")
    ):
        assert {binding["HostIp"] for port in bindings.values() for binding in port} == {"127.0.0.1"}


def test_kafka_console_consumer_prints_symbol_and_message(stack: Stack) -> None:
    text = stack.execute(
        "kafka", "/opt/kafka/bin/kafka-console-consumer.sh", "--bootstrap-server", "kafka:9092", "--topic",
        "market.trades.raw", "--from-beginning", "--max-messages", "20", "--property", "print.key=true",
    )  # fmt: skip
    # The tool's own messages are between them, without a tab.
    lines = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
    assert len(lines) == 20
    for key, value in lines:
        assert json.loads(value)["symbol"] == key
        assert key in SYMBOLS


def test_kafka_tools_list_topics_and_groups(stack: Stack) -> None:
    listed = stack.execute(
        "kafka", "/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "kafka:9092", "--list"
    )
    assert set(listed.split()) - {"__consumer_offsets"} == TOPICS
    groups = stack.execute(
        "kafka", "/opt/kafka/bin/kafka-consumer-groups.sh", "--bootstrap-server", "kafka:9092", "--list"
    )
    # A console consumer creates a group of its own.
    own = {group for group in groups.split() if not group.startswith("console-consumer-")}
    assert own == {"marketfeed-trades", "marketfeed-book"}


def test_psql_shows_the_stored_rows(stack: Stack) -> None:
    query = "SELECT symbol, count(*), max(trade_id) FROM trades GROUP BY symbol ORDER BY symbol"
    rows = stack.execute("postgres", "psql", "-U", "marketfeed", "-At", "-c", query).splitlines()
    assert [row.split("|")[0] for row in rows] == sorted(SYMBOLS)


def test_prometheus_has_every_service_and_the_rules(stack: Stack) -> None:
    def asked(query: str) -> list[dict[str, dict[str, str]]]:
        answer = stack.get("PROMETHEUS_PORT", f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        found: list[dict[str, dict[str, str]]] = answer["data"]["result"]
        return found

    expected = {("marketfeed-workers", 1), ("marketfeed-consumers", 2), ("prometheus", 1)}

    def all_up() -> bool:
        counts = asked("count by (job) (up == 1)")
        return {(each["metric"]["job"], int(each["value"][1])) for each in counts} == expected  # type: ignore[index]

    eventually(all_up, "every target up")
    eventually(
        lambda: asked("sum(rate(kafka_publish_success_total[1m])) > 0"), "published messages in Prometheus"
    )
    groups = stack.get("PROMETHEUS_PORT", "/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert groups


@pytest.mark.parametrize("service", ["kafka", "postgres", "ingestion-worker", "consumer-trades"])
def test_kill_of_a_service_restarts_it_and_nothing_is_lost(stack: Stack, service: str) -> None:
    before = stack.trades_stored()
    stack.crash(service)
    eventually(lambda: stack.is_healthy(service), f"{service} healthy again")
    eventually(lambda: stack.trades_stored() > before + 200, "trades to continue")
    everything_sent_is_stored(stack)
    resume_market(stack)


def test_kill_of_the_broker_by_compose_lasts_until_up(stack: Stack) -> None:
    """A service ended by `docker compose kill` stays down until the next `up`."""
    stack.compose("kill", "kafka")
    sent = sum(count for count, _, _ in stack.sent().values())
    eventually(
        lambda: sum(count for count, _, _ in stack.sent().values()) > sent + 300, "the market to continue"
    )
    stack.up()
    everything_sent_is_stored(stack)
    resume_market(stack)


def test_down_keeps_the_data_and_down_with_volumes_removes_it(stack: Stack) -> None:
    stack.compose("down")
    assert (
        stack.docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={stack.name}")
        == ""
    )
    volumes = ["volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={stack.name}"]
    assert {name.removeprefix(f"{stack.name}_") for name in stack.docker(*volumes).split()} == {
        "kafka", "postgres", "prometheus",
    }  # fmt: skip
    stack.compose("up", "--detach", "--wait", "postgres")
    assert stack.trades_stored() > 1000
    stack.compose("down", "--volumes")
    assert stack.docker(*volumes) == ""


def test_zookeeper_overlay_runs_the_same_pipeline_on_kafka_3(zookeeper_stack: Stack) -> None:
    version = zookeeper_stack.execute(
        "kafka",
        "/opt/kafka/bin/kafka-broker-api-versions.sh",
        "--bootstrap-server",
        "kafka:9092",
        "--version",
    )
    assert version.startswith("3.9.")
    zookeeper_stack.crash("kafka")
    eventually(lambda: zookeeper_stack.is_healthy("kafka"), "the broker healthy again")
    before = zookeeper_stack.trades_stored()
    eventually(lambda: zookeeper_stack.trades_stored() > before + 200, "trades to continue")
    zookeeper_stack.crash("zookeeper")
    eventually(lambda: zookeeper_stack.is_healthy("zookeeper"), "ZooKeeper healthy again")
    everything_sent_is_stored(zookeeper_stack)
