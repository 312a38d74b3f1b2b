"""Topic names and the key rule.

The key of every market data record is its symbol, so that one symbol's messages stand in one partition, in order.
The two ledger topics are compacted and have keys of their own (see `ledger`).
"""

from typing import Final

TRADES: Final = "market.trades.raw"
BOOK_TICKER: Final = "market.book_ticker.raw"
PROGRESS: Final = "market.progress"
GAPS: Final = "market.gaps"
REJECTED: Final = "market.rejected.raw"

_ALWAYS: Final = {
    # Whole batches as the worker sends them: a broker's own default may be smaller, or compress once more.
    "max.message.bytes": "1048588",
    "compression.type": "producer",
}
LEDGER_POLICY: Final = {
    **_ALWAYS,
    "cleanup.policy": "compact",
    # Read whole at each start of a worker: compaction never touches the segment that is written, so it is kept small.
    "segment.bytes": "67108864",
    "min.cleanable.dirty.ratio": "0.1",
}
"""What the two ledger topics mean, as Kafka's topic configuration: the newest message of a key, for ever."""


def market_data_policy(retention_hours: int) -> dict[str, str]:
    """What a topic of trades or quotes means, as Kafka's topic configuration: every message, for `retention_hours`.

    Its messages have their symbol as their key: compacted it would keep the last trade of each symbol only.
    """
    return {
        **_ALWAYS,
        "cleanup.policy": "delete",
        "retention.ms": str(retention_hours * 3_600_000),
        "retention.bytes": "-1",
    }


def key_for(symbol: str) -> bytes:
    """The record key of a message about `symbol`."""
    return symbol.encode()
