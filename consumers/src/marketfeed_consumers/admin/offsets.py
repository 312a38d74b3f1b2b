"""Reset of stored offsets, for partitions whose offsets are refused (see leases.py)."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.kafka import admin_requests
from marketfeed_consumers.kafka.leases import read_offsets
from marketfeed_service.errors import SettingsError

_SET: Final = """
INSERT INTO consumer_offsets (consumer_group, topic, "partition", topic_id, next_offset, leader_epoch, epoch, owner,
    updated_time_us)
VALUES (%s, %s, %s, %s, %s, %s, 1, 'reset-offsets', %s)
ON CONFLICT (consumer_group, topic, "partition") DO UPDATE SET
    topic_id = excluded.topic_id, next_offset = excluded.next_offset, leader_epoch = excluded.leader_epoch,
    epoch = consumer_offsets.epoch + 1, owner = excluded.owner, refusal = '', updated_time_us = excluded.updated_time_us
"""


class Moved(NamedTuple):
    """A partition whose stored offset was reset.

    Attributes:
        before: the previous offset; None without one.
        refusal: the refusal that was cleared; "" without one.
    """

    topic: str
    partition: int
    before: int | None
    after: int
    refusal: str = ""


def reset(
    connection: DatabaseConnection,
    admin: AdminClient,
    group: str,
    topic: str,
    to: str,
    partition: int | None,
    now_us: int,
) -> list[Moved]:
    """Reset the stored offsets of `topic`; a running consumer of its partitions is fenced.

    Args:
        connection: the database.
        admin: Kafka's admin client.
        group: the consumer group.
        topic: the topic.
        to: "earliest", "latest" or an offset.
        partition: the partition; None for all.
        now_us: the current time.

    Raises:
        SettingsError: `to` or `partition` is not in the topic.
        StartupError: Kafka does not respond, or the topic cannot be described.
    """
    bounds = _bounds(admin, topic)
    if partition is not None:
        if partition not in bounds:
            raise SettingsError(
                f"--partition {partition}: {topic} has the partitions {_listed(sorted(bounds))}"
            )
        bounds = {partition: bounds[partition]}
    targets = {number: target(to, topic, number, ends.low, ends.high) for number, ends in bounds.items()}
    topic_id = admin_requests.topic_ids(admin, [topic])[topic]
    before = read_offsets(connection, group, [topic])
    for number, offset in targets.items():
        connection.execute(
            _SET, [group, topic, number, topic_id, offset, bounds[number].leader_epoch, now_us]
        )
    connection.commit()
    moved = []
    for number, offset in sorted(targets.items()):
        was = before.get((topic, number))
        moved.append(
            Moved(topic, number, was.next_offset if was else None, offset, was.refusal if was else "")
        )
    return moved


def target(to: str, topic: str, partition: int, low: int, high: int) -> int:
    """Return the offset of `to` in a partition with the offsets `low` up to, but not including, `high`.

    Args:
        to: "earliest", "latest" or an offset.
        topic, partition: names for the error text.
        low, high: log start offset and log end offset.

    Raises:
        SettingsError: `to` is not a valid offset of the partition.
    """
    if to in ("earliest", "latest"):
        return low if to == "earliest" else high
    if to.isascii() and to.isdigit() and low <= int(to) <= high:
        return int(to)
    raise SettingsError(
        f"--to {to}: must be earliest, latest, or an offset that {topic}[{partition}] has: {low} to {high}"
    )


def _bounds(admin: AdminClient, topic: str) -> Mapping[int, admin_requests.OffsetRange]:
    try:
        metadata = admin.list_topics(topic, timeout=10).topics[topic]
        if metadata.error is not None:
            raise admin_requests.unavailable("offsets", topic, metadata.error)
        found = admin_requests.bounds(admin, [(topic, number) for number in metadata.partitions])
    except KafkaException as error:
        raise admin_requests.unavailable("offsets", topic, error.args[0]) from None
    return {number: found[topic, number] for _, number in found}


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
