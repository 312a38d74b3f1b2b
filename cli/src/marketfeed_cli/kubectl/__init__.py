"""``kubectl marketfeed``: what feeds are doing, and what a changed one would do. Read-only."""
