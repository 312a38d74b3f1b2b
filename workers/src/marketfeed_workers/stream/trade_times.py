"""Approximate times of trades before gaps, for backfill by time. Pure."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

SPARE: Final = 100
"""Number of unneeded times that may be kept, so that pruning is rare."""


class TradeTimes:
    """Times of trades by id."""

    __slots__ = ("_ids", "_times")

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._times: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, trade_id: int, time_us: int) -> None:
        """Add the approximate time of a trade."""
        if trade_id not in self._times:
            insort(self._ids, trade_id)
        self._times[trade_id] = time_us

    def before(self, trade_id: int) -> int | None:
        """Return the time of the newest trade before `trade_id` with a known time; None without one."""
        at = bisect_left(self._ids, trade_id)
        return self._times[self._ids[at - 1]] if at else None

    def prune(self, first_ids: Iterable[int]) -> None:
        """Keep the newest time before each of these ids, and the newest of all."""
        places = {bisect_left(self._ids, first_id) - 1 for first_id in first_ids} | {len(self._ids) - 1}
        self._ids = [self._ids[place] for place in sorted(places) if place >= 0]
        self._times = {trade_id: self._times[trade_id] for trade_id in self._ids}

    def clear(self) -> None:
        """Remove all times."""
        self._ids, self._times = [], {}
