"""Leases of partitions: ownership epochs, stored offsets, and refusals to consume from them.

To acquire a lease increments the partition's ownership epoch in the database. From then on a commit of the previous
owner is fenced: it finds no row to advance, whatever assignment that consumer has in Kafka.

The bounds of Kafka's log change, but a log that was once truncated below a stored offset stays invalid for it. So a
refusal is stored beside the offset, and every later lease has it until reset-offsets.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.tables import consumer_offsets
from marketfeed_consumers.errors import AlreadyCommitted, Fenced
from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.planning.plan import Plan
from marketfeed_consumers.storage.transaction import Owner


class AssignedPartition(NamedTuple):
    """A partition that Kafka has assigned to this consumer, with the broker's metadata.

    Attributes:
        topic_id: "" if the broker has no topic ids.
        low, high: the log start offset and the log end offset.
        leader_epoch: the current leader epoch; -1 if unknown.
    """

    topic: str
    partition: int
    topic_id: str
    low: int
    high: int
    leader_epoch: int = -1


class Lease(NamedTuple):
    """The lease of a partition in the database: consumed from `next_offset`, unless there is a `refusal`.

    `topic_id`, `leader_epoch` and `refusal` are the stored values.
    """

    topic: str
    partition: int
    epoch: int
    next_offset: int
    topic_id: str = ""
    leader_epoch: int = -1
    refusal: str = ""


class StoredOffset(NamedTuple):
    """A row of consumer_offsets."""

    epoch: int
    next_offset: int
    owner: str
    refusal: str
    leader_epoch: int


def acquire_leases(
    connection: DatabaseConnection, group: str, owner: str, assigned: Sequence[AssignedPartition], now_us: int
) -> list[Lease]:
    """Acquire the leases of `assigned` and commit; the caller checks whether their offsets are valid.

    Args:
        connection: the database.
        group: the consumer group.
        owner: name of this consumer.
        assigned: the partitions.
        now_us: the current time.
    """
    leases = [_acquire_lease(connection, group, owner, partition, now_us) for partition in assigned]
    connection.commit()
    return leases


def _acquire_lease(
    connection: DatabaseConnection, group: str, owner: str, assigned: AssignedPartition, now_us: int
) -> Lease:
    where = [group, assigned.topic, assigned.partition]
    row = connection.execute(consumer_offsets.ACQUIRE, [owner, now_us, *where]).fetchone()
    if row is None:
        connection.execute(
            consumer_offsets.BEGIN,
            [*where, assigned.topic_id, assigned.low, assigned.leader_epoch, owner, now_us],
        )
        return Lease(
            assigned.topic, assigned.partition, 1, assigned.low, assigned.topic_id, assigned.leader_epoch
        )
    lease = Lease(assigned.topic, assigned.partition, *row)
    if assigned.topic_id and not lease.topic_id:
        connection.execute(consumer_offsets.IDENTIFY, [assigned.topic_id, *where])
    return lease


def store_refusals(
    connection: DatabaseConnection, owner: Owner, reasons: Mapping[Partition, str], now_us: int
) -> None:
    """Store why owned partitions must not be consumed from their offsets, and commit.

    Args:
        connection: the database.
        owner: the owner of the leases.
        reasons: partition -> refusal.
        now_us: the current time.
    """
    for (topic, number), reason in reasons.items():
        connection.execute(
            consumer_offsets.REFUSE,
            [reason, now_us, owner.group, topic, number, owner.epochs[topic, number]],
        )
    connection.commit()


def refusal(assigned: AssignedPartition, next_offset: int, topic_id: str) -> str:
    """Return why a partition must not be consumed from a stored offset; "" if it may.

    Consuming anyway would silently skip records or read other records in their place.

    Args:
        assigned: the partition with the broker's metadata.
        next_offset: the stored offset.
        topic_id: the stored topic id; "" if unknown.
    """
    where = f"{assigned.topic}[{assigned.partition}]"
    if topic_id and assigned.topic_id and topic_id != assigned.topic_id:
        return (
            f"topic {assigned.topic} was deleted and created again (its id was {topic_id} and is {assigned.topic_id}), "
            f"so the stored offset {next_offset} of {where} is not valid in it. "
            f"To read the new topic: {remedy_command(assigned.topic)}"
        )
    if next_offset > assigned.high:
        return (
            f"{where} has the log end offset {assigned.high}, below the stored offset {next_offset}: the topic was "
            f"created again, or its broker has lost records. "
            f"To read the existing records: {remedy_command(assigned.topic)}"
        )
    if next_offset < assigned.low:
        return (
            f"{where} has the log start offset {assigned.low}: retention has deleted {assigned.low - next_offset} "
            f"records from the stored offset {next_offset} on before they were consumed. "
            f"To continue without them: {remedy_command(assigned.topic)}"
        )
    return ""


def truncation_refusal(topic: str, partition: int, next_offset: int, reason: str) -> str:
    """Return the refusal of a partition whose log was truncated below the stored offset.

    Args:
        topic, partition: the partition.
        next_offset: the stored offset.
        reason: Kafka's error.
    """
    return (
        f"{topic}[{partition}]: the log that was consumed up to offset {next_offset} was truncated "
        f"({reason}). Stored rows stay; records after the truncation were lost or replaced. "
        f"To read the existing records: {remedy_command(topic)}"
    )


def remedy_command(topic: str) -> str:
    """Return the command that clears a refusal, and its effect."""
    return (
        f"marketfeed-consumer reset-offsets --topic {topic} --to earliest: "
        "stored rows stay, and duplicates are skipped"
    )


def read_offsets(
    connection: DatabaseConnection, group: str, topics: Sequence[str]
) -> dict[Partition, StoredOffset]:
    """Return the stored offsets of the partitions of `topics`; ends the transaction.

    Args:
        connection: the database.
        group: the consumer group.
        topics: the topics.
    """
    rows = connection.execute(consumer_offsets.READ, [group, list(topics)]).fetchall()
    connection.rollback()
    return {(topic, number): StoredOffset(*row) for topic, number, *row in rows}


def is_committed(connection: DatabaseConnection, plan: Plan, owner: Owner) -> bool:
    """Return whether `plan` is committed: the stored offsets are those that it sets, under our epoch."""
    stored = read_offsets(connection, owner.group, [step.topic for step in plan.offset_advances])
    expected = {
        (step.topic, step.partition): (owner.epochs[step.topic, step.partition], step.next_offset)
        for step in plan.offset_advances
    }
    return all(key in stored and stored[key][:2] == offset for key, offset in expected.items())


def committed_positions(
    connection: DatabaseConnection, plan: Plan, owner: Owner
) -> dict[Partition, tuple[int, int]]:
    """Return the stored next offsets and leader epochs if they are ahead of `plan` under our epoch; else {}.

    No other consumer can have set them under our epoch, so all records before them are stored.
    """
    stored = read_offsets(connection, owner.group, [step.topic for step in plan.offset_advances])
    found = {}
    for step in plan.offset_advances:
        key = (step.topic, step.partition)
        row = stored.get(key)
        if row is None or row.epoch != owner.epochs[key] or row.next_offset < step.expected_offset:
            return {}
        found[key] = (row.next_offset, row.leader_epoch)
    return found


def fencing_reason(connection: DatabaseConnection, plan: Plan, owner: Owner) -> str:
    """Return a text with the partitions of `plan` that were lost, and their new owners."""
    stored = read_offsets(connection, owner.group, [step.topic for step in plan.offset_advances])
    lost, went_back = [], []
    for step in plan.offset_advances:
        key = (step.topic, step.partition)
        ours = (owner.epochs[key], step.expected_offset)
        found = stored.get(key)
        if found is None:
            went_back.append(f"{step.topic}[{step.partition}] has no row, and was at {ours[1]}")
        elif found[:2] < ours:
            went_back.append(
                f"{step.topic}[{step.partition}] is at offset {found.next_offset} under epoch {found.epoch}, "
                f"and was at {ours[1]} under our epoch {ours[0]}"
            )
        elif found[:2] != ours:
            lost.append(
                f"{step.topic}[{step.partition}] is at offset {found.next_offset} under epoch {found.epoch} "
                f"of {found.owner}, not at {ours[1]} under our epoch {ours[0]}"
            )
    if went_back and not lost:
        return (
            "the database has lost acknowledged commits (a fail-over to a replica with lag, or a restored backup): "
            f"{'; '.join(went_back)}. A restart continues from the database's state: rows and offsets are consistent"
        )
    return (
        f"fenced by another consumer of group {owner.group}: {'; '.join(lost) or 'its offsets have advanced'}"
    )


def conflict_error(connection: DatabaseConnection, plan: Plan, owner: Owner) -> AlreadyCommitted | Fenced:
    """Return the error of an offset conflict: `plan` is committed already, or another consumer owns a partition.

    Args:
        connection: the database, in no transaction.
        plan: the plan whose transaction was rolled back.
        owner: the owner of the leases.
    """
    positions = committed_positions(connection, plan, owner)
    return AlreadyCommitted(positions) if positions else Fenced(fencing_reason(connection, plan, owner))
