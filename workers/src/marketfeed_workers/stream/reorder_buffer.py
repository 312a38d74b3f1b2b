"""Reorder buffer and gap detection of a symbol's trade ids. No I/O and no clock.

On venues with contiguous trade ids per symbol (observed, not documented: see docs/venues) each id must follow the last.
Trades are put in order like segments of a byte stream:

    published … 41 │ expected 42 │ gap 42-43 │ buffered 44 45 │ gap 46 │ buffered 47

Buffered trades are released when the gap before them is filled, is known to be absent at the venue, or is flushed. Ids
of a flushed gap are `unresolved`: their trades are published when they arrive, out of order.
"""

from typing import Final, NamedTuple

from marketfeed_service.id_ranges import IdRange, contains, merged, of_ids, part_of, within, without
from marketfeed_wire import Trade, same_trade


class Arrival(NamedTuple):
    """Result of an arriving trade."""

    ready: list[Trade]
    """Trades to publish now, in order of id unless they were unresolved."""
    gap: IdRange | None
    """New gap."""


MAX_CONFLICTS: Final = 3
"""Maximum number of buffered trades of one id with other contents; the newest ones are kept."""

_NOTHING: Final = Arrival([], None)


class ReorderBuffer:
    """The trade ids of one symbol.

    Attributes:
        expected: next id; None before the first trade.
        buffered: trades after a gap, by id.
        unresolved: missing ids of flushed gaps.
        duplicates: number of duplicates.
    """

    MAX_TOMBSTONES: Final = 1000
    """Maximum number of ranges of absent ids below `expected`: a trade with such an id is not a duplicate."""

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
        self._head = -1  # newest buffered id; valid only while trades are buffered, or with increasing ids
        # Maintained incrementally: with thousands of buffered trades it is needed for each new one.
        self._gaps: list[IdRange] = []
        self._absent: list[IdRange] = []
        self._tombstones: list[IdRange] = []
        self._conflicts: dict[int, list[Trade]] = {}

    def resume_after(self, trade_id: int, unresolved: list[IdRange]) -> None:
        """Resume from a checkpoint: `trade_id` was published, the `unresolved` ids are missing."""
        self.expected = trade_id + 1
        self.unresolved = merged(unresolved)

    def is_known(self, trade_id: int) -> bool:
        """Return whether a trade with this id was published before; missing ids are not known."""
        return (
            self.expected is not None
            and trade_id < self.expected
            and not contains(self.unresolved, trade_id)
            and not contains(self._tombstones, trade_id)
        )

    def lacks(self, trade_id: int) -> bool:
        """Return whether the id is missing or absent."""
        return any(
            contains(ids, trade_id) for ids in (self.unresolved, self._gaps, self._tombstones, self._absent)
        )

    def arrive(self, trade: Trade) -> Arrival:
        """Add a trade of the stream or of a backfill."""
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
                # Published after the first one: consumers report the conflict.
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
        ready = self._release()  # empty unless every id before it is absent
        return Arrival(
            ready, IdRange(newest + 1, trade_id - 1) if trade_id > newest + 1 and not ready else None
        )

    def skip(self, trade_id: int) -> IdRange | None:
        """Skip a rejected `trade_id` and the missing ids before it; return the ids that become unresolved.

        Return None if nothing changes: the id was received, is missing already, or becomes missing by the next trade,
        as while trades are buffered.
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
        """Mark `ids` as absent at the venue; return the trades to publish now.

        Ids of buffered trades exist, whatever the venue returned.
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
        """Newest id, published or buffered; None before the first trade."""
        if self.expected is None:
            return None
        return self._head if self.buffered else self.expected - 1

    @property
    def newest_received(self) -> int:
        """Newest id with a received and valid trade; -1 without one."""
        newest = -1 if self.newest is None else self.newest
        for first, last in reversed(self.missing()):
            if last < newest:
                break
            newest = first - 1
        return newest

    def gaps(self) -> list[IdRange]:
        """Return the missing ids before the newest buffered trade."""
        return list(self._gaps)

    def missing(self) -> list[IdRange]:
        """Return every missing id, unresolved or not."""
        return [*self.unresolved, *self._gaps]

    def unpublished(self, ids: IdRange) -> list[IdRange]:
        """Return the part of `ids` that is neither published nor absent."""
        if self.expected is None or self.expected > ids.last:
            return []
        left = [IdRange(max(self.expected, ids.first), ids.last)]
        for absent in part_of(self._absent, ids):
            left = without(left, absent)
        return left

    def flush(self) -> list[Trade]:
        """Return all buffered trades in order; the missing ids become unresolved."""
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
        """Return the buffered trades without a gap before them; advance `expected` over them and over absent ids."""
        if self.expected is None or not (self.buffered or self._absent):
            return []
        released: list[Trade] = []
        while True:
            trade = self.buffered.pop(self.expected, None)
            if trade is not None:
                released.append(trade)
                self.expected += 1
                continue
            # Absent ids are skipped only up to a buffered trade: nothing is known about ids after the newest trade.
            skipped = within(self._absent, IdRange(self.expected, self.expected))
            if not (skipped and self.buffered):
                break
            last_skipped = next(last for first, last in self._absent if first <= self.expected <= last)
            self._add_tombstones([IdRange(self.expected, last_skipped)])
            self.expected = last_skipped + 1
        self._absent = [each for each in self._absent if each.last >= self.expected]
        return self._with_conflicts(released)

    def _with_conflicts(self, released: list[Trade]) -> list[Trade]:
        """Return `released`, each followed by the buffered trades with the same id and other content."""
        if not self._conflicts:
            return released
        return [each for trade in released for each in (trade, *self._conflicts.pop(trade.trade_id, ()))]


class IncreasingIds(ReorderBuffer):
    """Increasing but not contiguous trade ids: duplicates can be detected, gaps cannot.

    No id is missing and no trade is buffered. Trades may be slightly out of order, for example with overlapping
    connections, so the newest ids are kept individually.
    """

    MAX_RECENT_IDS: Final = 10_000
    """Number of ids kept individually; ids up to the newest discarded one count as known."""

    __slots__ = ("_known_to", "_recent_ids")

    def __init__(self) -> None:
        super().__init__()
        self._known_to = -1
        self._recent_ids: dict[int, None] = {}

    def is_known(self, trade_id: int) -> bool:
        """Return whether a trade with this id was published, or is older than the kept ids."""
        return trade_id <= self._known_to or trade_id in self._recent_ids

    def skip(self, _trade_id: int) -> IdRange | None:
        """Return None: gaps cannot be detected."""
        return None

    def resume_after(self, trade_id: int, _late: list[IdRange]) -> None:
        """Resume from a checkpoint: `trade_id` was published."""
        self._known_to = self._head = trade_id

    def arrive(self, trade: Trade) -> Arrival:
        """Add a trade: it is published unless it is known."""
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
        """Newest id; None before the first trade."""
        return None if self._head < 0 else self._head
