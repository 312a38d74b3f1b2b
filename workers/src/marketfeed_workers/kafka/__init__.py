"""Kafka: topics, producer, and the ledger of checkpoints and gaps."""
