"""Alembic's entry point: runs the steps on the connection that schema.py passes in."""

from alembic import context

from marketfeed_consumers.database.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
