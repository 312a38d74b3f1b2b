"""consumer_offsets: how far each group has stored each partition, and who may go on; Kafka's own are only a hint.

`epoch` is raised by each consumer that is assigned the partition. A commit names the epoch and the offset it
goes on from: a consumer that was replaced, or one that lost count, finds no such row and writes nothing.

`leader_epoch` is the partition's leader epoch at `next_offset` (-1: unknown). From it Kafka tells whether the log was
truncated below that offset, also when it has grown past it since. `refusal` says why reading must not go on ("" when it
may); it stays until reset-offsets, whatever the log looks like meanwhile.
"""

from typing import Final

NAME: Final = "consumer_offsets"

ACQUIRE: Final = """
UPDATE consumer_offsets SET epoch = epoch + 1, owner = %s, updated_time_us = %s
WHERE consumer_group = %s AND topic = %s AND "partition" = %s
RETURNING epoch, next_offset, topic_id, leader_epoch, refusal
"""

BEGIN: Final = """
INSERT INTO consumer_offsets (consumer_group, topic, "partition", topic_id, next_offset, leader_epoch, epoch, owner,
    updated_time_us)
VALUES (%s, %s, %s, %s, %s, %s, 1, %s, %s)
ON CONFLICT DO NOTHING
"""

IDENTIFY: Final = """
UPDATE consumer_offsets SET topic_id = %s
WHERE consumer_group = %s AND topic = %s AND "partition" = %s AND topic_id = ''
"""
"""Note the topic's id where the broker did not tell it when the partition was begun."""

REFUSE: Final = """
UPDATE consumer_offsets SET refusal = %s, updated_time_us = %s
WHERE consumer_group = %s AND topic = %s AND "partition" = %s AND epoch = %s AND refusal = ''
"""
"""Store why reading must not go on; the first reason stays. A newer owner of the partition judges by itself."""

ADVANCE: Final = """
INSERT INTO consumer_offsets AS held (consumer_group, topic, "partition", topic_id, previous_offset, next_offset,
    leader_epoch, epoch, owner, updated_time_us)
SELECT %s, n.topic, n.number, '', n.previous_offset, n.next_offset, n.leader_epoch, n.epoch, '', %s
FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::int[], %s::bigint[])
    AS n (topic, number, previous_offset, next_offset, leader_epoch, epoch)
ON CONFLICT (consumer_group, topic, "partition") DO UPDATE SET
    previous_offset = excluded.previous_offset, next_offset = excluded.next_offset,
    leader_epoch = excluded.leader_epoch, updated_time_us = excluded.updated_time_us
WHERE held.epoch = excluded.epoch AND held.next_offset = excluded.previous_offset
RETURNING owner
"""
"""Compare and set; takes group, time and an array a column, gives a row for each partition that stood where it should.

An owner of '' tells of a row that was not there at all. The form matters: an UPDATE finds its rows by reading an index,
PostgreSQL remembers that reading by pages of many rows, and consumers of different partitions then fail each other
(40001). INSERT … ON CONFLICT finds the one row of its key and leaves no such trace.
"""

READ: Final = """
SELECT topic, "partition", epoch, next_offset, owner, refusal, leader_epoch FROM consumer_offsets
WHERE consumer_group = %s AND topic = ANY(%s)
"""
