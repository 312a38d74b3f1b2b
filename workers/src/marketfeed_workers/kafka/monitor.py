"""Monitoring of publishing: the age of the oldest unacknowledged message, and the existence of the topics.

A quiet feed has no acknowledgements, so topic metadata is requested every few seconds as well: an unreachable or frozen
broker, or a deleted topic, is detected within seconds.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from marketfeed_service import logs
from marketfeed_service.kafka import client_config
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.settings import WorkerSettings

log = logs.get(__name__)

CHECK_SECONDS: Final = 0.5
PROBE_SECONDS: Final = 3.0
PROBE_TIMEOUT_SECONDS: Final = 3.0

TopicProbe = Callable[[], str]
"""Returns why messages cannot be published, as far as topic metadata shows; "" otherwise. Blocks up to some seconds."""


def topic_probe(settings: WorkerSettings) -> TopicProbe:
    """Return a check that every topic of the worker exists."""
    topics = settings.topics()
    # The client's log would repeat the producer's, and a metadata request must not create a topic.
    admin = AdminClient({**client_config(settings), "log_level": 0, "allow.auto.create.topics": False})

    def probe() -> str:
        for topic in topics:
            try:
                error = admin.list_topics(topic, timeout=PROBE_TIMEOUT_SECONDS).topics[topic].error
            except KafkaException as failure:
                return f"Kafka does not respond: {failure.args[0].str()}"
            if error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return f"topic {topic} does not exist; create it, or restart the worker with KAFKA_CREATE_TOPICS=true"
        return ""

    return probe


class KafkaMonitor:
    """Monitors publishing; run `run` as a task.

    Attributes:
        reason: why publishing is stalled; "" otherwise.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        publisher: Publisher,
        probe: TopicProbe,
    ) -> None:
        self.reason = ""
        self._bound_seconds = settings.ready_ack_seconds
        self._publisher = publisher
        self._probe = probe
        self._found = ""
        self._stalled = logs.Episode(log, "Kafka publishing stalled", "Kafka publishing resumed")

    async def run(self) -> None:
        """Monitor until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe_topics(), name="topics")
            while True:
                self.check()
                await asyncio.sleep(CHECK_SECONDS)

    async def _probe_topics(self) -> None:
        while True:
            self._found = await asyncio.to_thread(self._probe)
            await asyncio.sleep(PROBE_SECONDS)

    def check(self) -> None:
        """Update `reason`; log its begin and end."""
        age = self._publisher.oldest_unacknowledged_seconds
        if age > self._bound_seconds:
            details = self._publisher.last_error or self._found
            self.reason = f"Kafka has not acknowledged a message for {age:.0f} s" + (
                f": {details}" if details else ""
            )
        else:
            self.reason = self._found
        if self.reason:
            self._stalled.begin(reason=self.reason, pending=self._publisher.pending)
        else:
            self._stalled.end(pending=self._publisher.pending)
