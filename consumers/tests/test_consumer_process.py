"""The consumer as a process: real Kafka protocol, real PostgreSQL."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import Producer
from conftest import until
from psycopg import sql

from marketfeed_wire import BookTicker, Trade, encode, key_for

pytestmark = pytest.mark.integration


class Consumer:
    """A running `marketfeed-consumer`."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.log = folder / f"{uuid4().hex}.log"
        self._port_file = folder / f"{uuid4().hex}.port"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "marketfeed_consumers"],
                env={**os.environ, **environment, "METRICS_PORT_FILE": str(self._port_file)},
                stderr=log,
                stdout=log,
            )
        until(lambda: self._port_file.exists() or self.process.poll() is not None, "the metrics port")

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self._port_file.read_text().strip()}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.get("/status")[1])
        return status

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def topic() -> str:
    return f"trades-{uuid4().hex}"


@pytest.fixture
def start(broker: str, database: str, topic: str, tmp_path: Path) -> Iterator[Callable[..., Consumer]]:
    """Starts consumers of `topic` (trades) and `topic`-book (quotes)."""
    started = []

    def one(**environment: str) -> Consumer:
        consumer = Consumer(
            {
                "KAFKA_BROKER": broker,
                "KAFKA_GROUP": topic,
                "DATABASE_URL": database,
                "MARKET_TRADES_TOPIC": topic,
                "MARKET_BOOK_TOPIC": f"{topic}-book",
                "METRICS_HOST": "127.0.0.1",
                "METRICS_PORT": "0",
                **environment,
            },
            tmp_path,
        )
        started.append(consumer)
        return consumer

    yield one
    for consumer in started:
        if consumer.process.poll() is None:
            consumer.process.kill()
            consumer.process.wait()


@pytest.fixture
def publish(broker: str) -> Callable[..., None]:
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5})

    def send(topic: str, *messages: Trade | BookTicker | bytes) -> None:
        for message in messages:
            raw = isinstance(message, bytes)
            producer.produce(
                topic,
                key=b"junk" if raw else key_for(message.symbol),
                value=message if raw else encode(message),
            )
        assert producer.flush(20) == 0

    return send


def trade(trade_id: int, symbol: str = "BTCUSDT", **fields: Any) -> Trade:
    return Trade(
        **{
            "venue": "binance_us",
            "symbol": symbol,
            "trade_id": trade_id,
            "price": f"{60000 + trade_id}.10000000",
            "qty": "0.01000000",
            "buyer_is_maker": trade_id % 2 == 0,
            "trade_time_us": 1_723_161_600_000_000 + trade_id * 1_000_000,
            "event_time_us": None,
            "received_time_us": 1_723_161_600_000_500 + trade_id * 1_000_000,
            **fields,
        }
    )


def quote(update_id: int, symbol: str = "BTCUSDT") -> BookTicker:
    return BookTicker("binance_us", symbol, update_id, "1.0", "2.50", "1.1", "3", None, 1_723_161_600_000_500)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def stored(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


def test_stores_what_is_published_and_says_so(start, publish, topic, database):
    publish(
        topic, *(trade(i) for i in range(100, 200)), b"{not json", *(trade(i, "ETHUSDT") for i in range(50))
    )
    publish(f"{topic}-book", *(quote(i * 7) for i in range(60)))
    consumer = start()
    until(lambda: stored(database, "book_tickers") == 60, "the quotes")
    until(lambda: stored(database, "trades") == 150, "the trades")
    publish(topic, *(trade(i) for i in range(150, 250)))
    until(lambda: stored(database, "trades") == 200, "the rest")
    status = consumer.status()
    assert status["inserted"] == {"trades": 200, "book_tickers": 60}
    assert status["duplicates"]["trades"] == 50
    assert status["dead_letters"] == 1
    assert status["symbols"]["BTCUSDT"]["rows"] == 150 + 60
    assert consumer.get("/readyz") == (200, "ok\n")
    assert 'marketfeed_consumer_rows_inserted_total{table="trades"} 200.0' in consumer.get("/metrics")[1]
    assert consumer.stop() == 0, consumer.log.read_text()
    assert rows(database, "SELECT symbol, sum(trade_count) FROM candles_1m GROUP BY 1 ORDER BY 1") == [
        ("BTCUSDT", 150),
        ("ETHUSDT", 50),
    ]
