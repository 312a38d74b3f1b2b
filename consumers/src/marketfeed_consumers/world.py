"""The external dependencies of a consumer: Kafka clients, the database's connection, a clock, a thread.

`Consumer` and `Writer` take them as one object, so that a session in virtual time (simtest/) can replace all of them.
"""

import threading
import time
from collections.abc import Callable, Collection
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka.admin import AdminClient

from marketfeed_consumers.database import connections
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.dialects import Dialect


class Wait(Protocol):
    """See `concurrent.futures.wait`."""

    def __call__(
        self, fs: "Collection[Future[Any]]", /, timeout: float | None = None
    ) -> "tuple[set[Future[Any]], set[Future[Any]]]":
        """Wait until all are done, or for `timeout` seconds."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The external dependencies of one consumer process; the defaults are the real ones.

    Attributes:
        make_client: creates a Kafka consumer from librdkafka's properties.
        make_admin: creates Kafka's admin client from them.
        connect: see `connections.connect`.
        cut: see `connections.cut`.
        make_thread: creates the executor of the writer's work, with one thread.
        make_event: creates the event that ends the writer's backoff.
        wait: waits for the writer's futures.
        monotonic: monotonic clock in seconds.
    """

    make_client: Callable[[dict[str, Any]], KafkaConsumer] = KafkaConsumer
    make_admin: Callable[[dict[str, Any]], AdminClient] = AdminClient
    connect: Callable[[str], tuple[DatabaseConnection, Dialect]] = connections.connect
    cut: Callable[[DatabaseConnection], None] = connections.cut
    make_thread: Callable[[], Executor] = lambda: ThreadPoolExecutor(1, thread_name_prefix="writer")
    make_event: Callable[[], threading.Event] = threading.Event
    wait: Wait = futures.wait
    monotonic: Callable[[], float] = time.monotonic


REAL: Final = World()
