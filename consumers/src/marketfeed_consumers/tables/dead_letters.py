"""dead_letters: records that could not be stored, as they came, and why; the key is where the record stood."""

from typing import Final

NAME: Final = "dead_letters"

ADD: Final = """
INSERT INTO dead_letters (topic, topic_id, "partition", kafka_offset, message_key, value, reason, stored_time_us)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
"""A second consumer group that reads the same topic finds the same dead letters: one of them is enough."""
