"""A dead letter's key ends in a hash of its content: after a truncation another record can have the same offset.

The hash is a generated column, so existing rows have one, and processes of the previous release keep writing. The table
is rewritten, as it has few rows.
"""

from typing import Final

from alembic import context, op

revision = "0008"
down_revision = "0007"

_HASH: Final = {"postgresql": "encode(sha256({}), 'hex')", "cockroachdb": "sha256({})"}
"""Dialect -> a hash as text. A record without a key or a value has "-" for it: that is not the same as an empty one."""


def upgrade() -> None:
    """Add the column, and change the key in one statement, see 0004."""
    sha256 = _HASH[context.config.attributes["dialect"].name]
    content = " || ".join(f"coalesce({sha256.format(column)}, '-')" for column in ("message_key", "value"))
    op.execute(
        f"ALTER TABLE dead_letters ADD COLUMN content_hash text NOT NULL GENERATED ALWAYS AS ({content}) STORED"
    )
    op.execute(
        "ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_pkey, ADD CONSTRAINT dead_letters_pkey "
        'PRIMARY KEY (topic, topic_id, "partition", kafka_offset, content_hash)'
    )
