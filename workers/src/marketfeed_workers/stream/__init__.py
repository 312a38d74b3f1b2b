"""The hot path: frames to messages, deduplication, gaps and id series of each symbol."""
