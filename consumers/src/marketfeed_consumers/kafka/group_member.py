"""The member of the consumer group: partitions assigned, revoked and lost in rebalance callbacks.

Each callback ends without batches in flight: submitted batches are stored within the drain deadline, and records that
were only read are left to the next owner. While the database hangs:

    rebalance ─▶ _on_revoke ─▶ drain (DRAIN_DEADLINE_SECONDS) ─▶ give up: batches dropped, partitions unassigned
              ─▶ _on_assign ─▶ drain ─▶ acquire leases (_ACQUIRE_SECONDS) ─▶ StartupError, process ends
    another member ─▶ acquires the lease (epoch + 1) ─▶ a late COMMIT of ours finds no row to advance: Fenced
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from marketfeed_consumers.errors import Abandoned, LogLost
from marketfeed_consumers.kafka import admin_requests
from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.kafka.leases import AssignedPartition, Lease, refusal
from marketfeed_consumers.kafka.reader import Reader
from marketfeed_consumers.kafka.truncation import find_truncated
from marketfeed_consumers.kafka.waiting import Stop, WriterWait
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import PartitionState, State
from marketfeed_consumers.storage.pipeline import WritePipeline
from marketfeed_consumers.storage.transaction import Owner
from marketfeed_consumers.storage.writer import Writer
from marketfeed_service import logs
from marketfeed_service.errors import ServiceError, StartupError

log = logs.get(__name__)

_ACQUIRE_SECONDS: Final = 120.0
"""Less than kafka.MAX_POLL_INTERVAL_MS, within which Kafka waits for a rebalance callback."""

_REFUSAL_SECONDS: Final = 10.0
"""How long the process waits at its end for the database to store the refusals."""


class GroupMember:
    """A member of the consumer group that holds a lease in the database for each assigned partition."""

    def __init__(
        self,
        settings: ConsumerSettings,
        name: str,
        writer: Writer,
        state: State,
        reader: Reader,
        pipeline: WritePipeline,
        waiting: WriterWait,
        stop: Stop,
        admin: AdminClient,
        make_client: Callable[[dict[str, Any]], KafkaConsumer] = KafkaConsumer,
    ) -> None:
        self._settings = settings
        self._name = name
        self._writer = writer
        self._state = state
        self._reader = reader
        self._pipeline = pipeline
        self._waiting = waiting
        self._stop = stop
        self._admin = admin
        self._make_client = make_client

    def join(self) -> None:
        """Subscribe to the topics; assignments arrive in callbacks while the reader polls."""
        self._reader.client.subscribe(
            list(self._settings.topics()),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _on_assign(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._guarded(lambda: self._acquire(partitions))

    def _on_revoke(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._guarded(lambda: self._release(partitions, self._settings.drain_deadline_seconds))

    def _on_lost(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        # Another member may own them already: batches in flight are stored or fenced, both are safe.
        self._state.joined = False
        self._guarded(lambda: self._release(partitions, 0.0))

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a rebalance callback; an error in it is raised by the reader after the callback has returned."""
        try:
            action()
        except (ServiceError, KafkaException) as error:
            self._reader.failure = (
                error if isinstance(error, ServiceError) else StartupError(f"Kafka: {error.args[0].str()}")
            )

    def _acquire(self, partitions: Sequence[TopicPartition]) -> None:
        if not partitions:
            self._state.joined = True
            return
        self._pipeline.drain(self._settings.drain_deadline_seconds)
        try:
            leases = self._acquire_leases(partitions)
        except Abandoned:
            if self._stop.requested:
                # Without an explicit assignment the client would assign them itself and deliver records.
                self._reader.begin({})
                return
            raise StartupError(
                f"the leases of assigned partitions could not be acquired within {_ACQUIRE_SECONDS:.0f} s: "
                f"{self._writer.pause_reason or 'the database does not respond'}"
            ) from None
        for one in leases:
            self._state.partitions[one.topic, one.partition] = PartitionState(
                one.epoch, one.next_offset, leader_epoch=one.leader_epoch
            )
            log.info("partition assigned", topic=one.topic, partition=one.partition, offset=one.next_offset)
        self._reader.begin({(one.topic, one.partition): one.next_offset for one in leases})
        self._pipeline.reset()
        self._state.joined = True

    def _acquire_leases(self, partitions: Sequence[TopicPartition]) -> Sequence[Lease]:
        """Acquire the leases of the partitions and verify their offsets.

        Raises:
            LogLost: a stored offset is not valid in the log, or was not before; the refusal is stored.
        """
        ids = self._pipeline.topic_ids
        ids |= admin_requests.topic_ids(self._admin, sorted({one.topic for one in partitions}))
        assigned = admin_requests.describe_partitions(self._admin, partitions, ids)
        acquiring = self._writer.submit_acquire(self._settings.kafka_group, self._name, assigned)
        leases = self._waiting.wait_in_callback(acquiring, _ACQUIRE_SECONDS)
        if any(self._refusals(leases, assigned).values()):
            # The previous owner may have stored records beyond the log end offsets that were requested before the
            # leases were acquired. From now on it is fenced.
            assigned = admin_requests.describe_partitions(self._admin, partitions, ids)
        reasons = {key: reason for key, reason in self._refusals(leases, assigned).items() if reason}
        fit = [one for one in leases if (one.topic, one.partition) not in reasons]
        config = admin_requests.consumer_config(self._settings, lambda _: None)
        reasons |= find_truncated(config, fit, lambda: self._stop.requested, self._make_client)
        if reasons:
            self.store_refusals(reasons, {(one.topic, one.partition): one.epoch for one in leases})
            raise LogLost(reasons)
        return leases

    @staticmethod
    def _refusals(leases: Sequence[Lease], assigned: Sequence[AssignedPartition]) -> dict[Partition, str]:
        found = {(one.topic, one.partition): one for one in assigned}
        return {
            (one.topic, one.partition): one.refusal
            or refusal(found[one.topic, one.partition], one.next_offset, one.topic_id)
            for one in leases
        }

    def store_refusals(
        self, reasons: Mapping[Partition, str], epochs: Mapping[Partition, int] | None = None
    ) -> None:
        """Store the refusals of owned partitions; log a warning if the database does not respond."""
        if epochs is None:
            epochs = {key: owned.epoch for key, owned in self._state.partitions.items()}
        ours = {key: reason for key, reason in reasons.items() if key in epochs}
        owner = Owner(self._settings.kafka_group, epochs, self._pipeline.topic_ids)
        try:
            self._waiting.wait_in_callback(self._writer.submit_refusals(owner, ours), _REFUSAL_SECONDS)
        except Abandoned:
            log.warning(
                "refusal not stored", reason=self._writer.pause_reason or "the database does not respond"
            )

    def _release(self, partitions: list[TopicPartition], seconds: float) -> None:
        self._pipeline.drain(seconds)
        gone = {(one.topic, one.partition) for one in partitions}
        for partition in gone:
            self._state.partitions.pop(partition, None)
            self._pipeline.hints.pop(partition, None)
            log.info("partition revoked", topic=partition[0], partition=partition[1])
        self._reader.drop(gone)
        self._reader.client.incremental_unassign(partitions)
        self._pipeline.reset()
