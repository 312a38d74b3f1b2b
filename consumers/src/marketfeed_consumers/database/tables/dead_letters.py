"""dead_letters: poison messages, unchanged, and the reasons.

The key is the record's topic, partition and offset, and a hash of its content: after a truncation another record can
have the same offset. If a trade's identity can be decoded, the row has it: a rejected trade exists, whatever gap
records say of its id.
"""

from typing import Final

NAME: Final = "dead_letters"

ADD: Final = """
INSERT INTO dead_letters (topic, topic_id, "partition", kafka_offset, message_key, value, reason, stored_time_us,
    venue, symbol, id_series, trade_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
"""A second consumer group of the same topic has the same dead letters, which are stored once."""

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
"""Delete old dead letters; that of a trade that is not stored only once the trade has certainly expired."""

REJECTED: Final = """
SELECT venue, symbol, id_series, min(trade_id), max(trade_id), max(stored_time_us) FROM (
    SELECT venue, symbol, id_series, trade_id, stored_time_us,
        trade_id - dense_rank() OVER (PARTITION BY venue, symbol, id_series ORDER BY trade_id) AS island
    FROM dead_letters WHERE trade_id IS NOT NULL
        AND (%(venue)s::text IS NULL OR venue = %(venue)s) AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s)
) AS numbered
GROUP BY venue, symbol, id_series, island ORDER BY 1, 2, 3, 4
"""
"""Select the ranges of rejected trade ids, and when the newest of each was stored."""
