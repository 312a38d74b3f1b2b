"""What is ours: partitions taken over and let go, in the callbacks of Kafka's rebalances.

Every change ends with nothing in flight: partitions that are taken away are stored up to the last batch handed over,
within the drain deadline, and what was only read is left to the next owner.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from marketfeed_chassis import logs
from marketfeed_chassis.errors import ServiceError, StartupError
from marketfeed_chassis.kafka import client_config
from marketfeed_consumers import kafka
from marketfeed_consumers.claims import Claimed, Wanted, refusal
from marketfeed_consumers.errors import Abandoned
from marketfeed_consumers.reading import Reader
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import Progress, State
from marketfeed_consumers.storing import Storing
from marketfeed_consumers.waiting import Stop, Waiting
from marketfeed_consumers.writer import Writer

log = logs.get(__name__)

_CLAIM_SECONDS: Final = 120.0
"""Less than kafka.MAX_POLL_INTERVAL_MS, within which Kafka waits for a rebalance callback."""

_LOOK_SECONDS: Final = 5.0
"""How often it is asked whether a topic is still the same: one small question to the controller."""


class Ownership:
    """Keeps the database's view of who owns what in step with the group's."""

    def __init__(
        self,
        settings: ConsumerSettings,
        name: str,
        writer: Writer,
        state: State,
        reader: Reader,
        storing: Storing,
        waiting: Waiting,
        stop: Stop,
    ) -> None:
        self._settings = settings
        self._name = name
        self._writer = writer
        self._state = state
        self._reader = reader
        self._storing = storing
        self._waiting = waiting
        self._stop = stop
        self._asked: Mapping[str, Any] | None = None
        self._looked = time.monotonic()
        self._admin = AdminClient({**client_config(settings), "log_level": 2})

    def join(self) -> None:
        """Become a member of the group; what it assigns to us is taken over while the reader polls."""
        self._reader.client.subscribe(
            list(self._settings.topics()),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def look(self) -> None:
        """Every few seconds see that our topics are still those whose offsets are stored; does not wait.

        A topic can be deleted and created again without a rebalance, and Kafka's client then reads on in the new one
        from the old offset. What is stored meanwhile is stored rightly, under the old topic's id: with
        reset-offsets, what was passed over is read.

        Raises:
            StartupError: one was created again.
        """
        if self._asked is None:
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self._looked = time.monotonic()
                topics = {topic for topic, _ in self._state.partitions if self._storing.topic_ids[topic]}
                self._asked = kafka.ask_topic_ids(self._admin, sorted(topics)) if topics else None
        elif all(future.done() for future in self._asked.values()):
            asked, self._asked = self._asked, None
            for (topic, number), progress in self._state.partitions.items():
                now = kafka.topic_id_of(asked[topic]) if topic in asked else ""
                found = Wanted(topic, number, now, 0, progress.next_offset)
                if reason := refusal(found, progress.next_offset, self._storing.topic_ids[topic]):
                    raise StartupError(reason)

    def _on_assign(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._guarded(lambda: self._take_over(partitions))

    def _on_revoke(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._guarded(lambda: self._let_go(partitions, self._settings.drain_deadline_seconds))

    def _on_lost(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        # Somebody else may own them already; what is in flight is stored or fenced, it cannot do harm.
        self._guarded(lambda: self._let_go(partitions, 0.0))

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a rebalance callback; an error in it ends the loop once Kafka has its thread back."""
        try:
            action()
        except (ServiceError, KafkaException) as error:
            self._reader.failure = (
                error if isinstance(error, ServiceError) else StartupError(f"Kafka: {error.args[0].str()}")
            )

    def _take_over(self, partitions: Sequence[TopicPartition]) -> None:
        self._state.joined = True
        if not partitions:
            return
        self._storing.settle(self._settings.drain_deadline_seconds)
        try:
            claimed = self._claimed(partitions)
        except Abandoned:
            if self._stop.asked:
                # Without this the client would assign them by itself, and hand out records that we have no place for.
                self._reader.begin({})
                return
            raise StartupError(
                f"partitions were assigned but could not be claimed in {_CLAIM_SECONDS:.0f} s: "
                f"{self._writer.trouble or 'the database does not answer'}"
            ) from None
        for one in claimed:
            self._state.partitions[one.topic, one.partition] = Progress(one.epoch, one.next_offset)
            log.info("partition taken over", topic=one.topic, partition=one.partition, offset=one.next_offset)
        self._reader.begin({(one.topic, one.partition): one.next_offset for one in claimed})
        self._storing.forget()

    def _claimed(self, partitions: Sequence[TopicPartition]) -> Sequence[Claimed]:
        ids = self._storing.topic_ids
        ids |= kafka.topic_ids(self._admin, sorted({one.topic for one in partitions}))

        def claim() -> Sequence[Claimed]:
            wanted = kafka.wanted(self._reader.client, partitions, ids)
            claims = self._writer.submit_claim(self._settings.kafka_group, self._name, wanted)
            return self._waiting.in_callback(claims, _CLAIM_SECONDS)

        try:
            return claim()
        except StartupError:
            # Whoever had them may have stored what came after we had asked where they end: once more, from now.
            return claim()

    def _let_go(self, partitions: list[TopicPartition], seconds: float) -> None:
        self._storing.settle(seconds)
        gone = {(one.topic, one.partition) for one in partitions}
        for partition in gone:
            self._state.partitions.pop(partition, None)
            self._storing.hints.pop(partition, None)
            log.info("partition let go", topic=partition[0], partition=partition[1])
        self._reader.drop(gone)
        self._reader.client.incremental_unassign(partitions)
        self._storing.forget()
