"""About when trades before holes were matched: where a hole is looked for by time. Pure."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

SPARE: Final = 100
"""Times that may be kept beyond those that are of use, so that looking for these is rare."""


class TradeTimes:
    """Times of trades, by id; `prune` keeps as many as there are holes."""

    __slots__ = ("_ids", "_times")

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._times: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, trade_id: int, time_us: int) -> None:
        """The trade was matched about then."""
        if trade_id not in self._times:
            insort(self._ids, trade_id)
        self._times[trade_id] = time_us

    def before(self, trade_id: int) -> int | None:
        """When the newest trade before `trade_id` was matched of which that is known; None when of none."""
        at = bisect_left(self._ids, trade_id)
        return self._times[self._ids[at - 1]] if at else None

    def prune(self, first_ids: Iterable[int]) -> None:
        """Keep the newest before each of these ids, and the newest of all."""
        places = {bisect_left(self._ids, first_id) - 1 for first_id in first_ids} | {len(self._ids) - 1}
        self._ids = [self._ids[place] for place in sorted(places) if place >= 0]
        self._times = {trade_id: self._times[trade_id] for trade_id in self._ids}

    def clear(self) -> None:
        """Forget all."""
        self._ids, self._times = [], {}
