"""Cache of the newest trades, to compare the content of duplicates.

Reads are kept as lists and indexed only for a lookup: a trade without a duplicate costs nothing.
"""

from collections import deque
from typing import Final

from marketfeed_wire import Trade

MAX_TRADES: Final = 10_000
"""Maximum number of trades of all symbols: about 4 MB, and seconds of a venue's whole market, while overlapping
connections are milliseconds apart. More would not fit the processor's cache and slow down every trade."""


class RecentTrades:
    """Cache of the newest reads."""

    def __init__(self, max_trades: int = MAX_TRADES) -> None:
        self._max_trades = max_trades
        self._held = 0
        self._reads: deque[list[Trade]] = deque()
        self._indexed = 0  # number of indexed reads, from the oldest on
        self._index: dict[tuple[str, int], Trade] = {}

    def add(self, trades: list[Trade]) -> None:
        """Add the trades of one read; the list must not be changed any more."""
        self._reads.append(trades)
        self._held += len(trades)
        while self._held > self._max_trades and len(self._reads) > 1:
            oldest = self._reads.popleft()
            self._held -= len(oldest)
            if self._indexed:
                self._indexed -= 1
                for trade in oldest:
                    if self._index.get((trade.symbol, trade.trade_id)) is trade:
                        del self._index[trade.symbol, trade.trade_id]

    def find(self, symbol: str, trade_id: int) -> Trade | None:
        """Return the first cached trade with this id; None without one."""
        while self._indexed < len(self._reads):
            for trade in self._reads[self._indexed]:
                self._index.setdefault((trade.symbol, trade.trade_id), trade)
            self._indexed += 1
        return self._index.get((symbol, trade_id))

    def discard(self, trades: list[Trade]) -> None:
        """Remove rejected trades of the newest read."""
        numbers = {id(trade) for trade in trades}
        kept = [trade for trade in self._reads[-1] if id(trade) not in numbers]
        self._held -= len(self._reads[-1]) - len(kept)
        self._reads[-1] = kept
        for trade in trades:
            if self._index.get((trade.symbol, trade.trade_id)) is trade:
                del self._index[trade.symbol, trade.trade_id]

    def restart_symbol(self, symbol: str, held: list[Trade]) -> None:
        """Replace the trades of a symbol by `held` after an id reset."""
        reads = [[trade for trade in read if trade.symbol != symbol] for read in self._reads]
        self._reads = deque(read for read in (*reads, list(held)) if read)
        self._index.clear()
        self._held, self._indexed = sum(map(len, self._reads)), 0
