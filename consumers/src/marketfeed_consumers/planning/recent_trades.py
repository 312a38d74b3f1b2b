"""The most recently stored trades, in memory to compare duplicates: most arrive soon after the first copy.

Runs of new rows are kept as they were planned, whole batches of a symbol, so that a trade without duplicates costs
nothing. Duplicates of older trades are looked up in the database, once per batch.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

from marketfeed_consumers.planning.stored_ranges import Key
from marketfeed_wire import Trade

MAX_TRADES: Final = 20_000
"""Maximum number of trades, all symbols together: about 10 MB. More would exceed the processor's cache (with 50,000
planning takes 1.5 times as long)."""

_TRADE_ID: Final[Callable[[Trade], int]] = attrgetter("trade_id")


class RecentTrades:
    """The newest runs of trades by symbol and id series."""

    def __init__(self, most: int = MAX_TRADES) -> None:
        self._most = most
        self._held = 0
        self._runs: defaultdict[Key, deque[Sequence[Trade]]] = defaultdict(deque)
        self._order: deque[Key] = deque()

    def add(self, key: Key, run: Sequence[Trade]) -> None:
        """Add `run`: new trades, ascending by id, without duplicates."""
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
        """Return by id the trades in memory of these ids, and the other trades of the same runs."""
        lowest, highest = min(ids), max(ids)
        found: dict[int, Trade] = {}
        for run in self._runs.get(key, ()):
            if run[0].trade_id <= highest and lowest <= run[-1].trade_id:
                found |= zip(map(_TRADE_ID, run), run, strict=True)
        return found

    def clear(self) -> None:
        """Remove all: planned trades may not have been stored."""
        self._runs.clear()
        self._order.clear()
        self._held = 0
