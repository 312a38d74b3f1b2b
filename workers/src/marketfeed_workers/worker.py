"""A worker's life: check the symbols, open the connections, watch, drain."""

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import ClientSession
from prometheus_client import CollectorRegistry

from marketfeed_chassis import logs
from marketfeed_chassis.errors import StartupError
from marketfeed_chassis.health import HealthServer
from marketfeed_chassis.kafka import wait_for_broker
from marketfeed_workers import validate
from marketfeed_workers.connection import Connection
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.errors import Limited, Refused, Unreachable
from marketfeed_workers.metrics import WorkerMetrics
from marketfeed_workers.pipeline import Pipeline
from marketfeed_workers.publisher import Publisher
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.status import WorkerHealth
from marketfeed_workers.transports import picows_socket, websockets_socket
from marketfeed_workers.transports.socket import OpenSocket
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import SymbolInfo, Venue

log = logs.get(__name__)

BEAT_SECONDS: Final = 0.02
"""How often acknowledgements are taken in while no frames come."""

TRANSPORTS: Final[dict[str, OpenSocket]] = {
    "picows": picows_socket.open_socket,
    "websockets": websockets_socket.open_socket,
}


def now_us() -> int:
    """The wall clock, in microseconds since the Unix epoch."""
    return time.time_ns() // 1000


async def print_validation(settings: WorkerSettings) -> int:
    """Check the symbols only: print a table; 0 when all of them can be read, otherwise 1."""
    listed = await _listed_symbols(settings)
    print(validate.table(settings.binance_symbols, listed))
    return 1 if validate.validate(settings.binance_symbols, listed).refused else 0


async def run(settings: WorkerSettings) -> int:
    """Run until SIGTERM or SIGINT, or until Kafka refuses a message for good; the exit code.

    Raises:
        StartupError: venue or broker out of reach until the deadline, or no symbol left to read.
    """
    stop = asyncio.Event()
    with _stop_signals(stop):
        symbols, refused = await _symbols_to_read(settings)
        await asyncio.to_thread(wait_for_broker, settings, stopping=stop.is_set)
        if stop.is_set():
            return 0
        if settings.kafka_acks != "all":
            log.warning(
                "KAFKA_ACKS is not all: what is acknowledged can be lost with a broker, repeated or reordered",
                acks=settings.kafka_acks,
            )
        return await _Worker(settings, symbols, refused).run(stop)


class _Worker:
    """The parts of a running worker."""

    def __init__(self, settings: WorkerSettings, symbols: list[str], refused: dict[str, str]) -> None:
        venue = VENUES[settings.venue]
        self._settings = settings
        self._counters = Counters(
            StreamCounters("trade", settings.market_trades_topic),
            StreamCounters("book_ticker", settings.market_book_topic),
        )
        self._publisher = Publisher(settings, now_us)
        self._pipeline = Pipeline(venue, self._publisher, self._counters, symbols, now_us)
        self._connections = [
            Connection(
                number,
                chunk,
                venue=venue,
                settings=settings,
                open_socket=TRANSPORTS[settings.ws_transport],
                pipeline=self._pipeline,
                counters=self._counters,
                now_us=now_us,
                chance=random.Random(),  # noqa: S311 - jitter, not a secret
            )
            for number, chunk in enumerate(_chunks(symbols, _symbols_per_connection(settings, venue)))
        ]
        self._health = WorkerHealth(
            settings, self._counters, self._pipeline, self._publisher, self._connections, refused, now_us
        )

    async def run(self, stop: asyncio.Event) -> int:
        registry = CollectorRegistry()
        registry.register(WorkerMetrics(self._counters, self._health))
        settings = self._settings
        with HealthServer(
            self._health, registry, host=settings.metrics_host, port=settings.metrics_port
        ) as server:
            server.write_port(settings.metrics_port_file)
            log.info(
                "worker started",
                venue=settings.venue,
                shard=settings.shard,
                symbols=len(self._pipeline.flows),
                connections=len(self._connections),
                metrics_port=server.port,
            )
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(connection.run(), name=f"connection-{number}")
                    for number, connection in enumerate(self._connections)
                ]
                await self._beat_until(stop)
                self._health.draining = True
                for task in running:
                    task.cancel()
            return self._drain()

    async def _beat_until(self, stop: asyncio.Event) -> None:
        """Take in acknowledgements until told to stop, or until going on would lose something."""
        while not stop.is_set() and not self._publisher.refusal:
            self._pipeline.poll()
            self._health.last_beat_us = now_us()
            try:
                await asyncio.wait_for(stop.wait(), BEAT_SECONDS)
            except TimeoutError:
                continue

    def _drain(self) -> int:
        pending = self._publisher.pending
        left = self._publisher.flush(self._settings.drain_deadline_seconds)
        if left:
            log.error("stopped before Kafka acknowledged everything", unacknowledged=left)
            return 1
        if self._publisher.refusal:
            log.error("stopped because going on would lose data", reason=self._publisher.refusal)
            return 1
        log.info("stopped; everything read is acknowledged", drained=pending)
        return 0


async def _symbols_to_read(settings: WorkerSettings) -> tuple[list[str], dict[str, str]]:
    """The symbols to read and those left out -> the reason; each of the latter is logged."""
    if not settings.validate_on_start:
        return list(settings.binance_symbols), {}
    accepted, refused = validate.validate(settings.binance_symbols, await _listed_symbols(settings))
    for symbol, reason in refused.items():
        log.error("symbol left out", symbol=symbol, reason=reason)
    if not accepted:
        raise StartupError(
            "none of BINANCE_SYMBOLS can be read: "
            + "; ".join(f"{symbol} is {reason}" for symbol, reason in refused.items())
        )
    return accepted, refused


async def _listed_symbols(settings: WorkerSettings) -> dict[str, SymbolInfo]:
    """What the venue lists; asked again until START_DEADLINE_SECONDS have passed."""
    venue = VENUES[settings.venue]
    base = settings.binance_rest_base or venue.facts.rest_base
    deadline = time.monotonic() + settings.start_deadline_seconds
    async with ClientSession() as session:
        rest = venue.rest(base, session)
        while True:
            try:
                return await rest.symbols()
            except Refused as error:
                raise StartupError(f"{error}; the worker does not try again") from None
            except Unreachable as error:
                delay = error.retry_after_seconds if isinstance(error, Limited) else 1.0
                remaining = deadline - time.monotonic()
                if delay > remaining:
                    raise StartupError(
                        f"the venue's symbols could not be read within {settings.start_deadline_seconds:g} s: {error}; "
                        "check BINANCE_REST_BASE, raise START_DEADLINE_SECONDS, or set VALIDATE_ON_START=false"
                    ) from None
                log.warning("waiting for the venue", reason=str(error), seconds_left=round(remaining))
                await asyncio.sleep(delay)


@contextmanager
def _stop_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` at SIGTERM or SIGINT while the block runs."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _symbols_per_connection(settings: WorkerSettings, venue: Venue) -> int:
    streams_per_symbol = len(venue.streams(settings.binance_symbols[0]))
    return min(settings.ws_shard_size, venue.facts.max_streams_per_connection // streams_per_symbol)


def _chunks(symbols: list[str], size: int) -> Iterator[list[str]]:
    return (symbols[start : start + size] for start in range(0, len(symbols), size))
