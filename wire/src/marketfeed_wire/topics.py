"""Topic names, topic configuration and record keys.

The key of every market data record is its symbol, so that the messages of one symbol are ordered in one partition.
The two ledger topics are compacted and have other keys (see `ledger`).
"""

from typing import Final

TRADES: Final = "market.trades.raw"
BOOK_TICKER: Final = "market.book_ticker.raw"
PROGRESS: Final = "market.progress"
GAPS: Final = "market.gaps"
REJECTED: Final = "market.rejected.raw"

_ALWAYS: Final = {
    # The producer's record batches, unchanged: the broker's default may be smaller, or recompress them.
    "max.message.bytes": "1048588",
    "compression.type": "producer",
}
LEDGER_POLICY: Final = {
    **_ALWAYS,
    "cleanup.policy": "compact",
    # A worker reads the whole topic at start. Compaction skips the active segment, so segments are small.
    "segment.bytes": "67108864",
    "min.cleanable.dirty.ratio": "0.1",
}
"""Kafka topic configuration of the two ledger topics: the newest message of each key, without expiry."""


def market_data_policy(retention_hours: int) -> dict[str, str]:
    """Return the Kafka topic configuration of a topic of trades or quotes: every message, for `retention_hours`.

    Never compacted: the key is the symbol, and compaction would keep only the last trade of each symbol.
    """
    return {
        **_ALWAYS,
        "cleanup.policy": "delete",
        "retention.ms": str(retention_hours * 3_600_000),
        "retention.bytes": "-1",
    }


def key_for(symbol: str) -> bytes:
    """Return the record key of a message of `symbol`."""
    return symbol.encode()
