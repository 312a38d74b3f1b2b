"""The few things a run asks of Kafka itself: that its topics are there, and where they end."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from marketfeed_chassis.errors import StartupError
from marketfeed_chassis.kafka import KafkaSettings, client_config, wait_for_broker
from marketfeed_chassis.settings import read
from marketfeed_wire import LEDGER_POLICY, market_data_policy

PARTITIONS: Final = 4
RETENTION_HOURS: Final = 24
"""What a run leaves in a Kafka that lets nobody delete topics."""
TIMEOUT_SECONDS: Final = 10.0

# A topic that was created a moment ago: its partitions get their leaders one by one.
_PASSING: Final = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}


class Kafka:
    """An administrator's connection to the broker that `environment` names (KAFKA_BROKER and its companions)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._settings = read(KafkaSettings, environment)
        self._admin = AdminClient({**client_config(self._settings), "log_level": 2})

    async def create_topics(self, names: Iterable[str], *, compacted: Iterable[str]) -> None:
        """Create the topics that are not there, with PARTITIONS partitions each.

        Raises:
            StartupError: the broker is out of reach, or refuses.
        """
        await asyncio.to_thread(wait_for_broker, self._settings)
        known = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        data = market_data_policy(RETENTION_HOURS)
        policies = {**dict.fromkeys(names, data), **dict.fromkeys(compacted, LEDGER_POLICY)}
        wanted = [
            NewTopic(name, num_partitions=PARTITIONS, config=policy)
            for name, policy in policies.items()
            if name not in known
        ]
        for name, created in self._admin.create_topics(wanted).items() if wanted else ():
            try:
                await asyncio.wrap_future(created)
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise StartupError(f"Kafka refused to create the topic {name}: {reason.str()}") from None

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics, as far as the broker lets us: what is left over is of no consequence."""
        for deleted in self._admin.delete_topics(list(names), request_timeout=TIMEOUT_SECONDS).values():
            with suppress(KafkaException):
                await asyncio.wrap_future(deleted)

    async def messages(self, topic: str) -> int:
        """How many messages were ever written to the topic.

        Raises:
            StartupError: the broker does not tell.
        """
        return sum((await self.end_offsets(topic)).values())

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """Partition -> the offset after its last record.

        Raises:
            StartupError: the broker does not tell.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return await self._end_offsets(topic)
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() not in _PASSING or time.monotonic() > deadline:
                    raise StartupError(f"Kafka does not tell where {topic} ends: {reason.str()}") from None
            await asyncio.sleep(0.2)

    async def _end_offsets(self, topic: str) -> dict[int, int]:
        known = await asyncio.to_thread(self._admin.list_topics, topic, TIMEOUT_SECONDS)
        description = known.topics[topic]
        if description.error is not None:
            raise KafkaException(description.error)
        asked = {
            TopicPartition(topic, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for number in description.partitions
        }
        answers = self._admin.list_offsets(asked, request_timeout=TIMEOUT_SECONDS)
        return {
            where.partition: (await asyncio.wrap_future(answer)).offset for where, answer in answers.items()
        }
