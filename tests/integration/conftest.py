"""Brokers, database and recording of the whole-pipeline tests: real ones, started once per run."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from integration_kafka import ApacheKafka, require_kafka
from integration_pipeline import Pipeline
from psycopg import sql

from marketfeed_cli import services
from marketfeed_cli.embedded import postgres as embedded_postgres
from marketfeed_cli.process import Parts

RECORDING = "binance-spot-btcusdt-ethusdt-20240809.frames.gz"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def recording() -> Path:
    path = Path(__file__).parents[3] / "shared" / "recordings" / RECORDING
    if not path.exists():
        pytest.skip(f"the recorded market data {RECORDING} is missing in ../shared/recordings")
    return path


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a PostgreSQL server and yield its DSN."""
    folder = tmp_path_factory.mktemp("postgres")
    for parent in (folder, *folder.parents):  # the server runs as another user when the tests run as root
        if parent.stat().st_uid == folder.stat().st_uid and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    loop = asyncio.new_event_loop()
    parts = Parts(folder)
    try:
        yield loop.run_until_complete(embedded_postgres.start(parts, folder / "server")).dsn
    finally:
        loop.run_until_complete(parts.__aexit__())
        loop.close()


@pytest.fixture
def database(postgres: str) -> str:
    """Return the DSN of a database for this test only."""
    name = f"t{next(_numbers)}_{secrets.token_hex(3)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return f"{postgres.rsplit('/', 1)[0]}/{name}"


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """Yield a broker that tests leave unchanged."""
    require_kafka()
    with ApacheKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Yield the processes of one test; none outlives it."""
    async with Parts(tmp_path) as started:
        yield started


@pytest.fixture(
    params=[pytest.param("Apache Kafka", marks=pytest.mark.kafka), "embedded broker"],
)
async def new_pipeline(
    request: pytest.FixtureRequest, parts: Parts, tmp_path: Path, database: str
) -> Pipeline:
    """Return a pipeline on each kind of broker, its database without a schema."""
    prefix = f"t{next(_numbers)}"
    if request.param == "Apache Kafka":
        kafka: ApacheKafka = request.getfixturevalue("apache_kafka")
        line = Pipeline(parts, tmp_path, kafka.address, database, prefix)
        line.create_topics(kafka, 4)
    else:
        address_file = tmp_path / "broker"
        line = Pipeline(parts, tmp_path, "", database, prefix)
        topics = dict.fromkeys(line.topics.values(), 4)
        parts.start(services.embedded_broker(line.environment, address_file, topics))
        while not address_file.exists():
            parts.check()
            await asyncio.sleep(0.05)
        line.environment["KAFKA_BROKER"] = address_file.read_text().strip()
    return line


@pytest.fixture
async def pipeline(new_pipeline: Pipeline) -> Pipeline:
    """Return a pipeline on each kind of broker, its schema migrated."""
    await new_pipeline.migrate()
    return new_pipeline
