"""Retention on CockroachDB: the database itself deletes old rows."""

from typing import Final

from marketfeed_consumers.admin.retention import COLUMNS
from marketfeed_consumers.database.tables import dead_letters, quote_conflicts, trade_conflicts
from marketfeed_consumers.planning.plausible_times import EARLIEST_US

_TTL_TIMES: Final = {
    **{name: (time, time) for name, (_, time) in COLUMNS.items()},
    dead_letters.NAME: ("stored_time_us", "stored_time_us"),
    trade_conflicts.NAME: (trade_conflicts.OLDEST, trade_conflicts.NEWEST),
    quote_conflicts.NAME: (quote_conflicts.OLDEST, quote_conflicts.NEWEST),
}
"""Table -> the time that must be plausible, and the time from which the days are counted."""


def row_level_ttl(table: str, days: int) -> str:
    """Return the statement that makes CockroachDB delete rows older than `days`.

    https://www.cockroachlabs.com/docs/stable/row-level-ttl: `ttl_expiration_expression` returns when a row expires; for
    an impossible time it is NULL, and the row is kept. The default rate limit of 100 rows per second and node is too
    low for a busy feed; it is disabled, as the cluster's admission control gives deletes a low priority.
    """
    oldest, newest = _TTL_TIMES[table]
    expires = (
        f"CASE WHEN {oldest} >= {EARLIEST_US} THEN "
        f"(timestamptz ''epoch'' + {newest} * interval ''1 microsecond'') + interval ''{days} days'' END"
    )
    return (
        f"ALTER TABLE {table} SET (ttl_expiration_expression = '{expires}', ttl_job_cron = '@hourly', "
        "ttl_delete_rate_limit = 0)"
    )
