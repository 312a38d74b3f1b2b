"""Topic names and the key rule.

The key of every market data record is its symbol, so that one symbol's messages stand in one partition, in order.
The two ledger topics are compacted and have keys of their own (see `ledger`).
"""

from typing import Final

TRADES: Final = "market.trades.raw"
BOOK_TICKER: Final = "market.book_ticker.raw"
PROGRESS: Final = "market.progress"
GAPS: Final = "market.gaps"


def key_for(symbol: str) -> bytes:
    """The record key of a message about `symbol`."""
    return symbol.encode()
