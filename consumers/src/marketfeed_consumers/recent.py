"""The trades stored last, held in memory to compare what repeats them: most repeats come soon after the first copy.

Runs of new rows are kept as they were planned, whole batches of a symbol, so nothing is computed for a trade that is
never repeated. What is older is looked up, once a batch.
"""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

from marketfeed_consumers.knowledge import Key
from marketfeed_wire import Trade

MAX_TRADES: Final = 20_000
"""Trades held at most, all symbols together: about 10 MB. More would cost every new row: what is held does not fit the
processor's cache any more (50,000 make planning half as fast again)."""


class RecentTrades:
    """The newest runs of trades by symbol and id series."""

    def __init__(self, most: int = MAX_TRADES) -> None:
        self._most = most
        self._held = 0
        self._runs: defaultdict[Key, deque[Sequence[Trade]]] = defaultdict(deque)
        self._order: deque[Key] = deque()

    def add(self, key: Key, run: Sequence[Trade]) -> None:
        """Hold `run`: new trades, ascending by id, none twice."""
        self._runs[key].append(run)
        self._order.append(key)
        self._held += len(run)
        while self._held > self._most and len(self._order) > 1:
            oldest = self._order.popleft()
            runs = self._runs[oldest]
            self._held -= len(runs.popleft())
            if not runs:
                del self._runs[oldest]

    def find(self, key: Key, trade_id: int) -> Trade | None:
        """The trade of that id; None where it is not held."""
        for run in reversed(self._runs.get(key, ())):
            first = run[0].trade_id
            if first <= trade_id <= run[-1].trade_id:
                at = trade_id - first  # where it stands in a run without a gap
                if at >= len(run) or run[at].trade_id != trade_id:
                    at = bisect_left(run, trade_id, key=_id_of)
                if run[at].trade_id == trade_id:
                    return run[at]
        return None

    def clear(self) -> None:
        """Forget all: what was planned may not be stored."""
        self._runs.clear()
        self._order.clear()
        self._held = 0


def _id_of(trade: Trade) -> int:
    return trade.trade_id
