"""What retention has deleted stands in a table of its own, by time; and dead letters name the trade that they were.

Until now a mark's `expired_below_id` said that all ids below it were deleted, also those that were never stored. It
stays for the rows that were deleted so: what is below it and older than the first row that was kept has expired.
"""

import time

from alembic import context, op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table, begin it with what was deleted before it was there, and add the columns of dead letters."""
    dialect = context.config.attributes["dialect"]
    name, hot = dialect.name_type, dialect.hot_row_storage
    op.execute(
        f"""
        CREATE TABLE retention_state (
            table_name {name} NOT NULL,
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            id_series int NOT NULL,
            limit_time_us bigint NOT NULL,
            expired_before_time_us bigint NOT NULL,
            deleted_rows bigint NOT NULL DEFAULT 0,
            impossible_rows bigint NOT NULL DEFAULT 0,
            started_time_us bigint NOT NULL,
            finished_time_us bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (table_name, venue, symbol, id_series)
        ) {hot}"""
    )
    now_us = time.time_ns() // 1000
    op.execute(
        f"""
        INSERT INTO retention_state (table_name, venue, symbol, id_series, limit_time_us, expired_before_time_us,
            started_time_us, finished_time_us)
        SELECT table_name, venue, symbol, id_series, least(first_time_us, {now_us}), least(first_time_us, {now_us}),
            0, 0
        FROM high_water_marks WHERE expired_below_id > 0"""  # noqa: S608 - a number
    )
    for column in (f"venue {name}", f"symbol {name}", "id_series int", "trade_id bigint"):
        op.execute(f"ALTER TABLE dead_letters ADD COLUMN {column}")
    op.execute(
        "CREATE INDEX dead_letters_trades ON dead_letters (venue, symbol, id_series, trade_id) "
        "WHERE trade_id IS NOT NULL"
    )
