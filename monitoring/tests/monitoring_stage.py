"""Test environment: running workers, consumers and operator with faults, scraped by Prometheus.

It consists of a simulated venue with faults, two workers (shards), a consumer per topic, the embedded broker and
PostgreSQL, and, if an API server is available, the operator with two feeds. Two Prometheus servers scrape the targets:
one with the labels of PodMonitors on Kubernetes, one with static scrape jobs.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import psycopg
from confluent_kafka import Producer

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests/integration"), str(ROOT / "operator/tests")]

import operator_control_plane  # noqa: E402 - found through the line above
import operator_kubelet  # noqa: E402
import operator_support  # noqa: E402
from integration_pipeline import QUOTES, TRADES, Pipeline  # noqa: E402

from marketfeed_cli import services  # noqa: E402
from marketfeed_cli.embedded import postgres  # noqa: E402
from marketfeed_cli.process import Parts  # noqa: E402
from marketfeed_consumers.admin import commands  # noqa: E402
from marketfeed_devtools.ports import free_port  # noqa: E402
from marketfeed_devtools.programs import Unavailable  # noqa: E402
from marketfeed_devtools.waiting import until_async  # noqa: E402
from marketfeed_monitoring.prometheus import Programs, Prometheus, Target  # noqa: E402

RULES = ROOT / "charts/marketfeed/files/rules/marketfeed.yaml"
FEED, NAMESPACE = "binance-us", "market"
STORED_TOPICS = 4
SHARDS = (("BTCUSDT", "ETHUSDT", "SOLUSDT"), ("ADAUSDT", "XRPUSDT", "DOGEUSDT"))


class Stage(NamedTuple):
    """The running environment.

    Attributes:
        kubernetes, compose: The two Prometheus servers.
        without_operator: Reason why no operator runs; "" if it runs.
    """

    pipeline: Pipeline
    kubernetes: Prometheus
    compose: Prometheus
    without_operator: str


@contextlib.asynccontextmanager
async def stage(folder: Path, programs: Programs, scrape_seconds: float = 1.0) -> AsyncIterator[Stage]:
    """Start the environment in `folder` and stop it at the end of the block."""
    _make_accessible(folder)
    async with AsyncExitStack() as running:
        parts = await running.enter_async_context(Parts(folder))
        pipeline = await _pipeline(parts, folder)
        targets = await _services(pipeline)
        without_operator = ""
        try:
            operator = await _operator(folder / "operator", running)
            targets.append(
                _target(FEED, "operator", _address(operator.url("")), namespace="marketfeed-system")
            )
        except Unavailable as reason:
            without_operator = str(reason)
        servers = []
        for name in ("kubernetes", "compose"):
            (folder / name).mkdir()
            scraped = (
                targets if name == "kubernetes" else [Target(_job(each), each.address) for each in targets]
            )
            servers.append(Prometheus(programs, folder / name, scraped, RULES, scrape_seconds=scrape_seconds))
            running.enter_context(servers[-1])
        for server in servers:
            await until_async(
                lambda server=server: _has_scraped(server, len(targets)), "Prometheus to scrape all targets"
            )
        yield Stage(pipeline, *servers, without_operator)


def _has_scraped(server: Prometheus, targets: int) -> bool:
    """Return whether every target was scraped and all partitions are assigned, so that their counters exist."""
    up, topics = server.instant("sum(up)"), server.instant("count(marketfeed_consumer_dead_letters_total)")
    return bool(up and topics and up[0].points[-1][1] == targets and topics[0].points[-1][1] == STORED_TOPICS)


async def _pipeline(parts: Parts, folder: Path) -> Pipeline:
    database = await postgres.start(parts, folder / "server")
    pipeline = Pipeline(parts, folder, "", database.dsn, "market")
    address_file = folder / "broker"
    topics = dict.fromkeys(pipeline.topics.values(), 2)
    parts.start(services.embedded_broker(pipeline.environment, address_file, topics))
    await until_async(address_file.exists, "the broker")
    symbols = ",".join(symbol for shard in SHARDS for symbol in shard)
    pipeline.environment |= {"KAFKA_BROKER": address_file.read_text().strip(), "LOG_LEVEL": "WARNING"}
    await pipeline.migrate()
    await _retain_row_with_impossible_time(pipeline)
    await pipeline.venue(
        "generate", "--symbols", symbols, "--trade-rate", "8", "--quote-rate", "40", "--seed", "7"
    )
    return pipeline


ROW_WITH_IMPOSSIBLE_TIME = """
INSERT INTO trades (venue, symbol, trade_id, price, qty, buyer_is_maker, trade_time_us, received_time_us, origin)
VALUES ('binance_us', 'LTCUSDT', 1, 1, 1, true, 5, 5, 'stream');
INSERT INTO high_water_marks
(table_name, venue, symbol, version, first_id, last_id, first_time_us, last_time_us, row_count)
VALUES ('trades', 'binance_us', 'LTCUSDT', 1, 1, 1, 5, 5, 1)
"""


async def _retain_row_with_impossible_time(pipeline: Pipeline) -> None:
    """Run retention, so that its metrics exist, on a row that it keeps because of its impossible time."""
    with psycopg.connect(pipeline.database) as connection:
        connection.execute(ROW_WITH_IMPOSSIBLE_TIME)
    retain = (sys.executable, "-m", "marketfeed_consumers", "retain", "--trades-days", "1")
    process = await asyncio.create_subprocess_exec(*retain, env=pipeline.environment)
    assert await process.wait() == commands.IMPOSSIBLE_TIMES


async def _services(pipeline: Pipeline) -> list[Target]:
    targets = []
    for number, symbols in enumerate(SHARDS):
        shard = f"{FEED}-shard-{number}"
        _, url = await pipeline.worker(SHARD=shard, BINANCE_SYMBOLS=",".join(symbols), GAP_HOLD_SECONDS="2")
        targets.append(_target(FEED, "ingestion", _address(url), shard=shard))
    for component, table in (("consumer-trades", TRADES), ("consumer-book", QUOTES)):
        _, url = await pipeline.consumer(table, AUDIT_INTERVAL_SECONDS="1")
        targets.append(_target(FEED, component, _address(url)))
    return targets


def _target(
    feed: str, component: str, address: str, *, namespace: str = NAMESPACE, shard: str = ""
) -> Target:
    """Return a target with the labels of a PodMonitor; see docs/operator.md."""
    pod = {"pod": f"{shard or component}-0", "namespace": namespace, "component": component}
    labels = pod | ({"feed": feed} if component != "operator" else {}) | ({"shard": shard} if shard else {})
    job = f"{namespace}/{feed if component != 'operator' else 'marketfeed-operator'}"
    return Target(job, address, tuple(labels.items()))


def _job(target: Target) -> str:
    """Return the static scrape job of a target, for the server without Kubernetes labels."""
    component = dict(target.labels)["component"]
    return {"ingestion": "marketfeed-worker", "operator": "marketfeed-operator"}.get(
        component, f"marketfeed-{component}"
    )


def _address(url: str) -> str:
    return url.removeprefix("http://").rstrip("/")


async def _operator(folder: Path, running: AsyncExitStack) -> operator_support.Operator:
    """Start an operator on a separate API server, with an active and a paused feed."""
    plane = running.enter_context(operator_control_plane.control_plane(folder / "plane"))
    await operator_support.install(plane.kubeconfig)
    token = await operator_support.operator_token(plane.kubeconfig)
    account = plane.kubeconfig_for(folder / "kubeconfig", token)
    port = free_port()
    started = running.enter_context(contextlib.ExitStack())
    operator = operator_support.launch(folder, account, started, POD_METRICS_PORT=str(port))
    await until_async(lambda: " leading " in operator.log.read_text(), "the operator to lead")
    await _feeds(plane.kubeconfig, port, running)
    return operator


async def _feeds(kubeconfig: Path, port: int, running: AsyncExitStack) -> None:
    cluster = await running.enter_async_context(operator_support.admin_client(kubeconfig))
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await cluster.apply(operator_support.KINDS["Namespace"], body, manager="tests")
    admin = operator_support.Admin(cluster, NAMESPACE)
    await running.enter_async_context(operator_kubelet.kubelet(cluster, NAMESPACE, port))
    storage = {"engine": "postgresql", "dsnSecretName": "database"}
    await admin.feed(FEED, symbols=[each for shard in SHARDS for each in shard], shardSize=3, storage=storage)
    await admin.feed("resting", symbols=["LTCUSDT"], paused=True)


async def inject_faults(stage: Stage, *, dead_letter: bool = True) -> None:
    """Inject faults for all panels; all are recovered, except for the dead letter."""
    pipeline = stage.pipeline
    pipeline.fault("server_shutdown", close_after_seconds=60)
    pipeline.fault("drop", streams=["btcusdt@trade"], count=3)
    pipeline.fault("duplicate", streams=["solusdt@trade"], count=5)
    pipeline.fault("corrupt", streams=["ethusdt@trade"], how="bad_price", count=2)
    pipeline.fault("cut", after_seconds=5, lose_frames=100)
    if not dead_letter:
        return
    producer = Producer({"bootstrap.servers": pipeline.environment["KAFKA_BROKER"]})
    producer.produce(pipeline.topics["MARKET_TRADES_TOPIC"], value=b"not JSON", key=b"BTCUSDT")
    await asyncio.to_thread(producer.flush, 10)


def lose_trades_permanently(stage: Stage) -> None:
    """Drop trades that cannot be backfilled, because the venue's REST API is down."""
    stage.pipeline.fault("rest_error", status=500, endpoint="trades")
    stage.pipeline.fault("rest_error", status=500, endpoint="aggTrades")
    stage.pipeline.fault("drop", streams=["dogeusdt@trade"], count=2)


def _make_accessible(folder: Path) -> None:
    """Make the folder accessible for PostgreSQL, which runs as another user when the test runs as root."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == folder.stat().st_uid and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
