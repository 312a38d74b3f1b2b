"""The loop's side of Kafka: records into the batch that is being filled, pauses, and where reading goes on."""

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
    KafkaError._FATAL,  # what a consumer is handed for it does not call itself fatal
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
"""How long one wait may take when there is nothing to do: also how long a stop signal may wait for its answer."""
_HINT_SECONDS: Final = 1.0


class Reader:
    """Fills a batch.

    Attributes:
        client: Kafka's; who changes what is assigned needs it.
        batch: what was read and not handed over yet.
        failure: what a rebalance callback ended in; the next reading raises it.
        ends: partition -> the offset at which it was read to its end, control records and aborted ones included.
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
        self._name_hint = (
            f" (KAFKA_GROUP_INSTANCE_ID={name}: no two processes may have the same)" if name else ""
        )
        self.client = make_client(consumer_config(settings, self._client_error))

    @property
    def bounds(self) -> BatchLimits:
        """How large and how old a batch may get."""
        return self._bounds

    def limit_rows(self, rows: int) -> None:
        """Let a batch hold `rows` at most from now on."""
        if rows != self._bounds.max_rows:
            self._bounds = replace(self._bounds, max_rows=rows)

    def fill(self, *, writer_idle: bool) -> BatchFill:
        """The batch as it stands."""
        return BatchFill(
            rows=len(self.batch.records),
            size_bytes=self.batch.size_bytes,
            age_seconds=time.monotonic() - self._began if self.batch.records else 0.0,
            caught_up=self._caught_up,
            writer_idle=writer_idle,
        )

    def read(self, fill: BatchFill) -> None:
        """Wait a little for records and take them.

        Raises:
            ServiceError: a rebalance callback has failed, or Kafka refuses us.
        """
        self.resume()  # whatever became of what we waited for
        polled = 0
        if fill.rows == 0:
            # Returns with the first record, where `consume` would wait for a whole chunk.
            first = self.client.poll(
                IDLE_SECONDS if fill.writer_idle else wait_seconds(fill, self._bounds, IDLE_SECONDS)
            )
            if self.failure is not None:
                raise self.failure
            if first is None:
                self._caught_up = True
                return
            # Into the batch before Kafka is asked again: a rebalance in `consume` takes from the batch what is no
            # longer ours or is to be read again, and would not know of a record that is only in our hand.
            self._take([first])
            polled = 1
        asked = min(CHUNK_ROWS, self._bounds.max_rows - fill.rows) - polled
        records = (
            self.client.consume(asked, wait_seconds(fill, self._bounds, IDLE_SECONDS)) if asked > 0 else []
        )
        self._caught_up = len(records) < asked
        self._take(records)

    def take_batch(self) -> Batch:
        """The batch, for the writer; a new one is begun."""
        batch, self.batch = self.batch, Batch()
        return batch

    def drop(self, partitions: set[Partition]) -> None:
        """Leave the records of `partitions` to their next owner."""
        self.batch = self.batch.without_partitions(partitions, self._tables)
        self.ends = {one: end for one, end in self.ends.items() if one not in partitions}

    def begin(self, positions: Mapping[Partition, int]) -> None:
        """Read partitions that have become ours, from `positions` on."""
        self.client.incremental_assign(self._with_epochs(positions))
        self.client.resume(_at(positions))  # the client keeps a pause beyond the assignment it was made in

    def rewind(self, positions: Mapping[Partition, int]) -> None:
        """Go back to `positions`, of all partitions that are ours."""
        self.ends.clear()
        self.client.incremental_unassign(_at(positions))
        self.client.incremental_assign(self._with_epochs(positions))

    def _with_epochs(self, positions: Mapping[Partition, int]) -> list[TopicPartition]:
        """`positions` with the leader epochs stored beside them, by which Kafka's client validates them."""
        found = []
        for partition, offset in positions.items():
            owned = self._state.partitions.get(partition)
            known = owned is not None and owned.next_offset == offset
            epoch = owned.leader_epoch if owned is not None and known else -1
            found.append(TopicPartition(*partition, offset, leader_epoch=epoch))
        return found

    def keep_membership(self) -> None:
        """Read nothing, but poll: otherwise the group would think us dead."""
        if not self._paused:
            self.client.pause(self.client.assignment())
            self._paused = True
        record = self.client.poll(0)
        if record is not None:
            self._take([record])

    def resume(self) -> None:
        """Read on after `keep_membership`."""
        if self._paused:
            self.client.resume(self.client.assignment())
            self._paused = False

    def hint(self, stored: dict[Partition, int], *, now: bool = False) -> None:
        """Once a second tell Kafka how far we are, for lag tools, and ask it where the ends are, for ours.

        Args:
            stored: the next offsets that Kafka was not told yet; emptied.
            now: do not wait for the second to pass.
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
        """How far the topics go, as the answers to our reading told; while nothing is read, `watch` asks."""
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
                return  # of an assignment that has ended
            raise LogLost({partition: truncation_refusal(*partition, owned.next_offset, error.str())})
        if error.fatal() or error.code() in _FINAL:
            raise StartupError(f"Kafka refuses: {error.str()}{self._name_hint}")
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            if partition[0] == self._rejected_topic:
                return  # workers of an earlier version have none
            self._state.unknown_topics.add(partition[0])  # comes again with each refresh of the metadata
            return
        log.warning("Kafka error", reason=error.str(), code=error.name())

    def _client_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._state.brokers_down_at = time.monotonic()
        # Connections that are lost are tried again, a line each time; that no broker responds is told by `watch`.
        level = logging.DEBUG if error.code() in _CONNECTION else logging.WARNING
        log.log(level, "Kafka client error", reason=error.str(), code=error.name())


def _at(positions: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number, offset) for (topic, number), offset in positions.items()]
