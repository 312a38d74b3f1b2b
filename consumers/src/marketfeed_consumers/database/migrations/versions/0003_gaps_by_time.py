"""When the trade before a gap was matched: where a later process looks for the missing ones by time.

NULL in rows of workers that did not tell it yet.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; no row is written for it."""
    op.execute("ALTER TABLE trade_gaps ADD COLUMN after_time_us bigint")
