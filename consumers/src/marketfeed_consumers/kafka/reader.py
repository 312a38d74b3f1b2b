"""The Kafka client of the loop: polls records into the current batch, pauses, seeks, commits offsets to Kafka."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from marketfeed_consumers.errors import LogLost
from marketfeed_consumers.kafka.admin_requests import consumer_config
from marketfeed_consumers.kafka.batching import CHUNK_ROWS, BatchFill, BatchLimits, wait_seconds
from marketfeed_consumers.kafka.decode import Batch, Partition
from marketfeed_consumers.kafka.leases import truncation_refusal
from marketfeed_consumers.kafka.truncation import LOG_LOST
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import State
from marketfeed_service import logs
from marketfeed_service.errors import ServiceError, StartupError

log = logs.get(__name__)

_FINAL: Final = (
    KafkaError._FATAL,  # error.fatal() is false for the event that a consumer gets
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)
_CONNECTION: Final = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
)
IDLE_SECONDS: Final = 0.1
"""Maximum duration of one wait; also how long a stop signal may be delayed."""
_HINT_SECONDS: Final = 1.0


class Reader:
    """Reader of Kafka records into the current batch.

    Attributes:
        client: the Kafka consumer; used by the group member to change the assignment.
        batch: records that were read and not submitted yet.
        failure: error of a rebalance callback; raised by the next read.
        ends: partition -> the offset of its end when it was read to its end, past control and aborted records.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        state: State,
        make_client: Callable[[dict[str, Any]], KafkaConsumer] = KafkaConsumer,
    ) -> None:
        self.batch = Batch()
        self.failure: ServiceError | None = None
        self.ends: dict[Partition, int] = {}
        self._state = state
        self._tables = settings.tables_by_topic()
        self._rejected_topic = settings.market_rejected_topic
        self._bounds = BatchLimits(
            settings.batch_max_rows, settings.batch_max_ms / 1000, settings.batch_linger_ms / 1000
        )
        self._began = 0.0
        self._caught_up = True
        self._paused = False
        self._hinted = 0.0
        name = settings.kafka_group_instance_id
        self._name_hint = f" (KAFKA_GROUP_INSTANCE_ID={name}: must be unique in the group)" if name else ""
        self.client = make_client(consumer_config(settings, self._client_error))

    @property
    def bounds(self) -> BatchLimits:
        """The limits of a batch."""
        return self._bounds

    def limit_rows(self, rows: int) -> None:
        """Set the maximum rows of a batch."""
        if rows != self._bounds.max_rows:
            self._bounds = replace(self._bounds, max_rows=rows)

    def fill(self, *, writer_idle: bool) -> BatchFill:
        """Return the state of the current batch."""
        return BatchFill(
            rows=len(self.batch.records),
            size_bytes=self.batch.size_bytes,
            age_seconds=time.monotonic() - self._began if self.batch.records else 0.0,
            caught_up=self._caught_up,
            writer_idle=writer_idle,
        )

    def read(self, fill: BatchFill) -> None:
        """Poll for records and add them to the batch.

        Raises:
            ServiceError: a rebalance callback has failed, or Kafka rejects the consumer.
        """
        self.resume()  # the wait that paused it has ended
        polled = 0
        if fill.rows == 0:
            # poll() returns at the first record, consume() would wait for a whole chunk.
            first = self.client.poll(
                IDLE_SECONDS if fill.writer_idle else wait_seconds(fill, self._bounds, IDLE_SECONDS)
            )
            if self.failure is not None:
                raise self.failure
            if first is None:
                self._caught_up = True
                return
            # Added to the batch before consume() is called: a rebalance callback in there removes the records of
            # revoked partitions from the batch, and would miss a record that is only in a local variable.
            self._take([first])
            polled = 1
        asked = min(CHUNK_ROWS, self._bounds.max_rows - fill.rows) - polled
        records = (
            self.client.consume(asked, wait_seconds(fill, self._bounds, IDLE_SECONDS)) if asked > 0 else []
        )
        self._caught_up = len(records) < asked
        self._take(records)

    def take_batch(self) -> Batch:
        """Return the current batch and begin a new one."""
        batch, self.batch = self.batch, Batch()
        return batch

    def drop(self, partitions: set[Partition]) -> None:
        """Remove the records of `partitions`, which their next owner reads."""
        self.batch = self.batch.without_partitions(partitions, self._tables)
        self.ends = {one: end for one, end in self.ends.items() if one not in partitions}

    def begin(self, positions: Mapping[Partition, int]) -> None:
        """Assign partitions to the client, to be read from `positions`."""
        self.client.incremental_assign(self._with_epochs(positions))
        self.client.resume(_at(positions))  # librdkafka keeps a partition paused after it was unassigned

    def rewind(self, positions: Mapping[Partition, int]) -> None:
        """Seek to `positions`, which are those of all owned partitions."""
        self.ends.clear()
        self.client.incremental_unassign(_at(positions))
        self.client.incremental_assign(self._with_epochs(positions))

    def _with_epochs(self, positions: Mapping[Partition, int]) -> list[TopicPartition]:
        """Return `positions` with their stored leader epochs, by which the client validates them (KIP-320)."""
        found = []
        for partition, offset in positions.items():
            owned = self._state.partitions.get(partition)
            known = owned is not None and owned.next_offset == offset
            epoch = owned.leader_epoch if owned is not None and known else -1
            found.append(TopicPartition(*partition, offset, leader_epoch=epoch))
        return found

    def keep_membership(self) -> None:
        """Pause all partitions and poll, to stay in the group beyond max.poll.interval.ms."""
        if not self._paused:
            self.client.pause(self.client.assignment())
            self._paused = True
        record = self.client.poll(0)
        if record is not None:
            self._take([record])

    def resume(self) -> None:
        """Resume the partitions after `keep_membership`."""
        if self._paused:
            self.client.resume(self.client.assignment())
            self._paused = False

    def hint(self, stored: dict[Partition, int], *, now: bool = False) -> None:
        """Once per second commit offsets to Kafka, for lag tools, and update the log end offsets.

        Args:
            stored: the stored offsets that are not committed to Kafka yet; cleared.
            now: commit even if less than a second has passed.
        """
        at = time.monotonic()
        if not now and at - self._hinted < _HINT_SECONDS:
            return
        self._hinted = at
        self._update_log_ends()
        offsets = _at(stored)
        stored.clear()
        if offsets:
            try:
                self.client.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                log.debug("Kafka commit failed", reason=error.args[0].str())

    def _update_log_ends(self) -> None:
        """Update the log end offsets from the client's fetch responses; without any, monitor.py requests them."""
        if self._state.kafka_error:
            return
        for (topic, number), owned in self._state.partitions.items():
            partition = TopicPartition(topic, number)
            _, high = self.client.get_watermark_offsets(partition, cached=True)
            if high > (owned.end_offset or 0):
                owned.end_offset = high

    def _take(self, records: Sequence[Record]) -> None:
        if self.failure is not None:
            raise self.failure
        good = [record for record in records if record.error() is None]
        if len(good) != len(records):
            for record in records:
                self._check(record)
        if good:
            if not self.batch.records:
                self._began = time.monotonic()
            self.batch.add(good, self._tables)

    def _check(self, record: Record) -> None:
        error = record.error()
        if error is None:
            return
        partition = (record.topic() or "", record.partition() or 0)
        if error.code() == KafkaError._PARTITION_EOF:
            self.ends[partition] = record.offset() or 0
            return
        if error.code() in LOG_LOST:
            owned = self._state.partitions.get(partition)
            if owned is None:
                return  # revoked meanwhile
            raise LogLost({partition: truncation_refusal(*partition, owned.next_offset, error.str())})
        if error.fatal() or error.code() in _FINAL:
            raise StartupError(f"Kafka rejects the consumer: {error.str()}{self._name_hint}")
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            if partition[0] == self._rejected_topic:
                return  # workers of an earlier version have no such topic
            self._state.unknown_topics.add(partition[0])  # repeated with each metadata refresh
            return
        log.warning("Kafka error", reason=error.str(), code=error.name())

    def _client_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._state.brokers_down_at = time.monotonic()
        # The client reconnects and reports each failed attempt; monitor.py logs when no broker responds.
        level = logging.DEBUG if error.code() in _CONNECTION else logging.WARNING
        log.log(level, "Kafka client error", reason=error.str(), code=error.name())


def _at(positions: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number, offset) for (topic, number), offset in positions.items()]
