"""consumer_offsets: how far each group has stored each partition, and who may go on; Kafka's own are only a hint.

`epoch` is raised by each consumer that is assigned the partition. A commit names the epoch and the offset it
goes on from: a consumer that was replaced, or one that lost count, finds no such row and writes nothing.
"""

from typing import Final

NAME: Final = "consumer_offsets"

CLAIM: Final = """
UPDATE consumer_offsets SET epoch = epoch + 1, owner = %s, updated_time_us = %s
WHERE consumer_group = %s AND topic = %s AND "partition" = %s
RETURNING epoch, next_offset, topic_id
"""

BEGIN: Final = """
INSERT INTO consumer_offsets (consumer_group, topic, "partition", topic_id, next_offset, epoch, owner,
    updated_time_us)
VALUES (%s, %s, %s, %s, %s, 1, %s, %s)
ON CONFLICT DO NOTHING
"""

IDENTIFY: Final = """
UPDATE consumer_offsets SET topic_id = %s
WHERE consumer_group = %s AND topic = %s AND "partition" = %s AND topic_id = ''
"""
"""Note the topic's id where the broker did not tell it when the partition was begun."""

ADVANCE: Final = """
UPDATE consumer_offsets AS o SET next_offset = n.next_offset, updated_time_us = %s
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    AS n (topic, number, epoch, expected_offset, next_offset)
WHERE o.consumer_group = %s AND o.topic = n.topic AND o."partition" = n.number AND o.epoch = n.epoch
    AND o.next_offset = n.expected_offset
"""
"""Compare and set; fewer rows than asked for means that a partition is not ours any more."""

READ: Final = """
SELECT topic, "partition", epoch, next_offset, owner FROM consumer_offsets
WHERE consumer_group = %s AND topic = ANY(%s)
"""
