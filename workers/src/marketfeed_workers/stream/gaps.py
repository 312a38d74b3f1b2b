"""State of the gaps in a symbol's trade ids, and their records in the gap ledger. No I/O and no clock.

open ──▶ backfilled   every id is published and acknowledged
  │ └──▶ absent       the venue has confirmed that the other ids do not exist
  └────▶ unresolved   later trades were published without it; backfill continues ──▶ backfilled or absent
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from marketfeed_service.id_ranges import IdRange, common, merged, part_of, within
from marketfeed_wire import Gap, GapState
from marketfeed_workers.stream.reorder_buffer import ReorderBuffer

MAX_RANGES: Final = 5_000
"""Maximum number of ranges of missing ids, and of absent ids, in a record. A long gap with every other id absent has
tens of thousands, which would exceed the message size."""

_RANGE_BYTES: Final = 100
"""Size of a range of missing ids and one of absent ids in JSON, with room for the rest of the record."""


def max_ranges(max_batch_bytes: int) -> int:
    """Return the maximum number of ranges of a record for topics with this maximum batch size."""
    return min(MAX_RANGES, max_batch_bytes // _RANGE_BYTES)


SERIES_ENDED = "id series ended"
"""Proof of a gap that cannot be closed any more because of an id reset."""

FROM_STREAM = "stream"
"""Proof of a gap whose trades arrived on the stream."""


class GapContent(NamedTuple):
    """The part of a gap record whose changes are published."""

    state: GapState
    missing: list[IdRange]
    absent: list[IdRange]


@dataclass(slots=True)
class GapEntry:
    """One gap.

    Attributes:
        after_time_us: approximate time of the trade before it; None if unknown.
        missing: ids that are not acknowledged, including those in flight.
        published: content of its newest record, of this process or an earlier one; None without one.
        in_flight: whether a record is not acknowledged; the next one waits for it.
        has_record: whether there is a record of a gap with this first id, so that a final record is needed.
        record_time_us: time of the newest record of a gap with this first id; -1 without one.
    """

    ids: IdRange
    detected_time_us: int
    after_time_us: int | None
    state: GapState = "open"
    absent: list[IdRange] = field(default_factory=list)
    proof: str = FROM_STREAM
    has_record: bool = False
    record_time_us: int = -1
    missing: list[IdRange] = field(default_factory=list)
    published: GapContent | None = None
    in_flight: bool = False

    def update(self, sequence: ReorderBuffer, unacknowledged: Sequence[IdRange]) -> bool:
        """Update `missing` and `state`; return whether the state changed.

        `unacknowledged` are the sorted ids in flight. They count as missing: a record contains only acknowledged facts.
        """
        before = self.state
        unresolved = part_of(sequence.unresolved, self.ids)
        self.missing = merged(
            [*unresolved, *part_of(unacknowledged, self.ids), *sequence.unpublished(self.ids)]
        )
        if self.published is not None:  # ids stored by an earlier process are not missing again
            self.missing = common(self.missing, self.published.missing)
        if not self.missing:
            self.state = "absent" if self.absent else "backfilled"
        elif unresolved:
            self.state = "unresolved"
        return self.state != before

    @property
    def content(self) -> GapContent:
        """Content of a record now."""
        return GapContent(self.state, self.missing, self.absent)

    @property
    def is_due(self) -> bool:
        """Whether the state has changed since the newest record."""
        return self.state != "open" and (self.published is None or self.published.state != self.state)

    @property
    def is_outdated(self) -> bool:
        """Whether the content has changed since the newest record."""
        return self.state != "open" and self.published != self.content

    @property
    def is_settled(self) -> bool:
        """Whether no id is missing any more."""
        return self.state in ("backfilled", "absent")

    def prove(self, proof: str, absent: list[IdRange]) -> None:
        """Add the result of a request: the ids in `absent` do not exist."""
        self.proof = proof
        self.absent = merged([*self.absent, *(part for each in absent for part in within([each], self.ids))])

    def message(self, venue: str, symbol: str, now_us: int, max_ranges: int) -> Gap:
        """Return the record of the gap, with at most `max_ranges` ranges of each type.

        With more ranges the last one of the missing ids covers the rest, so that the next process fetches some trades
        again, and absent ids are incomplete, so that they are proven again. Consumers keep the record with the later
        time, so record times must increase also when the clock is set back.

        Args:
            venue: name of the venue.
            symbol: the symbol.
            now_us: wall clock time.
            max_ranges: maximum number of ranges.
        """
        missing = self.missing
        if len(missing) > max_ranges:
            missing = [*missing[: max_ranges - 1], IdRange(missing[max_ranges - 1].first, missing[-1].last)]
        return Gap(
            venue=venue,
            symbol=symbol,
            first_id=self.ids.first,
            last_id=self.ids.last,
            state=self.state,
            missing=[(first, last) for first, last in missing],
            absent=[(first, last) for first, last in self.absent[:max_ranges]],
            proof=self.proof,
            detected_time_us=self.detected_time_us,
            updated_time_us=max(now_us, self.record_time_us + 1),
            after_time_us=self.after_time_us,
        )


def restore(gap: Gap) -> GapEntry:
    """Return the entry of a record of an earlier process."""
    missing = [IdRange(*each) for each in gap.missing]
    absent = [IdRange(*each) for each in gap.absent]
    return GapEntry(
        IdRange(gap.first_id, gap.last_id),
        gap.detected_time_us,
        gap.after_time_us,
        gap.state,
        absent,
        gap.proof,
        has_record=True,
        record_time_us=gap.updated_time_us,
        missing=missing,
        published=GapContent(gap.state, missing, absent),
    )
