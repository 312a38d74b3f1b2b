"""Taking over partitions: the ownership epoch, where reading goes on, and when it must not.

A claim raises the partition's epoch in the database. From then on a commit by the consumer that had it before
finds no row to advance, whatever Kafka told that consumer.

What Kafka's log looks like is true for a moment; that it was once cut below a stored offset stays true. So a refusal
is stored beside the offset, and every later claim finds it there until reset-offsets.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from marketfeed_consumers.database.tables import consumer_offsets
from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.planning.plan import Plan
from marketfeed_consumers.storage.transaction import Connection, Owner


class AssignedPartition(NamedTuple):
    """A partition that Kafka has assigned to us, as the broker knows it.

    Attributes:
        topic_id: "" where the broker does not tell.
        low, high: the first offset it still has, and the one after its last.
        leader_epoch: the current one, -1 where the broker does not tell.
    """

    topic: str
    partition: int
    topic_id: str
    low: int
    high: int
    leader_epoch: int = -1


class Lease(NamedTuple):
    """A partition that is ours in the database too: read on from `next_offset`, unless there is a `refusal`.

    `topic_id`, `leader_epoch` and `refusal` are as stored.
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
    connection: Connection, group: str, owner: str, assigned: Sequence[AssignedPartition], now_us: int
) -> list[Lease]:
    """Make the partitions ours; whether their offsets can be read on from is for the caller to see."""
    leases = [_acquire_lease(connection, group, owner, partition, now_us) for partition in assigned]
    connection.commit()
    return leases


def _acquire_lease(
    connection: Connection, group: str, owner: str, assigned: AssignedPartition, now_us: int
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
    connection: Connection, owner: Owner, reasons: Mapping[Partition, str], now_us: int
) -> None:
    """Store why partitions of ours must not be read on from their offsets."""
    for (topic, number), reason in reasons.items():
        connection.execute(
            consumer_offsets.REFUSE,
            [reason, now_us, owner.group, topic, number, owner.epochs[topic, number]],
        )
    connection.commit()


def refusal(assigned: AssignedPartition, next_offset: int, topic_id: str) -> str:
    """Why reading must not go on from a stored offset; "" when it may.

    Going on all the same would skip records or read other ones in their place, without anybody noticing.
    """
    where = f"{assigned.topic}[{assigned.partition}]"
    if topic_id and assigned.topic_id and topic_id != assigned.topic_id:
        return (
            f"topic {assigned.topic} was deleted and created again (its id was {topic_id} and is {assigned.topic_id}), "
            f"so the stored offset {next_offset} of {where} means nothing in it. "
            f"To read the new topic: {remedy_command(assigned.topic)}"
        )
    if next_offset > assigned.high:
        return (
            f"{where} ends at offset {assigned.high}, before the stored offset {next_offset}: the topic was created "
            f"again, or its broker has lost records. To read what is there now: {remedy_command(assigned.topic)}"
        )
    if next_offset < assigned.low:
        return (
            f"{where} begins at offset {assigned.low}: Kafka's retention has deleted {assigned.low - next_offset} "
            f"records from the stored offset {next_offset} on before they were read. "
            f"To go on without them: {remedy_command(assigned.topic)}"
        )
    return ""


def truncation_refusal(topic: str, partition: int, next_offset: int, reason: str) -> str:
    """The refusal of a partition whose log Kafka found to be cut below, or to lack, a position of ours."""
    return (
        f"{topic}[{partition}]: Kafka does not have the log any more that was read up to offset {next_offset} "
        f"({reason}). What is stored of it stays; records after the cut were lost or replaced. "
        f"To read what is there now: {remedy_command(topic)}"
    )


def remedy_command(topic: str) -> str:
    """The command that ends a refusal, and why it does no harm."""
    return (
        f"marketfeed-consumer reset-offsets --topic {topic} --to earliest: "
        "what is stored stays, and what is read twice changes nothing"
    )


def read_offsets(connection: Connection, group: str, topics: Sequence[str]) -> dict[Partition, StoredOffset]:
    """What is stored of the partitions of `topics`; the transaction is ended."""
    rows = connection.execute(consumer_offsets.READ, [group, list(topics)]).fetchall()
    connection.rollback()
    return {(topic, number): StoredOffset(*row) for topic, number, *row in rows}


def is_committed(connection: Connection, plan: Plan, owner: Owner) -> bool:
    """Whether the stored offsets are those that `plan` sets, under our epoch: then it is stored."""
    stored = read_offsets(connection, owner.group, [step.topic for step in plan.offset_advances])
    expected = {
        (step.topic, step.partition): (owner.epochs[step.topic, step.partition], step.next_offset)
        for step in plan.offset_advances
    }
    return all(key in stored and stored[key][:2] == offset for key, offset in expected.items())


def committed_positions(connection: Connection, plan: Plan, owner: Owner) -> dict[Partition, tuple[int, int]]:
    """Next offsets and leader epochs as stored, where they are ahead of `plan` under our own epoch; {} otherwise.

    Nobody else can have set them, so what comes before them is stored.
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


def fencing_reason(connection: Connection, plan: Plan, owner: Owner) -> str:
    """In words, which partitions of `plan` are not ours any more, and whose they are."""
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
            "the database has lost commits that it had acknowledged (a fail-over to a replica that was behind, or a "
            f"restored backup): {'; '.join(went_back)}. A restart goes on from what the database has: rows and "
            "offsets went back together"
        )
    return f"another consumer of group {owner.group} has taken over: {'; '.join(lost) or 'its offsets moved'}"
