"""External dependencies of a worker: clocks, random numbers, clients of the venue and of Kafka, HTTP endpoints.

`worker.run` takes them as one object, so that sessions in virtual time (simtest/) replace all of them without patches.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import ClientSession
from confluent_kafka import Producer
from prometheus_client import CollectorRegistry

from marketfeed_service.health import Health, HealthServer
from marketfeed_service.kafka import wait_for_broker
from marketfeed_workers.connection.transports import picows_socket, websockets_socket
from marketfeed_workers.connection.transports.socket import OpenSocket
from marketfeed_workers.kafka import recovery
from marketfeed_workers.kafka.monitor import TopicProbe, topic_probe
from marketfeed_workers.kafka.topics import ensure_topics
from marketfeed_workers.settings import WorkerSettings

TRANSPORTS: Final[dict[str, OpenSocket]] = {
    "picows": picows_socket.open_socket,
    "websockets": websockets_socket.open_socket,
}


class MakeHealthServer(Protocol):
    """Factory of a `HealthServer`."""

    def __call__(
        self, health: Health, registry: CollectorRegistry, *, host: str, port: int
    ) -> AbstractContextManager[HealthServer]:
        """Return the server, which serves while it is entered."""


class WaitForBroker(Protocol):
    """See `marketfeed_service.kafka.wait_for_broker`."""

    def __call__(self, settings: WorkerSettings, *, stopping: Callable[[], bool]) -> None:
        """Return once a broker responds."""


def now_us() -> int:
    """Return the wall clock time in microseconds since the Unix epoch."""
    return time.time_ns() // 1000


def read_file(path: str) -> bytes:
    """Return the content of a file."""
    return Path(path).read_bytes()


@dataclass(frozen=True, kw_only=True)
class World:
    """Dependencies of one worker; the defaults are the real ones.

    Attributes:
        now_us: wall clock in microseconds since the epoch, for stored times.
        monotonic: monotonic clock in seconds, for durations.
        rng: source of jitter.
        open_socket: transport -> function that opens a WebSocket connection.
        http_session: creates the HTTP client of the venue's REST API.
        make_producer: creates a Kafka producer from librdkafka's properties.
        read_topic: yields the values of a topic; see `recovery.read_whole_topic`.
        wait_for_broker: returns once Kafka responds.
        ensure_topics: creates and checks the topics; returns the largest batch that each of them accepts.
        make_topic_probe: creates the check that the topics exist.
        make_health_server: creates the server of probes, status and metrics.
        read_file: reads a file (SYMBOLS_FILE); raises OSError.
        poll_seconds: interval of processing acknowledgements while no frames arrive.
    """

    now_us: Callable[[], int] = now_us
    monotonic: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.Random)
    open_socket: dict[str, OpenSocket] = field(default_factory=TRANSPORTS.copy)
    http_session: Callable[[], AbstractAsyncContextManager[ClientSession]] = ClientSession
    make_producer: Callable[[dict[str, Any]], Producer] = Producer
    read_topic: Callable[[WorkerSettings, str, float], Iterator[bytes]] = recovery.read_whole_topic
    wait_for_broker: WaitForBroker = wait_for_broker
    ensure_topics: Callable[[WorkerSettings], int | None] = ensure_topics
    make_topic_probe: Callable[[WorkerSettings], TopicProbe] = topic_probe
    make_health_server: MakeHealthServer = HealthServer
    read_file: Callable[[str], bytes] = read_file
    poll_seconds: float = 0.02
