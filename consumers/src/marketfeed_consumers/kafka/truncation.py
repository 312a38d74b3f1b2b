"""Whether Kafka's log is still the one that was read: asked of the broker by offset and leader epoch (KIP-320).

A log that was cut (unclean leader election, power loss, a restored disk) and has grown past our offset since looks like
any other. But the epoch under which our last record was written then ends before our offset, and librdkafka reports
that when it validates the position to fetch from. It does so when it learns who leads the partition, so a client that
knows that already, as a member of a group does, would not: therefore a client of its own, for a moment.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.kafka.leases import Lease, truncation_refusal

LOG_LOST: Final = (
    KafkaError._AUTO_OFFSET_RESET,  # what auto.offset.reset=error makes of it, whatever the cause
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._LOG_TRUNCATION,
)
"""What a consumer is handed when the log does not hold its position."""
_POLL_SECONDS: Final = 0.1
_MAX_EMPTY_POLLS: Final = 300
"""How many polls in a row may bring nothing; polls and not seconds, of which a process that is held has none."""


def find_truncated(
    config: dict[str, Any],
    leases: Sequence[Lease],
    stopping: Callable[[], bool],
    make_client: Callable[[dict[str, Any]], KafkaConsumer] = KafkaConsumer,
) -> dict[Partition, str]:
    """Partition -> why it must not be read on from its stored offset, of those whose log was cut below it.

    Args:
        config: of the group's consumer.
        leases: of those without a leader epoch nothing can be told, and those just begun (epoch 1) were never read.
        stopping: whether to give up; what was not validated is then taken for good.
        make_client: makes a Kafka consumer from librdkafka's properties.

    Raises:
        KafkaException: no answer.
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
