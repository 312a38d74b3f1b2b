"""Whether a trade id is missing: the one owner of that question.

On venues whose trade ids are contiguous per symbol (observed, not promised: see docs/venues) each id must follow the
last. Arriving trades are put in order like segments of a byte stream:

    published … 41 │ expected 42 │ hole 42-43 │ waiting 44 45 │ hole 46 │ waiting 47

What waits goes on as soon as the hole before it is filled, is known to be absent at the venue, or is given up. A hole
that was given up is `unresolved`: its trades are still wanted and are published when they come, then out of order.
No I/O and no clock here.
"""

from typing import Final, NamedTuple

from marketfeed_wire import Trade, same_trade
from marketfeed_workers.stream.id_ranges import IdRange, contains, merged, of_ids, part_of, within, without


class Arrival(NamedTuple):
    """What an arriving trade leads to."""

    ready: list[Trade]
    """The trades that may be published now, in order of id unless they are late."""
    gap: IdRange | None
    """Ids that were jumped over just now."""


MAX_CONFLICTS: Final = 3
"""Trades of one id and other contents that wait together; of more the newest counts."""

_NOTHING: Final = Arrival([], None)


class ReorderBuffer:
    """The trade ids of one symbol.

    Attributes:
        expected: the id that must come next; None before the first trade.
        buffered: trades beyond a hole, by id.
        unresolved: ids of holes that were given up.
        duplicates: how many trades came again.
    """

    MAX_TOMBSTONES: Final = 1000
    """Ranges of absent ids that are remembered after they were passed over: should one come all the same, it is new."""

    __slots__ = (
        "_absent",
        "_conflicts",
        "_gaps",
        "_head",
        "_tombstones",
        "buffered",
        "duplicates",
        "expected",
        "unresolved",
    )

    def __init__(self) -> None:
        self.expected: int | None = None
        self.buffered: dict[int, Trade] = {}
        self.unresolved: list[IdRange] = []
        self.duplicates = 0
        self._head = (
            -1
        )  # the newest id that waits; of use only while something waits, or where ids only increase
        # Kept and not worked out from what waits: it is looked at for each trade that comes while thousands wait.
        self._gaps: list[IdRange] = []
        self._absent: list[IdRange] = []
        self._tombstones: list[IdRange] = []
        self._conflicts: dict[int, list[Trade]] = {}

    def resume_after(self, trade_id: int, unresolved: list[IdRange]) -> None:
        """Start where an earlier process stopped: `trade_id` was published, the ids in `unresolved` are still missing."""
        self.expected = trade_id + 1
        self.unresolved = merged(unresolved)

    def is_known(self, trade_id: int) -> bool:
        """Whether a trade of this id was let go on before, and is not one that is still missing."""
        return (
            self.expected is not None
            and trade_id < self.expected
            and not contains(self.unresolved, trade_id)
            and not contains(self._tombstones, trade_id)
        )

    def lacks(self, trade_id: int) -> bool:
        """Whether the id is known to be missing, or absent."""
        return any(
            contains(ids, trade_id) for ids in (self.unresolved, self._gaps, self._tombstones, self._absent)
        )

    def arrive(self, trade: Trade) -> Arrival:
        """Take in a trade, from the stream or fetched later."""
        trade_id = trade.trade_id
        if self.expected is None or trade_id == self.expected:
            self.expected = trade_id + 1
            self._gaps = without(self._gaps, IdRange(trade_id, trade_id))
            return Arrival([trade, *self._release()], None)
        if trade_id < self.expected:
            return self._accept_below_expected(trade)
        if trade_id in self.buffered:
            if same_trade(self.buffered[trade_id], trade):
                self.duplicates += 1
            else:
                # Goes on behind the first, for whoever stores them to tell of.
                self._conflicts.setdefault(trade_id, [])[MAX_CONFLICTS:] = [trade]
            return _NOTHING
        newest = self._head if self.buffered else self.expected - 1
        self.buffered[trade_id] = trade
        self._absent = without(self._absent, IdRange(trade_id, trade_id))
        if trade_id <= newest:
            self._gaps = without(self._gaps, IdRange(trade_id, trade_id))
            return _NOTHING
        self._head = trade_id
        self._gaps += self._not_absent(IdRange(newest + 1, trade_id - 1))
        ready = self._release()  # not empty only where every id before it is known to be absent
        return Arrival(
            ready, IdRange(newest + 1, trade_id - 1) if trade_id > newest + 1 and not ready else None
        )

    def skip(self, trade_id: int) -> IdRange | None:
        """Go on without `trade_id`, which exists and cannot be used, and without the ids before it; those given up now.

        None where it changes nothing: it has come, it is missing already, or what comes next will show it to be. While
        trades wait in the reorder buffer, the next one does.
        """
        if self.expected is None or trade_id < self.expected or self.buffered:
            return None
        skipped = IdRange(self.expected, trade_id)
        self.unresolved = merged([*self.unresolved, *self._not_absent(skipped)])
        self._gaps = []
        self.expected = trade_id + 1
        self._absent = [each for each in self._absent if each.last >= self.expected]
        return skipped

    def mark_absent(self, ids: IdRange) -> list[Trade]:
        """The venue says that `ids` do not exist; the trades that may be published now.

        What waits exists, whatever the venue says.
        """
        self._add_tombstones(within(self.unresolved, ids))
        self.unresolved = without(self.unresolved, ids)
        self._gaps = without(self._gaps, ids)
        absent = [ids]
        for held in of_ids(trade_id for trade_id in self.buffered if ids.first <= trade_id <= ids.last):
            absent = without(absent, held)
        self._absent = merged([*self._absent, *absent])
        return self._release()

    @property
    def newest(self) -> int | None:
        """The newest id that has come, published or waiting; None before the first trade."""
        if self.expected is None:
            return None
        return self._head if self.buffered else self.expected - 1

    @property
    def newest_received(self) -> int:
        """The newest id whose trade has come, and not only one beyond it or one that cannot be used; -1: none."""
        newest = -1 if self.newest is None else self.newest
        for first, last in reversed(self.missing()):
            if last < newest:
                break
            newest = first - 1
        return newest

    def gaps(self) -> list[IdRange]:
        """The missing ids before the newest trade that waits."""
        return list(self._gaps)

    def missing(self) -> list[IdRange]:
        """Every id that is known to be missing, late or not."""
        return [*self.unresolved, *self._gaps]

    def unpublished(self, ids: IdRange) -> list[IdRange]:
        """The part of `ids` that publishing has not come to yet, without what is known to be absent."""
        if self.expected is None or self.expected > ids.last:
            return []
        left = [IdRange(max(self.expected, ids.first), ids.last)]
        for absent in part_of(self._absent, ids):
            left = without(left, absent)
        return left

    def flush(self) -> list[Trade]:
        """Go on without what is missing: every waiting trade, in order."""
        self.unresolved = merged([*self.unresolved, *self._gaps])
        self._gaps = []
        released = [self.buffered[trade_id] for trade_id in sorted(self.buffered)]
        self.buffered.clear()
        newest_id = released[-1].trade_id if released else -1
        if released and self.expected is not None:
            self._add_tombstones(within(self._absent, IdRange(self.expected, newest_id)))
            self.expected = newest_id + 1
        return self._with_conflicts(released)

    def _not_absent(self, ids: IdRange) -> list[IdRange]:
        left = [ids] if ids.size else []
        for absent in self._absent:
            left = without(left, absent)
        return left

    def _accept_below_expected(self, trade: Trade) -> Arrival:
        if contains(self.unresolved, trade.trade_id):
            self.unresolved = without(self.unresolved, IdRange(trade.trade_id, trade.trade_id))
            return Arrival([trade], None)
        if contains(self._tombstones, trade.trade_id):
            self._tombstones = without(self._tombstones, IdRange(trade.trade_id, trade.trade_id))
            return Arrival([trade], None)
        self.duplicates += 1
        return _NOTHING

    def _add_tombstones(self, absent: list[IdRange]) -> None:
        if absent:
            self._tombstones = merged([*self._tombstones, *absent])[-self.MAX_TOMBSTONES :]

    def _release(self) -> list[Trade]:
        """The trades that wait for nothing any more; moves `expected` past them and past absent ids."""
        if self.expected is None or not (self.buffered or self._absent):
            return []
        released: list[Trade] = []
        while True:
            trade = self.buffered.pop(self.expected, None)
            if trade is not None:
                released.append(trade)
                self.expected += 1
                continue
            # Absent ids are skipped only to reach a trade beyond them: ids after the newest trade are not known yet.
            skipped = within(self._absent, IdRange(self.expected, self.expected))
            if not (skipped and self.buffered):
                break
            last_skipped = next(last for first, last in self._absent if first <= self.expected <= last)
            self._add_tombstones([IdRange(self.expected, last_skipped)])
            self.expected = last_skipped + 1
        self._absent = [each for each in self._absent if each.last >= self.expected]
        return self._with_conflicts(released)

    def _with_conflicts(self, released: list[Trade]) -> list[Trade]:
        """`released`, each followed by what came with its id and another content."""
        if not self._conflicts:
            return released
        return [each for trade in released for each in (trade, *self._conflicts.pop(trade.trade_id, ()))]


class IncreasingIds(ReorderBuffer):
    """The trade ids of one symbol where they rise without being contiguous: a repeat can be told, a gap cannot.

    Nothing is ever missing or waits here. A trade may come somewhat late, as when two connections overlap, so the ids
    of the newest trades are remembered one by one.
    """

    MAX_RECENT_IDS: Final = 10_000
    """Ids that are known one by one; whatever is not above the oldest that was forgotten counts as known."""

    __slots__ = ("_known_to", "_recent_ids")

    def __init__(self) -> None:
        super().__init__()
        self._known_to = -1
        self._recent_ids: dict[int, None] = {}

    def is_known(self, trade_id: int) -> bool:
        """Whether a trade of this id was let go on before, or is as old as those."""
        return trade_id <= self._known_to or trade_id in self._recent_ids

    def skip(self, _trade_id: int) -> IdRange | None:
        """Nothing is known to be missing where ids only increase."""
        return None

    def resume_after(self, trade_id: int, _late: list[IdRange]) -> None:
        """Start where an earlier process stopped: `trade_id` was published."""
        self._known_to = self._head = trade_id

    def arrive(self, trade: Trade) -> Arrival:
        """Take in a trade: it is published unless it has come before."""
        trade_id = trade.trade_id
        if trade_id <= self._known_to or trade_id in self._recent_ids:
            self.duplicates += 1
            return _NOTHING
        self._recent_ids[trade_id] = None
        self._head = max(self._head, trade_id)
        if len(self._recent_ids) > self.MAX_RECENT_IDS:
            oldest = next(iter(self._recent_ids))
            del self._recent_ids[oldest]
            self._known_to = max(self._known_to, oldest)
        return Arrival([trade], None)

    @property
    def newest(self) -> int | None:
        """The newest id that has come; None before the first trade."""
        return None if self._head < 0 else self._head
