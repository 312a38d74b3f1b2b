"""Writing: the thread of the database, its transaction, retries, and the quarantine of poison messages."""
