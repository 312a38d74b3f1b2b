"""Ingestion: reads a venue's WebSocket streams, accounts for every trade id, publishes to Kafka.

The way of a frame, module by module: transports/ (bytes of one socket read) → pipeline (the hot path) →
venues/ (frame to message) → continuity (is a trade id missing?) → publisher (Kafka, counted on acknowledgement).
connection.py holds the only reconnect loop; worker.py starts, watches and drains it all.
"""
