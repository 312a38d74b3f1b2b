"""Kafka administration of a run: creation of topics and log end offsets."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from marketfeed_service.errors import StartupError
from marketfeed_service.kafka import KafkaSettings, client_config, wait_for_broker
from marketfeed_service.settings import read
from marketfeed_wire import LEDGER_POLICY, market_data_policy

PARTITIONS: Final = 4
RETENTION_HOURS: Final = 24
"""Retention of a run's topics in a Kafka that does not permit to delete them."""
TIMEOUT_SECONDS: Final = 10.0

# Transient errors of a new topic, while leaders of its partitions are elected.
_TRANSIENT: Final = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}


class Kafka:
    """Admin client for the broker in the settings of `environment` (KAFKA_BROKER and related)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._settings = read(KafkaSettings, environment)
        self._admin = AdminClient({**client_config(self._settings), "log_level": 2})

    async def create_topics(self, names: Iterable[str], *, compacted: Iterable[str]) -> None:
        """Create missing topics with PARTITIONS partitions each.

        Raises:
            StartupError: The broker is unreachable or rejected the request.
        """
        await asyncio.to_thread(wait_for_broker, self._settings)
        existing = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        data = market_data_policy(RETENTION_HOURS)
        policies = {**dict.fromkeys(names, data), **dict.fromkeys(compacted, LEDGER_POLICY)}
        missing = [
            NewTopic(name, num_partitions=PARTITIONS, config=policy)
            for name, policy in policies.items()
            if name not in existing
        ]
        for name, created in self._admin.create_topics(missing).items() if missing else ():
            try:
                await asyncio.wrap_future(created)
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise StartupError(
                        f"Kafka rejected the creation of topic {name}: {reason.str()}"
                    ) from None

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics as far as the broker permits; failures are ignored."""
        for deleted in self._admin.delete_topics(list(names), request_timeout=TIMEOUT_SECONDS).values():
            with suppress(KafkaException):
                await asyncio.wrap_future(deleted)

    async def messages(self, topic: str) -> int:
        """Return the sum of the topic's log end offsets.

        Raises:
            StartupError: The broker did not return them.
        """
        return sum((await self.end_offsets(topic)).values())

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the log end offset of each partition.

        Raises:
            StartupError: The broker did not return them.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return await self._end_offsets(topic)
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() not in _TRANSIENT or time.monotonic() > deadline:
                    raise StartupError(
                        f"Kafka did not return the end offsets of {topic}: {reason.str()}"
                    ) from None
            await asyncio.sleep(0.2)

    async def _end_offsets(self, topic: str) -> dict[int, int]:
        metadata = await asyncio.to_thread(self._admin.list_topics, topic, TIMEOUT_SECONDS)
        description = metadata.topics[topic]
        if description.error is not None:
            raise KafkaException(description.error)
        request = {
            TopicPartition(topic, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for number in description.partitions
        }
        futures = self._admin.list_offsets(request, request_timeout=TIMEOUT_SECONDS)
        return {key.partition: (await asyncio.wrap_future(future)).offset for key, future in futures.items()}
