"""high_water_marks: what is stored of each symbol in each message table; the key is (table_name, venue, symbol).

A mark's version is compared and set by every transaction that adds rows of its symbol, so two writers that
planned on the same knowledge cannot both commit.
"""

from typing import Final

NAME: Final = "high_water_marks"

LOAD: Final = """
SELECT m.table_name, m.venue, m.symbol, m.version, m.first_id, m.last_id, m.first_time_us, m.last_time_us,
    m.expired_below_id
FROM unnest(%s::text[], %s::text[], %s::text[]) AS asked (table_name, venue, symbol)
JOIN high_water_marks AS m USING (table_name, venue, symbol)
"""

SET: Final = """
UPDATE high_water_marks AS m
SET version = m.version + 1, first_id = n.first_id, last_id = n.last_id, first_time_us = n.first_time_us,
    last_time_us = n.last_time_us, row_count = m.row_count + n.added
FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::bigint[])
    AS n (table_name, venue, symbol, version, first_id, last_id, first_time_us, last_time_us, added)
WHERE m.table_name = n.table_name AND m.venue = n.venue AND m.symbol = n.symbol AND m.version = n.version
"""
"""Compare and set; fewer rows than asked for means that somebody else has set one since it was read."""

CREATE: Final = """
INSERT INTO high_water_marks (table_name, venue, symbol, version, first_id, last_id, first_time_us, last_time_us,
    row_count)
SELECT n.table_name, n.venue, n.symbol, n.version + 1, n.first_id, n.last_id, n.first_time_us, n.last_time_us,
    n.added
FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::bigint[])
    AS n (table_name, venue, symbol, version, first_id, last_id, first_time_us, last_time_us, added)
ON CONFLICT DO NOTHING
"""
"""The same for symbols never seen before."""
