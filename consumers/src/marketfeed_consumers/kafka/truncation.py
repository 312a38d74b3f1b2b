"""Detection of log truncation by offset and leader epoch (KIP-320).

A log that was truncated (unclean leader election, power loss, a restored disk) and has since grown past the stored
offset looks valid. But the leader epoch of the last consumed record then ends below the stored offset, and librdkafka
reports that when it validates the fetch position. It validates only when it discovers the partition's leader, which
the group's client has already done: therefore a separate, short-lived client.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.kafka.leases import Lease, truncation_refusal

LOG_LOST: Final = (
    KafkaError._AUTO_OFFSET_RESET,  # with auto.offset.reset=error, for any cause
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._LOG_TRUNCATION,
)
"""Errors of a consumer whose position is not in the log."""
_POLL_SECONDS: Final = 0.1
_MAX_EMPTY_POLLS: Final = 300
"""Maximum number of empty polls in a row; polls and not seconds, so that a suspended process does not fail."""


def find_truncated(
    config: dict[str, Any],
    leases: Sequence[Lease],
    stopping: Callable[[], bool],
    make_client: Callable[[dict[str, Any]], KafkaConsumer] = KafkaConsumer,
) -> dict[Partition, str]:
    """Return partition -> refusal for the partitions whose log was truncated below the stored offset.

    Args:
        config: librdkafka's properties of the group's consumer.
        leases: the partitions; those without a leader epoch, or of epoch 1 (never consumed), are not checked.
        stopping: whether to give up; partitions not validated yet then count as valid.
        make_client: creates a Kafka consumer from librdkafka's properties.

    Raises:
        KafkaException: no response.
    """
    asked = {(one.topic, one.partition): one for one in leases if one.leader_epoch >= 0 and one.epoch > 1}
    if not asked:
        return {}
    small = {
        "enable.partition.eof": True,
        "queued.min.messages": 1,
        "fetch.message.max.bytes": 1024,
        "group.instance.id": "",
    }
    client = make_client({name: value for name, value in {**config, **small}.items() if value != ""})
    found: dict[Partition, str] = {}
    try:
        client.assign(
            [
                TopicPartition(*partition, one.next_offset, leader_epoch=one.leader_epoch)
                for partition, one in asked.items()
            ]
        )
        unknown, empty_polls = set(asked), 0
        while unknown and not stopping():
            record = client.poll(_POLL_SECONDS)
            if record is None:
                empty_polls += 1
                if empty_polls > _MAX_EMPTY_POLLS:
                    raise KafkaException(
                        KafkaError(
                            KafkaError._TIMED_OUT, "no response to the validation of the stored offsets"
                        )
                    )
                continue
            empty_polls = 0
            partition, error = (record.topic() or "", record.partition() or 0), record.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                unknown.discard(partition)
            elif error.code() in LOG_LOST:
                unknown.discard(partition)
                found[partition] = truncation_refusal(*partition, asked[partition].next_offset, error.str())
    finally:
        client.close()
    return found
