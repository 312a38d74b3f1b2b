"""Embedded infrastructure of a run: a Kafka broker and a PostgreSQL server."""
