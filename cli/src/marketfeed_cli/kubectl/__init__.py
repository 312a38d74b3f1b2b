"""kubectl plugin ``kubectl marketfeed``: status of feeds, and preview of a change. Read-only."""
