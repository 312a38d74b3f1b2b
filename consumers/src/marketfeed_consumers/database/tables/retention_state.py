"""retention_state: the state of retention by table and symbol.

The key is (table_name, venue, symbol, id_series); a table that is not processed by symbol has one row with empty names.
Only retention writes it, so it conflicts with no writer. The limit is stored before the first older row is deleted: a
transaction that misses deleted rows sees the limit.
"""

from typing import Final

NAME: Final = "retention_state"

BEGIN: Final = """
INSERT INTO retention_state AS held (table_name, venue, symbol, id_series, limit_time_us, expired_before_time_us,
    impossible_rows, started_time_us)
VALUES (%(table)s, %(venue)s, %(symbol)s, %(id_series)s, %(before_us)s, %(before_us)s, 0, %(now_us)s)
ON CONFLICT (table_name, venue, symbol, id_series) DO UPDATE SET
    limit_time_us = excluded.limit_time_us,
    expired_before_time_us = greatest(held.expired_before_time_us, excluded.expired_before_time_us),
    impossible_rows = 0, started_time_us = excluded.started_time_us
"""
"""Executed before a run deletes rows."""

ADD: Final = """
UPDATE retention_state SET deleted_rows = deleted_rows + %(deleted)s, impossible_rows = impossible_rows + %(impossible)s
WHERE table_name = %(table)s AND venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
"""
"""Executed in the transaction that deletes rows."""

END: Final = """
UPDATE retention_state SET finished_time_us = %(now_us)s
WHERE table_name = %(table)s AND venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
"""
