"""Kafka side: rebalances and leases, reading records into batches, decoding, checks of topics and log ends."""
