"""Persistence: Kafka into PostgreSQL or CockroachDB, each message exactly once.

The stages of a batch, one module each::

    consumer.py ──▶ decode.py ──▶ plan.py ──────▶ writer.py ──▶ transaction.py ──▶ tables/
    poll        bytes to      new or seen?    one thread,    one SERIALIZABLE    SQL of
                messages      derived state   retries        transaction         each table

Pure functions decide before the transaction which rows are new, from the stored ranges in memory (`stored_ranges.py`).
The transaction verifies by compare-and-set that those ranges are current. See docs/persistence.md.
"""

from importlib.metadata import version

__version__ = version("marketfeed-consumers")
