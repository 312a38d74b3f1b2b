"""What a consumer depends on outside its own logic: clients of Kafka, the database's connection, a clock, a thread.

`Consumer` and `Writer` take it as one object, so that a session in virtual time (simtest/) replaces all of it.
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
from marketfeed_consumers.database.dialects import Dialect
from marketfeed_consumers.storage.transaction import Connection


class Wait(Protocol):
    """See `concurrent.futures.wait`."""

    def __call__(
        self, fs: "Collection[Future[Any]]", /, timeout: float | None = None
    ) -> "tuple[set[Future[Any]], set[Future[Any]]]":
        """Wait until all are done, or for so long."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The surroundings of one consumer process; the defaults are the real ones.

    Attributes:
        make_client: makes a Kafka consumer from librdkafka's properties.
        make_admin: makes Kafka's admin client from them.
        connect: see `database.connect`.
        cut: see `database.cut`.
        make_thread: makes what runs the writer's work, a piece at a time.
        make_event: makes a flag that the writer's pauses end with.
        wait: waits for what the writer was given.
        monotonic: a clock in seconds that is never set.
    """

    make_client: Callable[[dict[str, Any]], KafkaConsumer] = KafkaConsumer
    make_admin: Callable[[dict[str, Any]], AdminClient] = AdminClient
    connect: Callable[[str], tuple[Connection, Dialect]] = connections.connect
    cut: Callable[[Connection], None] = connections.cut
    make_thread: Callable[[], Executor] = lambda: ThreadPoolExecutor(1, thread_name_prefix="writer")
    make_event: Callable[[], threading.Event] = threading.Event
    wait: Wait = futures.wait
    monotonic: Callable[[], float] = time.monotonic


REAL: Final = World()
