"""Time of the trade before a gap, for a later backfill by time.

NULL in rows of workers of earlier versions.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; no row is written for it."""
    op.execute("ALTER TABLE trade_gaps ADD COLUMN after_time_us bigint")
