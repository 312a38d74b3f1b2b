"""The consumer as a process: real Kafka protocol, real PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from consumer_market import quote, trade
from consumer_support import Consumer, rows, stored, until

from marketfeed_wire import BookTicker, Trade, encode, key_for

pytestmark = pytest.mark.integration


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
