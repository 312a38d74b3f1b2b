"""Brings up a whole pipeline on this machine: broker, database, venue, a consumer a topic, a worker."""

import secrets
import shlex
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple

import aiohttp
from psycopg.conninfo import conninfo_to_dict

from marketfeed_chassis.errors import StartupError
from marketfeed_cli import observe, services
from marketfeed_cli.embedded import postgres
from marketfeed_cli.kafka import PARTITIONS, Kafka
from marketfeed_cli.market import Market
from marketfeed_cli.observe import Ledger
from marketfeed_cli.process import Part, Parts
from marketfeed_cli.screen import Screen
from marketfeed_cli.settings import OwnParts
from marketfeed_wire.status import ConsumerStatus, WorkerStatus
from marketfeed_wire.topics import GAPS, PROGRESS, REJECTED

START_SECONDS: Final = 90.0
"""How long a part may take until it answers; the services have START_DEADLINE_SECONDS of their own below that."""


NOT_HANDED_ON: Final = frozenset({"SYMBOLS_FILE", "VALIDATE_ONLY"})
"""Variables of a worker that would make it do something else than the run is about."""
LIVE_ONLY: Final = frozenset({"BINANCE_STREAMS", "BACKFILL_FROM"})
"""Variables about the real venue; the simulator waits for a reader of every stream that it has."""


class Service(NamedTuple):
    """A running worker or consumer and where it tells about itself."""

    part: Part
    url: str


class Stack:
    """A pipeline that `bring_up` starts part by part.

    Attributes:
        started_us: no row of this run was received before, in microseconds since the epoch.
        kafka_broker: bootstrap servers.
        dsn: the database; holds a password.
        psql: a psql that fits it.
        broker: None when Kafka is the user's own.
        simulator, simulator_url: None and "" when the venue is the real one.
        trades_topic, book_topic, gaps_topic, progress_topic, rejected_topic: names.
        consumers: topic of trades or quotes -> its consumer.
        messages_before: topic -> how many messages it had before this run.
    """

    def __init__(
        self,
        parts: Parts,
        session: aiohttp.ClientSession,
        folder: Path,
        *,
        own: OwnParts,
        market: Market,
        environment: Mapping[str, str],
    ) -> None:
        self.market = market
        self._venue = own.venue
        self.started_us = time.time_ns() // 1000
        self.kafka_broker = own.kafka_broker
        self._passing_topics: list[str] = []
        self.dsn = own.database_url.get_secret_value()
        self.psql = "psql"
        self._owns_database = not self.dsn
        self.trades_topic = own.market_trades_topic
        self.book_topic = own.market_book_topic
        self._run_id = secrets.token_hex(4)
        self.progress_topic = own.market_progress_topic or self._memory_topic(PROGRESS)
        self.gaps_topic = own.market_gaps_topic or self._memory_topic(GAPS)
        self.rejected_topic = own.market_rejected_topic or self._memory_topic(REJECTED)
        self.broker: Part | None = None
        self.simulator: Part | None = None
        self.simulator_url = ""
        self.worker: Service | None = None
        self.consumers: dict[str, Service] = {}
        self.messages_before: dict[str, int] = {}
        self.parts = parts
        self.session = session
        self._folder = folder
        unwanted = NOT_HANDED_ON if market.kind == "live" else NOT_HANDED_ON | LIVE_ONLY
        self._environment = {
            **{name: value for name, value in environment.items() if name not in unwanted},
            "BINANCE_SYMBOLS": ",".join(market.symbols),
            "MARKET_PROGRESS_TOPIC": self.progress_topic,
            "MARKET_GAPS_TOPIC": self.gaps_topic,
            "MARKET_REJECTED_TOPIC": self.rejected_topic,
        }
        if not own.kafka_broker:
            # In a database of the user's own, the offsets of the last run's embedded broker mean nothing to this one.
            self._environment["KAFKA_GROUP"] = f"marketfeed-{self._run_id}"

    @property
    def stored_topics(self) -> tuple[str, ...]:
        """Every topic that ends in the database."""
        return self.trades_topic, self.book_topic, self.gaps_topic, self.rejected_topic

    @cached_property
    def kafka(self) -> Kafka:
        """An administrator's connection to the broker."""
        return Kafka(self._environment)

    async def bring_up(self, screen: Screen) -> None:
        """Start everything, in the order in which the parts need each other.

        Raises:
            PartFailed: a part ended; holds its last lines.
            StartupError: a part did not come up in time.
        """
        address_file = self._start_broker()
        port_file = self._start_simulator()
        with screen.step("venue") as tell:
            tell(self.market.title)
            if self.simulator is not None and port_file is not None:
                self.simulator_url = f"http://127.0.0.1:{await self._told(port_file, self.simulator)}"
                base = self.simulator_url.replace("http", "ws", 1)
                self._environment |= {"BINANCE_WS_BASE": base, "BINANCE_REST_BASE": self.simulator_url}
                tell(f" at {base}")
        await self._bring_up_database(screen)
        await self._bring_up_kafka(screen, address_file)
        self.messages_before = {topic: await self.kafka.messages(topic) for topic in self.stored_topics}
        with screen.step("consumers") as tell:
            await self._bring_up_consumers()
            tell(", ".join(self.consumers))
        with screen.step("worker") as tell:
            await self.bring_up_worker()
            tell(f"reading {', '.join(self.market.symbols)}")

    async def leave(self) -> None:
        """Remove what only this run could use from a broker of the user's own."""
        if self._passing_topics:
            await self.kafka.delete_topics(self._passing_topics)

    async def bring_up_worker(self) -> None:
        """Start a worker and wait until it tells about itself."""
        port_file = self._folder / "run" / "worker.port"
        port_file.unlink(missing_ok=True)
        part = self.parts.start(services.worker(self._environment, port_file))
        self.worker = Service(part, f"http://127.0.0.1:{await self._told(port_file, part)}")

    def places(self) -> dict[str, str]:
        """How to reach each part from another terminal; a password of the user's own is left out."""
        places: dict[str, str] = {}
        if self._owns_database:
            places["database"] = self.dsn
            places["psql"] = f"{shlex.quote(self.psql)} {shlex.quote(self.dsn)}"
        else:
            places["database"] = _place(self.dsn)
        places["kafka"] = self.kafka_broker
        if self.simulator_url:
            places["venue"] = f"{self.simulator_url}/control/ledger"
        if self.worker is not None and self.worker.part.exit_code is None:
            places["worker"] = f"{self.worker.url}/metrics"
        for topic, service in self.consumers.items():
            places[f"consumer of {topic}"] = f"{service.url}/metrics"
        places["logs"] = str(self._folder / "logs")
        return places

    async def worker_status(self) -> WorkerStatus | None:
        """The worker's own report; None while nobody answers."""
        return await observe.worker_status(self.session, self.worker.url) if self.worker else None

    async def consumer_statuses(self) -> dict[str, ConsumerStatus]:
        """Topic -> its consumer's own report, of those that answer."""
        asked = {
            topic: await observe.consumer_status(self.session, service.url)
            for topic, service in self.consumers.items()
        }
        return {topic: status for topic, status in asked.items() if status is not None}

    async def ledger(self) -> Ledger | None:
        """What the simulator's market produced; None when the venue is the real one or does not answer."""
        if not self.simulator_url:
            return None
        return await observe.fetch(self.session, f"{self.simulator_url}/control/ledger", Ledger)

    async def set_market(self, fault: Literal["halt", "resume"]) -> None:
        """Stop the simulator's generated market, or let it go on.

        Raises:
            StartupError: the simulator did not do so.
        """
        body = {"fault": fault, "symbols": self.market.symbols}
        try:
            async with self.session.post(f"{self.simulator_url}/control/faults", json=body) as response:
                if not response.ok:
                    raise StartupError(f"the simulator did not {fault} its market: {await response.text()}")
        except aiohttp.ClientError as error:
            raise StartupError(f"the simulator did not {fault} its market: {error}") from error

    def _memory_topic(self, usual: str) -> str:
        """The usual topic for the real venue; one of this run's own for a market that nobody will see again."""
        return usual if self.market.kind == "live" else f"{usual}.{self._run_id}"

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

    async def _bring_up_database(self, screen: Screen) -> None:
        with screen.step("database") as tell:
            if not self._owns_database:
                tell(f"your own, {_place(self.dsn)}")
            else:
                server = await postgres.start(self.parts, self._folder / "postgres")
                self.dsn, self.psql = server.dsn, str(server.psql)
                tell(f"embedded PostgreSQL {postgres.VERSION} at {_place(self.dsn)}")
            self._environment["DATABASE_URL"] = self.dsn
            await self.parts.run(services.migration(self._environment), seconds=START_SECONDS)

    async def _bring_up_kafka(self, screen: Screen, address_file: Path | None) -> None:
        with screen.step("Kafka") as tell:
            if self.broker is None or address_file is None:
                tell(f"your own, {self.kafka_broker}")
                names = (self.trades_topic, self.book_topic, self.rejected_topic)
                await self.kafka.create_topics(names, compacted=(self.progress_topic, self.gaps_topic))
                self._passing_topics = [
                    name
                    for name in (self.progress_topic, self.gaps_topic, self.rejected_topic)
                    if name.endswith(self._run_id)
                ]
            else:
                self.kafka_broker = await self._told(address_file, self.broker)
                # The embedded broker keeps 5 MB a partition as sent: well compressed, that is most.
                self._environment.setdefault("KAFKA_COMPRESSION", "zstd")
                tell(f"embedded broker at {self.kafka_broker}")
                self._environment["KAFKA_BROKER"] = self.kafka_broker

    async def _bring_up_consumers(self) -> None:
        # The few messages about gaps go with the trades they are about.
        with_trades = [self.trades_topic, self.gaps_topic, self.rejected_topic]
        read = {self.trades_topic: with_trades, self.book_topic: [self.book_topic]}
        port_files = {
            topic: self._folder / "run" / f"consumer-{number}.port" for number, topic in enumerate(read)
        }
        started = {
            topic: self.parts.start(services.consumer(self._environment, file, read[topic]))
            for topic, file in port_files.items()
        }
        for topic, file in port_files.items():
            port = await self._told(file, started[topic])
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

    async def _told(self, file: Path, part: Part) -> str:
        """What a part wrote into its port or address file, once it did."""

        async def content() -> str | None:
            return _content(file)

        return await self.parts.until(
            content, seconds=START_SECONDS, what=f"the start of the {part.name}", about=[part]
        )


def _content(file: Path) -> str | None:
    return file.read_text().strip() if file.exists() else None


def _place(dsn: str) -> str:
    """Host, port and name of a database, for the user: never its password."""
    fields = conninfo_to_dict(dsn)
    return f"{fields.get('host', 'localhost')}:{fields.get('port', 5432)}/{fields.get('dbname', '')}"
