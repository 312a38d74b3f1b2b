"""The schema's migrations, forward only: one module per step under versions/, plain SQL, run by Alembic."""
