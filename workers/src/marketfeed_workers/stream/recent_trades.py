"""The trades that were read last, held in memory to tell an identical repeat from one that cannot be proven to be one.

Whole reads are kept as they came: a trade that is never repeated costs nothing. They are put into an index only when
something is looked for.
"""

from collections import deque
from typing import Final

from marketfeed_wire import Trade

MAX_TRADES: Final = 10_000
"""Trades held at most, all symbols together: about 4 MB, and seconds of a venue's whole market, where connections that
overlap are milliseconds apart. More would slow every trade down: they do not fit the processor's cache."""


class RecentTrades:
    """The newest reads."""

    def __init__(self, max_trades: int = MAX_TRADES) -> None:
        self._max_trades = max_trades
        self._held = 0
        self._reads: deque[list[Trade]] = deque()
        self._indexed = 0  # how many of the reads, from the oldest on, are in the index
        self._index: dict[tuple[str, int], Trade] = {}

    def add(self, trades: list[Trade]) -> None:
        """Hold what one read brought; the list must not change any more."""
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
        """The first trade of that id that is held; None where there is none."""
        while self._indexed < len(self._reads):
            for trade in self._reads[self._indexed]:
                self._index.setdefault((trade.symbol, trade.trade_id), trade)
            self._indexed += 1
        return self._index.get((symbol, trade_id))

    def discard(self, trades: list[Trade]) -> None:
        """Do not hold these of the newest read: they were rejected."""
        numbers = {id(trade) for trade in trades}
        kept = [trade for trade in self._reads[-1] if id(trade) not in numbers]
        self._held -= len(self._reads[-1]) - len(kept)
        self._reads[-1] = kept
        for trade in trades:
            if self._index.get((trade.symbol, trade.trade_id)) is trade:
                del self._index[trade.symbol, trade.trade_id]

    def restart_symbol(self, symbol: str, held: list[Trade]) -> None:
        """The ids of a symbol begin again with `held`: forget its other trades, and no other symbol's."""
        reads = [[trade for trade in read if trade.symbol != symbol] for read in self._reads]
        self._reads = deque(read for read in (*reads, list(held)) if read)
        self._index.clear()
        self._held, self._indexed = sum(map(len, self._reads)), 0
