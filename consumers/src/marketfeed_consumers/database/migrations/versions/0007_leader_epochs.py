"""Leader epochs that validate stored offsets, and refusals to consume from them.

Processes of the previous release keep writing: both columns have defaults.
"""

from alembic import op

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; no row is written for them."""
    op.execute("ALTER TABLE consumer_offsets ADD COLUMN leader_epoch int NOT NULL DEFAULT -1")
    op.execute("ALTER TABLE consumer_offsets ADD COLUMN refusal text NOT NULL DEFAULT ''")
