"""consumer_offsets: committed offsets and leases of each group; the offsets in Kafka are for lag tools only.

`epoch` is the ownership epoch, incremented by each consumer that acquires the partition's lease. A commit names the
epoch and the expected offset: a fenced consumer, or one with a wrong offset, finds no such row and writes nothing.

`leader_epoch` is the partition's leader epoch at `next_offset` (-1: unknown). By it Kafka detects that the log was
truncated below that offset, even if it has grown past it since. `refusal` is why consuming must not continue ("" if it
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
"""Set the topic id of a row that was inserted without one."""

REFUSE: Final = """
UPDATE consumer_offsets SET refusal = %s, updated_time_us = %s
WHERE consumer_group = %s AND topic = %s AND "partition" = %s AND epoch = %s AND refusal = ''
"""
"""Store a refusal; the first reason is kept. No effect if the partition has a newer owner."""

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
"""Compare and set; takes group, time and one array per column, returns a row for each partition that was advanced.

An owner of '' is a row that did not exist. Not an UPDATE: it would find its rows by an index scan, for which PostgreSQL
takes predicate locks on pages of many rows, so that consumers of different partitions cause serialization failures
(40001) for each other. INSERT … ON CONFLICT finds the row of its key without predicate locks.
"""

READ: Final = """
SELECT topic, "partition", epoch, next_offset, owner, refusal, leader_epoch FROM consumer_offsets
WHERE consumer_group = %s AND topic = ANY(%s)
"""
