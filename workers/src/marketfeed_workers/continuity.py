"""Whether a trade id is missing: the one owner of that question.

On venues whose trade ids are contiguous per symbol (Binance spot: observed, not promised) each id must follow the
last. Arriving trades are put in order like segments of a byte stream:

    published … 41 │ expected 42 │ missing 42-43 │ waiting: 44 45   47
                                                                  └─ 46 is missing too

What is waiting goes on as soon as the hole before it is filled, is known to be absent at the venue, or is given up.
No I/O and no clock here; `pipeline` decides what to do with a hole.
"""

from collections.abc import Iterable
from typing import NamedTuple

from marketfeed_wire import Trade


class IdRange(NamedTuple):
    """Ids from `first` to `last`, both included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, trade_id: object) -> bool:
        return isinstance(trade_id, int) and self.first <= trade_id <= self.last


def without(ranges: Iterable[IdRange], trade_id: int) -> list[IdRange]:
    """`ranges` with one id taken out of them."""
    left: list[IdRange] = []
    for each in ranges:
        if trade_id in each:
            if each.first < trade_id:
                left.append(IdRange(each.first, trade_id - 1))
            if trade_id < each.last:
                left.append(IdRange(trade_id + 1, each.last))
        else:
            left.append(each)
    return left


class TradeSequence:
    """The trade ids of one symbol.

    Attributes:
        expected: the id that must come next; None before the first trade.
        waiting: trades beyond a hole, by id.
        late: holes that were given up: their trades may still come, and are welcome.
        duplicates: trades that came again.
    """

    __slots__ = ("duplicates", "expected", "late", "waiting")

    def __init__(self, expected: int | None = None) -> None:
        self.expected = expected
        self.waiting: dict[int, Trade] = {}
        self.late: list[IdRange] = []
        self.duplicates = 0

    def arrive(self, trade: Trade) -> list[Trade]:
        """The trades that may be published now, in order of id; none while `trade` waits or is a duplicate."""
        trade_id = trade.trade_id
        if self.expected is None or trade_id == self.expected:
            self.expected = trade_id + 1
            return [trade, *self._released()] if self.waiting else [trade]
        if trade_id > self.expected and trade_id not in self.waiting:
            self.waiting[trade_id] = trade
            return []
        if any(trade_id in hole for hole in self.late):
            self.late = without(self.late, trade_id)
            return [trade]
        self.duplicates += 1
        return []

    def holes(self) -> list[IdRange]:
        """The missing ids between what was published and the newest trade that waits."""
        if self.expected is None:
            return []
        found: list[IdRange] = []
        next_id = self.expected
        for waiting_id in sorted(self.waiting):
            if waiting_id > next_id:
                found.append(IdRange(next_id, waiting_id - 1))
            next_id = waiting_id + 1
        return found

    def give_up(self) -> list[Trade]:
        """Go on without what is missing: every waiting trade, in order; the holes become `late`."""
        self.late += self.holes()
        released = [self.waiting[trade_id] for trade_id in sorted(self.waiting)]
        self.waiting.clear()
        if released:
            self.expected = released[-1].trade_id + 1
        return released

    def _released(self) -> list[Trade]:
        released: list[Trade] = []
        expected = self.expected
        while expected in self.waiting:
            released.append(self.waiting.pop(expected))
            expected += 1
        self.expected = expected
        return released
