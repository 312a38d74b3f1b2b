"""A whole pipeline for tests: simulator, worker, one consumer per topic, each its own process on a given broker."""

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from integration_kafka import ApacheKafka, KafkaCluster

from marketfeed_cli import services
from marketfeed_cli.process import Command, Part, Parts
from marketfeed_devtools.waiting import until_async
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

TRADES = "trades"
QUOTES = "book_tickers"


class Pipeline:
    """Starts and watches the processes; `prefix` separates the topics of tests."""

    def __init__(self, parts: Parts, folder: Path, broker: str, database: str, prefix: str) -> None:
        self.database = database
        self._parts = parts
        self._folder = folder
        self._number = 0
        self.topics = {
            "MARKET_TRADES_TOPIC": f"{prefix}.trades",
            "MARKET_BOOK_TOPIC": f"{prefix}.quotes",
            "MARKET_GAPS_TOPIC": f"{prefix}.gaps",
            "MARKET_PROGRESS_TOPIC": f"{prefix}.progress",
            "MARKET_REJECTED_TOPIC": f"{prefix}.rejected",
        }
        self.environment = {
            "PATH": os.environ["PATH"],
            "KAFKA_BROKER": broker,
            "KAFKA_GROUP": prefix,
            "DATABASE_URL": database,
            "BINANCE_SYMBOLS": "BTCUSDT,ETHUSDT",
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            **self.topics,
        }
        self.simulator_url = ""

    def create_topics(self, kafka: ApacheKafka | KafkaCluster, partitions: int, **trades_topic: str) -> None:
        """Create the topics with little more than their cleanup policies; `trades_topic`: configuration of that one."""
        for variable, topic in self.topics.items():
            is_ledger = variable in ("MARKET_GAPS_TOPIC", "MARKET_PROGRESS_TOPIC")
            config = {"cleanup.policy": "compact" if is_ledger else "delete"}
            if variable == "MARKET_TRADES_TOPIC":
                config |= trades_topic
            kafka.new_topic(topic, partitions, **config)

    async def venue(self, *arguments: str) -> None:
        """Start the simulator."""
        file = self._port_file()
        await self._started(services.simulator(self.environment, file, arguments), file)
        address = f"127.0.0.1:{file.read_text().strip()}"
        self.simulator_url = f"http://{address}"
        self.environment |= {"BINANCE_WS_BASE": f"ws://{address}", "BINANCE_REST_BASE": self.simulator_url}

    async def migrate(self, **variables: str) -> None:
        """Migrate the schema."""
        await self._parts.run(services.migration({**self.environment, **variables}), seconds=60)

    async def worker(self, **variables: str) -> tuple[Part, str]:
        """Start a worker; return the process and the address of its status."""
        file = self._port_file()
        part = await self._started(services.worker({**self.environment, **variables}, file), file)
        return part, _url(file)

    async def consumer(self, table: str, **variables: str) -> tuple[Part, str]:
        """Start the consumer of a table's topic."""
        file = self._port_file()
        topic = self.topics["MARKET_TRADES_TOPIC" if table == TRADES else "MARKET_BOOK_TOPIC"]
        topics = (
            [topic, self.topics["MARKET_GAPS_TOPIC"], self.topics["MARKET_REJECTED_TOPIC"]]
            if table == TRADES
            else [topic]
        )
        command = services.consumer({**self.environment, **variables}, file, topics)
        return await self._started(command, file), _url(file)

    async def _started(self, command: Command, port_file: Path) -> Part:
        part = self._parts.start(command)
        await until_async(lambda: port_file.exists() or part.exit_code is not None, f"{part.name}'s start")
        assert part.exit_code is None, part.tail()
        return part

    async def stop(self, part: Part) -> int | None:
        await self._parts.stop([part])
        return part.exit_code

    def kill(self, part: Part) -> None:
        """Send SIGKILL."""
        part.stopped = True
        part.signal(signal.SIGKILL)

    def fault(self, fault: str, **fields: Any) -> None:
        request = urllib.request.Request(  # noqa: S310 - our own simulator
            f"{self.simulator_url}/control/faults",
            method="POST",
            data=json.dumps({"fault": fault, **fields}).encode(),
        )
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - our own simulator
            pass

    def ledger(self) -> dict[str, Any]:
        return dict(json.loads(_get(f"{self.simulator_url}/control/ledger")))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(query).fetchall()

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - our own table names

    def _port_file(self) -> Path:
        self._number += 1
        return self._folder / f"port-{self._number}"


def worker_status(url: str) -> WorkerStatus:
    return msgspec.json.decode(_get(f"{url}/status"), type=WorkerStatus)


def consumer_status(url: str) -> ConsumerStatus:
    return msgspec.json.decode(_get(f"{url}/status"), type=ConsumerStatus)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own processes
        return bytes(answer.read())


def _url(port_file: Path) -> str:
    return f"http://127.0.0.1:{port_file.read_text().strip()}"
