"""Taking over partitions: the ownership epoch, where reading goes on, and when it must not.

A claim raises the partition's epoch in the database. From then on a commit by the consumer that had it before
finds no row to advance, whatever Kafka told that consumer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from marketfeed_chassis.errors import StartupError
from marketfeed_consumers.plan import Plan
from marketfeed_consumers.tables import consumer_offsets
from marketfeed_consumers.transaction import Connection, Owner


class Wanted(NamedTuple):
    """A partition that Kafka has assigned to us, as the broker knows it.

    Attributes:
        topic_id: "" where the broker does not tell.
        low, high: the first offset it still has, and the one after its last.
    """

    topic: str
    partition: int
    topic_id: str
    low: int
    high: int


class Claimed(NamedTuple):
    """A partition that is ours in the database too: read on from `next_offset`."""

    topic: str
    partition: int
    epoch: int
    next_offset: int


def claim(
    connection: Connection, group: str, owner: str, wanted: Sequence[Wanted], now_us: int
) -> list[Claimed]:
    """Make the partitions ours.

    Raises:
        StartupError: a stored offset means nothing in the topic as it is now.
    """
    claimed = [_claim_one(connection, group, owner, partition, now_us) for partition in wanted]
    connection.commit()
    return claimed


def _claim_one(connection: Connection, group: str, owner: str, wanted: Wanted, now_us: int) -> Claimed:
    where = [group, wanted.topic, wanted.partition]
    row = connection.execute(consumer_offsets.CLAIM, [owner, now_us, *where]).fetchone()
    if row is None:
        connection.execute(consumer_offsets.BEGIN, [*where, wanted.topic_id, wanted.low, owner, now_us])
        return Claimed(wanted.topic, wanted.partition, 1, wanted.low)
    epoch, next_offset, topic_id = row
    reason = refusal(wanted, next_offset, topic_id)
    if reason:
        raise StartupError(reason)
    if wanted.topic_id and not topic_id:
        connection.execute(consumer_offsets.IDENTIFY, [wanted.topic_id, *where])
    return Claimed(wanted.topic, wanted.partition, epoch, next_offset)


def refusal(wanted: Wanted, next_offset: int, topic_id: str) -> str:
    """Why reading must not go on from a stored offset; "" when it may.

    Going on all the same would skip records or read other ones in their place, without anybody noticing.
    """
    where = f"{wanted.topic}[{wanted.partition}]"
    way_out = (
        f"marketfeed-consumer reset-offsets --topic {wanted.topic} --to earliest: "
        "what is stored stays, and what is read twice changes nothing"
    )
    if topic_id and wanted.topic_id and topic_id != wanted.topic_id:
        return (
            f"topic {wanted.topic} was deleted and created again (its id was {topic_id} and is {wanted.topic_id}), "
            f"so the stored offset {next_offset} of {where} means nothing in it. To read the new topic: {way_out}"
        )
    if next_offset > wanted.high:
        return (
            f"{where} ends at offset {wanted.high}, before the stored offset {next_offset}: the topic was created "
            f"again, or its broker has lost records. To read what is there now: {way_out}"
        )
    if next_offset < wanted.low:
        return (
            f"{where} begins at offset {wanted.low}: Kafka's retention has deleted {wanted.low - next_offset} "
            f"records from the stored offset {next_offset} on before they were read. To go on without them: {way_out}"
        )
    return ""


def read_offsets(connection: Connection, group: str, topics: Sequence[str]) -> dict[tuple[str, int], Any]:
    """(topic, partition) -> (epoch, next offset, owner), as stored; the transaction is ended."""
    rows = connection.execute(consumer_offsets.READ, [group, list(topics)]).fetchall()
    connection.rollback()
    return {(topic, number): (epoch, offset, owner) for topic, number, epoch, offset, owner in rows}


def stands_after(connection: Connection, plan: Plan, owner: Owner) -> bool:
    """Whether the stored offsets are those that `plan` sets, under our epoch: then it is stored."""
    stored = read_offsets(connection, owner.group, [step.topic for step in plan.steps])
    return all(
        stored.get((topic, number), (None, None))[:2] == (owner.epochs[topic, number], next_offset)
        for topic, number, _, next_offset in plan.steps
    )


def fenced(connection: Connection, plan: Plan, owner: Owner) -> str:
    """In words, which partitions of `plan` are not ours any more, and whose they are."""
    stored = read_offsets(connection, owner.group, [step.topic for step in plan.steps])
    lost = []
    for topic, number, expected, _ in plan.steps:
        epoch, offset, name = stored.get((topic, number), (None, None, "nobody"))
        if (epoch, offset) != (owner.epochs[topic, number], expected):
            lost.append(
                f"{topic}[{number}] is at offset {offset} under epoch {epoch} of {name}, "
                f"not at {expected} under our epoch {owner.epochs[topic, number]}"
            )
    return f"another consumer of group {owner.group} has taken over: {'; '.join(lost) or 'its offsets moved'}"
