"""high_water_marks: the span of stored ids of each symbol and message table.

The key is (table_name, venue, symbol, id_series). A mark's version is compared and set by every transaction that
inserts rows of its symbol, so that two writers that planned on the same version cannot both commit.
"""

from typing import Final

NAME: Final = "high_water_marks"

LOAD: Final = """
SELECT m.table_name, m.venue, m.symbol, m.id_series, m.version, m.first_id, m.last_id, m.first_time_us, m.last_time_us,
    m.expired_below_id,
    coalesce(CASE m.table_name WHEN 'trades' THEN r.expired_before_time_us ELSE r.limit_time_us END, 0)
FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[]) AS asked (table_name, venue, symbol, id_series)
JOIN high_water_marks AS m USING (table_name, venue, symbol, id_series)
LEFT JOIN retention_state AS r USING (table_name, venue, symbol, id_series)
"""
"""The last column is `StoredRanges.expired_before_us`: for trades, which must not be inserted again, the highest limit
of all runs; for quotes, which may, that of the newest run.
"""

SET: Final = """
INSERT INTO high_water_marks AS held (table_name, venue, symbol, id_series, version, first_id, last_id, first_time_us,
    last_time_us, row_count)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::bigint[], %s::bigint[])
ON CONFLICT (table_name, venue, symbol, id_series) DO UPDATE SET
    version = excluded.version, first_id = excluded.first_id, last_id = excluded.last_id,
    first_time_us = excluded.first_time_us, last_time_us = excluded.last_time_us,
    row_count = held.row_count + excluded.row_count
WHERE held.version = excluded.version - 1
"""
"""Compare and set; takes one array per column, with the new `version` and the inserted rows as `row_count`.

Fewer affected rows mean that another transaction has changed a mark since it was read. Not an UPDATE, for the reason
given at consumer_offsets.ADVANCE.
"""
