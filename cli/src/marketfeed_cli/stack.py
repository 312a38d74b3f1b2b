"""Start of a whole pipeline on this machine: broker, database, venue, a consumer per topic, a worker."""

import secrets
import shlex
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple

import aiohttp
from psycopg.conninfo import conninfo_to_dict

from marketfeed_cli import observe, services
from marketfeed_cli.embedded import postgres
from marketfeed_cli.kafka import PARTITIONS, Kafka
from marketfeed_cli.market import Market
from marketfeed_cli.observe import Ledger
from marketfeed_cli.process import Part, Parts
from marketfeed_cli.screen import Screen
from marketfeed_cli.settings import RunSettings
from marketfeed_service.errors import StartupError
from marketfeed_wire.status import ConsumerStatus, WorkerStatus
from marketfeed_wire.topics import GAPS, PROGRESS, REJECTED

START_SECONDS: Final = 90.0
"""Timeout of a component's start; above START_DEADLINE_SECONDS of the services."""


NOT_PASSED_ON: Final = frozenset({"SYMBOLS_FILE", "VALIDATE_ONLY"})
"""Settings of a worker that would change the purpose of the run."""
LIVE_ONLY: Final = frozenset({"BINANCE_STREAMS", "BACKFILL_FROM"})
"""Settings for a live venue only; the simulator waits for a subscription of each of its streams."""


class Service(NamedTuple):
    """A running worker or consumer and the base URL of its HTTP endpoints."""

    part: Part
    url: str


class Stack:
    """A pipeline; `start` starts its components.

    Attributes:
        started_us: Start of the run in microseconds since the epoch; no row of it was received before.
        kafka_broker: Bootstrap servers.
        dsn: DSN of the database, with its password.
        psql: Path of a matching psql.
        broker: Embedded broker; None for a user's Kafka.
        simulator, simulator_url: Simulated venue; None and "" for a live venue.
        trades_topic, book_topic, gaps_topic, progress_topic, rejected_topic: Topic names.
        consumers: Topic of trades or quotes -> its consumer.
        messages_before: Topic -> number of messages before the run.
    """

    def __init__(
        self,
        parts: Parts,
        session: aiohttp.ClientSession,
        folder: Path,
        *,
        own: RunSettings,
        market: Market,
        environment: Mapping[str, str],
    ) -> None:
        self.market = market
        self._venue = own.venue
        self.started_us = time.time_ns() // 1000
        self.kafka_broker = own.kafka_broker
        self._temporary_topics: list[str] = []
        self.dsn = own.database_url.get_secret_value()
        self.psql = "psql"
        self._owns_database = not self.dsn
        self.trades_topic = own.market_trades_topic
        self.book_topic = own.market_book_topic
        self._run_id = secrets.token_hex(4)
        self.progress_topic = own.market_progress_topic or self._state_topic(PROGRESS)
        self.gaps_topic = own.market_gaps_topic or self._state_topic(GAPS)
        self.rejected_topic = own.market_rejected_topic or self._state_topic(REJECTED)
        self.broker: Part | None = None
        self.simulator: Part | None = None
        self.simulator_url = ""
        self.worker: Service | None = None
        self.consumers: dict[str, Service] = {}
        self.messages_before: dict[str, int] = {}
        self.parts = parts
        self.session = session
        self._folder = folder
        excluded = NOT_PASSED_ON if market.kind == "live" else NOT_PASSED_ON | LIVE_ONLY
        self._environment = {
            **{name: value for name, value in environment.items() if name not in excluded},
            "BINANCE_SYMBOLS": ",".join(market.symbols),
            "MARKET_PROGRESS_TOPIC": self.progress_topic,
            "MARKET_GAPS_TOPIC": self.gaps_topic,
            "MARKET_REJECTED_TOPIC": self.rejected_topic,
        }
        if not own.kafka_broker:
            # In a user's database the offsets of an earlier run's embedded broker are not valid for this run.
            self._environment["KAFKA_GROUP"] = f"marketfeed-{self._run_id}"

    @property
    def stored_topics(self) -> tuple[str, ...]:
        """Topics that consumers store in the database."""
        return self.trades_topic, self.book_topic, self.gaps_topic, self.rejected_topic

    @cached_property
    def kafka(self) -> Kafka:
        """Admin client for the broker."""
        return Kafka(self._environment)

    async def start(self, screen: Screen) -> None:
        """Start all components in the order of their dependencies.

        Raises:
            PartFailed: A process exited; the message has its last log lines.
            StartupError: A component did not start in time.
        """
        address_file = self._start_broker()
        port_file = self._start_simulator()
        with screen.step("venue") as show:
            show(self.market.title)
            if self.simulator is not None and port_file is not None:
                self.simulator_url = (
                    f"http://127.0.0.1:{await self._read_when_written(port_file, self.simulator)}"
                )
                base = self.simulator_url.replace("http", "ws", 1)
                self._environment |= {"BINANCE_WS_BASE": base, "BINANCE_REST_BASE": self.simulator_url}
                show(f" at {base}")
        await self._start_database(screen)
        await self._start_kafka(screen, address_file)
        self.messages_before = {topic: await self.kafka.messages(topic) for topic in self.stored_topics}
        with screen.step("consumers") as show:
            await self._start_consumers()
            show(", ".join(self.consumers))
        with screen.step("worker") as show:
            await self.start_worker()
            show(f"reading {', '.join(self.market.symbols)}")

    async def delete_temporary_topics(self) -> None:
        """Delete the topics of this run from a user's Kafka."""
        if self._temporary_topics:
            await self.kafka.delete_topics(self._temporary_topics)

    async def start_worker(self) -> None:
        """Start a worker and wait until it has written its port."""
        port_file = self._folder / "run" / "worker.port"
        port_file.unlink(missing_ok=True)
        part = self.parts.start(services.worker(self._environment, port_file))
        self.worker = Service(part, f"http://127.0.0.1:{await self._read_when_written(port_file, part)}")

    def endpoints(self) -> dict[str, str]:
        """Return the endpoint of each component for the user, without the password of a user's database."""
        endpoints: dict[str, str] = {}
        if self._owns_database:
            endpoints["database"] = self.dsn
            endpoints["psql"] = f"{shlex.quote(self.psql)} {shlex.quote(self.dsn)}"
        else:
            endpoints["database"] = _display_dsn(self.dsn)
        endpoints["kafka"] = self.kafka_broker
        if self.simulator_url:
            endpoints["venue"] = f"{self.simulator_url}/control/ledger"
        if self.worker is not None and self.worker.part.exit_code is None:
            endpoints["worker"] = f"{self.worker.url}/metrics"
        for topic, service in self.consumers.items():
            endpoints[f"consumer of {topic}"] = f"{service.url}/metrics"
        endpoints["logs"] = str(self._folder / "logs")
        return endpoints

    async def worker_status(self) -> WorkerStatus | None:
        """Return the worker's status; None if it does not respond."""
        return await observe.worker_status(self.session, self.worker.url) if self.worker else None

    async def consumer_statuses(self) -> dict[str, ConsumerStatus]:
        """Return the status of each responding consumer by topic."""
        statuses = {
            topic: await observe.consumer_status(self.session, service.url)
            for topic, service in self.consumers.items()
        }
        return {topic: status for topic, status in statuses.items() if status is not None}

    async def ledger(self) -> Ledger | None:
        """Return the simulator's ledger; None for a live venue or if it does not respond."""
        if not self.simulator_url:
            return None
        return await observe.fetch(self.session, f"{self.simulator_url}/control/ledger", Ledger)

    async def set_market(self, fault: Literal["halt", "resume"]) -> None:
        """Halt or resume the simulator's generated market.

        Raises:
            StartupError: The simulator rejected the request or did not respond.
        """
        body = {"fault": fault, "symbols": self.market.symbols}
        try:
            async with self.session.post(f"{self.simulator_url}/control/faults", json=body) as response:
                if not response.ok:
                    raise StartupError(f"the simulator did not {fault} its market: {await response.text()}")
        except aiohttp.ClientError as error:
            raise StartupError(f"the simulator did not {fault} its market: {error}") from error

    def _state_topic(self, default: str) -> str:
        """Return the default topic for a live venue, otherwise a temporary topic of this run."""
        return default if self.market.kind == "live" else f"{default}.{self._run_id}"

    def _start_broker(self) -> Path | None:
        if self.kafka_broker:
            return None
        address_file = self._folder / "run" / "broker.address"
        topics = dict.fromkeys((self.trades_topic, self.book_topic), PARTITIONS)
        topics |= dict.fromkeys((self.progress_topic, self.gaps_topic, self.rejected_topic), 1)
        self.broker = self.parts.start(services.embedded_broker(self._environment, address_file, topics))
        return address_file

    def _start_simulator(self) -> Path | None:
        if not self.market.simulator:
            return None
        arguments = ("--venue", self._venue, *self.market.simulator)
        port_file = self._folder / "run" / "simulator.port"
        self.simulator = self.parts.start(services.simulator(self._environment, port_file, arguments))
        return port_file

    async def _start_database(self, screen: Screen) -> None:
        with screen.step("database") as show:
            if not self._owns_database:
                show(f"your own, {_display_dsn(self.dsn)}")
            else:
                server = await postgres.start(self.parts, self._folder / "postgres")
                self.dsn, self.psql = server.dsn, str(server.psql)
                show(f"embedded PostgreSQL {postgres.VERSION} at {_display_dsn(self.dsn)}")
            self._environment["DATABASE_URL"] = self.dsn
            await self.parts.run(services.migration(self._environment), seconds=START_SECONDS)

    async def _start_kafka(self, screen: Screen, address_file: Path | None) -> None:
        with screen.step("Kafka") as show:
            if self.broker is None or address_file is None:
                show(f"your own, {self.kafka_broker}")
                names = (self.trades_topic, self.book_topic, self.rejected_topic)
                await self.kafka.create_topics(names, compacted=(self.progress_topic, self.gaps_topic))
                self._temporary_topics = [
                    name
                    for name in (self.progress_topic, self.gaps_topic, self.rejected_topic)
                    if name.endswith(self._run_id)
                ]
            else:
                self.kafka_broker = await self._read_when_written(address_file, self.broker)
                # The embedded broker keeps 5 MB per partition in compressed size, so compress well.
                self._environment.setdefault("KAFKA_COMPRESSION", "zstd")
                show(f"embedded broker at {self.kafka_broker}")
                self._environment["KAFKA_BROKER"] = self.kafka_broker

    async def _start_consumers(self) -> None:
        # Gaps and rejected messages are few; the consumer of trades reads them as well.
        with_trades = [self.trades_topic, self.gaps_topic, self.rejected_topic]
        subscriptions = {self.trades_topic: with_trades, self.book_topic: [self.book_topic]}
        port_files = {
            topic: self._folder / "run" / f"consumer-{number}.port"
            for number, topic in enumerate(subscriptions)
        }
        started = {
            topic: self.parts.start(services.consumer(self._environment, file, subscriptions[topic]))
            for topic, file in port_files.items()
        }
        for topic, file in port_files.items():
            port = await self._read_when_written(file, started[topic])
            self.consumers[topic] = Service(started[topic], f"http://127.0.0.1:{port}")
        await self.parts.until(
            self._all_ready,
            seconds=START_SECONDS,
            what="the consumers' start",
            about=[each.part for each in self.consumers.values()],
        )

    async def _all_ready(self) -> bool:
        statuses = await self.consumer_statuses()
        return len(statuses) == len(self.consumers) and all(status.ready for status in statuses.values())

    async def _read_when_written(self, file: Path, part: Part) -> str:
        """Wait until `part` has written its port or address file; return the content."""

        async def content() -> str | None:
            return _content(file)

        return await self.parts.until(
            content, seconds=START_SECONDS, what=f"the start of the {part.name}", about=[part]
        )


def _content(file: Path) -> str | None:
    return file.read_text().strip() if file.exists() else None


def _display_dsn(dsn: str) -> str:
    """Return host, port and name of a database, without credentials."""
    fields = conninfo_to_dict(dsn)
    return f"{fields.get('host', 'localhost')}:{fields.get('port', 5432)}/{fields.get('dbname', '')}"
