"""Persistence: Kafka into PostgreSQL or CockroachDB, each message exactly once.

The way of a batch, one module a step::

    consumer.py ──▶ decode.py ──▶ plan.py ──────▶ writer.py ──▶ transaction.py ──▶ tables/
    poll        bytes to      new or seen?    one thread,    one SERIALIZABLE    SQL of
                messages      derived state   retries        transaction         each table

What may be written is decided before the transaction, by plain functions over what is known to be stored
(`stored_ranges.py`); the transaction proves by compare-and-set that this knowledge still held. See
docs/persistence.md.
"""

from importlib.metadata import version

__version__ = version("marketfeed-consumers")
