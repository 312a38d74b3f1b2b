"""What a stored offset is validated by, and why reading must not go on from it.

A process of the release before goes on writing: for it both columns have their defaults.
"""

from alembic import op

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; no row is written for them."""
    op.execute("ALTER TABLE consumer_offsets ADD COLUMN leader_epoch int NOT NULL DEFAULT -1")
    op.execute("ALTER TABLE consumer_offsets ADD COLUMN refusal text NOT NULL DEFAULT ''")
