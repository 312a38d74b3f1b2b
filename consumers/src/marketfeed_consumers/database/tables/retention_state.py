"""retention_state: what retention has done to each symbol's rows of a table; the key is (table_name, venue, symbol,
id_series), and of a table that is not divided by symbols one row with empty names.

Retention alone writes it, so it meets no writer there. A limit stands here before the first row older than it is
deleted: whoever sees in a transaction that rows are gone sees why.
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
"""Before a run deletes anything."""

ADD: Final = """
UPDATE retention_state SET deleted_rows = deleted_rows + %(deleted)s, impossible_rows = impossible_rows + %(impossible)s
WHERE table_name = %(table)s AND venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
"""
"""In the transaction that deletes."""

END: Final = """
UPDATE retention_state SET finished_time_us = %(now_us)s
WHERE table_name = %(table)s AND venue = %(venue)s AND symbol = %(symbol)s AND id_series = %(id_series)s
"""
