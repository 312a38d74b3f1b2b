"""Ingestion: reads a venue's WebSocket streams, detects and backfills gaps in trade ids, publishes to Kafka.

Path of a frame: connection/transports (socket read) → stream/pipeline (hot path) → venues (frame to message) →
stream/reorder_buffer (order, gaps) → kafka/publisher (counted on acknowledgement). connection/connection has the only
reconnect loop; worker starts and drains everything.
"""
