"""The trades stored last, held in memory to compare what repeats them: most repeats come soon after the first copy.

Runs of new rows are kept as they were planned, whole batches of a symbol, so nothing is computed for a trade that is
never repeated. What is older is looked up, once a batch.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

from marketfeed_consumers.planning.stored_ranges import Key
from marketfeed_wire import Trade

MAX_TRADES: Final = 20_000
"""Trades held at most, all symbols together: about 10 MB. More would cost every new row: what is held does not fit the
processor's cache any more (50,000 make planning half as fast again)."""

_TRADE_ID: Final[Callable[[Trade], int]] = attrgetter("trade_id")


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

    def held(self, key: Key, ids: Sequence[int]) -> dict[int, Trade]:
        """By id, what is held of the trades of these ids, and of others in the runs that hold them."""
        lowest, highest = min(ids), max(ids)
        found: dict[int, Trade] = {}
        for run in self._runs.get(key, ()):
            if run[0].trade_id <= highest and lowest <= run[-1].trade_id:
                found |= zip(map(_TRADE_ID, run), run, strict=True)
        return found

    def clear(self) -> None:
        """Forget all: what was planned may not be stored."""
        self._runs.clear()
        self._order.clear()
        self._held = 0
