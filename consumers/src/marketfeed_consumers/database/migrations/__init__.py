"""The schema, forward only: one module a step under versions/, plain SQL, run by Alembic."""
