"""Consumers alone on Apache Kafka and PostgreSQL: a test writes the topics, several processes store them."""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from integration_kafka import ApacheKafka

from marketfeed_cli.process import Command, Part, Parts
from marketfeed_wire import Trade, encode, key_for

SYMBOLS = tuple(f"SYM{number}" for number in range(12))
PARTITIONS = 4
SESSION_MS = "10000"


def trade(trade_id: int, symbol: str = "SYM0") -> Trade:
    """Return a trade whose content is derived from its id."""
    time_us = 1_723_161_600_000_000 + trade_id * 500_000
    return Trade(
        venue="binance_us",
        symbol=symbol,
        trade_id=trade_id,
        price=f"{60000 + trade_id % 11}.25000000",
        qty="0.50000000",
        buyer_is_maker=trade_id % 3 == 0,
        trade_time_us=time_us,
        event_time_us=None,
        received_time_us=time_us + 500,
    )


class Consumer:
    """A running `marketfeed-consumer`."""

    def __init__(self, part: Part, port_file: Path) -> None:
        self.part = part
        self._port_file = port_file

    def has_ended(self) -> bool:
        return self.part.exit_code is not None

    def is_up(self) -> bool:
        return self._port_file.exists()

    def partitions(self) -> set[int]:
        """Return its assigned partitions of the trades' topic."""
        status: dict[str, Any] = json.loads(self.get("/status")[1])
        return {one["partition"] for one in status["partitions"]}

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of its response; (0, "") while it does not serve."""
        if not self.is_up():
            return 0, ""
        url = f"http://127.0.0.1:{self._port_file.read_text().strip()}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def rebalances(self) -> list[str]:
        """Return its log lines about assigned and revoked partitions."""
        lines = self.part.log.read_text().splitlines()
        return [line for line in lines if "partition assigned" in line or "partition revoked" in line]


class Rig:
    """One topic of trades, a group of consumers and their database."""

    def __init__(self, parts: Parts, folder: Path, kafka: ApacheKafka, database: str, topic: str) -> None:
        self.kafka, self.topic, self.database = kafka, topic, database
        self._parts, self._folder, self._started = parts, folder, 0
        self._environment = {
            "PATH": os.environ["PATH"],
            "KAFKA_BROKER": kafka.address,
            "KAFKA_GROUP": topic,
            "KAFKA_SESSION_TIMEOUT_MS": SESSION_MS,
            "MARKET_TRADES_TOPIC": topic,
            "CONSUMER_TOPICS": topic,
            "DATABASE_URL": database,
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": "0",
            "BATCH_MAX_ROWS": "100",
        }
        self._producer = Producer({"bootstrap.servers": kafka.address, "linger.ms": 5, "log_level": 0})
        self._admin = AdminClient({"bootstrap.servers": kafka.address, "log_level": 0})

    async def command(self, *arguments: str) -> str:
        """Run `marketfeed-consumer` with `arguments` to its end and return its output."""
        self._started += 1
        command = self._command(f"command {self._started}", arguments, {})
        await self._parts.run(command, seconds=60)
        return (self._folder / f"command-{self._started}.log").read_text()

    def start(self, **variables: str) -> Consumer:
        """Start a consumer of the topic."""
        self._started += 1
        file = self._folder / f"port-{self._started}"
        variables = {**variables, "METRICS_PORT_FILE": str(file)}
        return Consumer(
            self._parts.start(self._command(f"consumer {self._started}", ["run"], variables)), file
        )

    def _command(self, name: str, arguments: Any, variables: dict[str, str]) -> Command:
        argv = [sys.executable, "-m", "marketfeed_consumers", *arguments]
        return Command(name, argv, {**self._environment, **variables})

    async def stop(self, consumer: Consumer) -> int | None:
        await self._parts.stop([consumer.part], seconds=30)
        return consumer.part.exit_code

    def publish(self, trade_ids: range, symbols: tuple[str, ...] = SYMBOLS) -> None:
        for trade_id in trade_ids:
            for symbol in symbols:
                self._producer.produce(self.topic, encode(trade(trade_id, symbol)), key_for(symbol))
        assert self._producer.flush(30) == 0

    def delete_topic(self) -> None:
        self._admin.delete_topics([self.topic])[self.topic].result()

    def topic_exists(self) -> bool:
        return self.topic in self._admin.list_topics(timeout=10).topics

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(query).fetchall()

    def stored(self) -> int:
        return int(self.rows("SELECT count(*) FROM trades")[0][0])

    def next_offsets(self) -> int:
        return int(self.rows("SELECT coalesce(sum(next_offset), 0) FROM consumer_offsets")[0][0])

    def everything(self) -> list[list[tuple[Any, ...]]]:
        """Return the rows of all tables, stored and derived."""
        return [
            self.rows("SELECT * FROM trades ORDER BY venue, symbol, trade_id"),
            self.rows("SELECT * FROM candles_1m ORDER BY venue, symbol, open_time_us"),
            self.rows("SELECT symbol, first_id, last_id, row_count FROM high_water_marks ORDER BY 1"),
            self.rows("SELECT * FROM missing_trades"),
        ]

    def check(self, count: int) -> None:
        """Assert that each symbol has the trades 0..count-1 once, in its candles too."""
        expected = [(symbol, count, 0, count - 1, count) for symbol in sorted(SYMBOLS)]
        assert expected == self.rows(
            "SELECT t.symbol, count(*), min(trade_id), max(trade_id), (SELECT sum(trade_count)::bigint "
            "FROM candles_1m AS c WHERE c.symbol = t.symbol) FROM trades AS t GROUP BY t.symbol ORDER BY 1"
        )
