"""The database: connections, differences between PostgreSQL and CockroachDB, schema, tables, migrations."""
