"""Topic names and the key rule.

The key of every record is its symbol, so that one symbol's messages stand in one partition, in order.
"""

from typing import Final

TRADES: Final = "market.trades.raw"
BOOK_TICKER: Final = "market.book_ticker.raw"


def key_for(symbol: str) -> bytes:
    """The record key of a message about `symbol`."""
    return symbol.encode()
