"""dead_letters: records that could not be stored, as they came, and why; the key is where the record stood, and a hash
of its content: after a truncation another record can stand there.

Where a trade's record can be read so far, the row names the trade: what was rejected was there, whatever else is said
of its id.
"""

from typing import Final

NAME: Final = "dead_letters"

ADD: Final = """
INSERT INTO dead_letters (topic, topic_id, "partition", kafka_offset, message_key, value, reason, stored_time_us,
    venue, symbol, id_series, trade_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
"""A second consumer group that reads the same topic finds the same dead letters: one of each is enough."""

EXPIRE: Final = """
DELETE FROM dead_letters WHERE (topic, topic_id, "partition", kafka_offset, content_hash) IN (
    SELECT d.topic, d.topic_id, d."partition", d.kafka_offset, d.content_hash FROM dead_letters AS d
    WHERE d.stored_time_us < %(before_us)s AND (d.trade_id IS NULL
        OR d.stored_time_us < (
            SELECT r.limit_time_us FROM retention_state AS r
            WHERE r.table_name = 'trades' AND r.venue = d.venue AND r.symbol = d.symbol AND r.id_series = d.id_series
        )
        OR EXISTS (
            SELECT 1 FROM high_water_marks AS m
            WHERE m.table_name = 'trades' AND m.venue = d.venue AND m.symbol = d.symbol AND m.id_series = d.id_series
                AND d.trade_id BETWEEN m.first_id AND m.last_id
        ) AND NOT EXISTS (
            SELECT 1 FROM missing_trades AS g
            WHERE g.venue = d.venue AND g.symbol = d.symbol AND g.id_series = d.id_series
                AND d.trade_id BETWEEN g.first_trade_id AND g.last_trade_id
        )
    )
    LIMIT %(limit)s
)
"""
"""Old ones; that of a trade which is not stored only once the trade itself, matched before that, is old for certain."""

REJECTED: Final = """
SELECT venue, symbol, id_series, min(trade_id), max(trade_id), max(stored_time_us) FROM (
    SELECT venue, symbol, id_series, trade_id, stored_time_us,
        trade_id - dense_rank() OVER (PARTITION BY venue, symbol, id_series ORDER BY trade_id) AS island
    FROM dead_letters WHERE trade_id IS NOT NULL
        AND (%(venue)s::text IS NULL OR venue = %(venue)s) AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s)
) AS numbered
GROUP BY venue, symbol, id_series, island ORDER BY 1, 2, 3, 4
"""
"""Ranges of trade ids whose messages were rejected, and when the newest of them was."""
