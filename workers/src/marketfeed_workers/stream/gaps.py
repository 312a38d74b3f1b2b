"""What became of each jump in a symbol's trade ids: the gap ledger's entries, without I/O or clock.

open ──▶ filled       every id was published, and Kafka has acknowledged it
  │ └──▶ absent       the venue proved that what was not published does not exist
  └────▶ unresolved   later trades went on without it; repair goes on ──▶ filled or absent
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from marketfeed_wire import Gap, GapState
from marketfeed_workers.stream.id_ranges import IdRange, common, merged, part_of, within
from marketfeed_workers.stream.reorder_buffer import ReorderBuffer

MAX_RANGES: Final = 5_000
"""Ranges that a note tells one by one, of missing ids and of absent ones. A long gap of which a venue proves only every
other trade has tens of thousands, which would make a message that no topic takes."""

_RANGE_BYTES: Final = 100
"""A range of missing ids and one of absent ones, as JSON, with room for the rest of the note."""


def max_ranges(max_batch_bytes: int) -> int:
    """How many ranges a note may tell so that a topic takes it which takes batches of that size."""
    return min(MAX_RANGES, max_batch_bytes // _RANGE_BYTES)


SERIES_ENDED = "id series ended"
"""The proof of a gap that cannot be closed any more: the venue has begun the symbol's ids again."""

FROM_STREAM = "stream"
"""The proof of a gap whose trades came by themselves, a little late."""


class GapContent(NamedTuple):
    """What a published record says of a gap: any change of it is published, too."""

    state: GapState
    missing: list[IdRange]
    absent: list[IdRange]


@dataclass(slots=True)
class GapEntry:
    """One jump; `after_time_us` is about when the trade before it was matched, None where nobody knows.

    `missing`: the ids that are not in Kafka; also those that were published and that it has not acknowledged.
    `published`: the content of its newest record, this process's or an earlier one's; None before any.
    `in_flight`: a record of it is not acknowledged; the next one waits for that.
    `has_record`: there has been a record of a gap that begins here, so there must be one of its end.
    `record_time_us`: the time that the newest record of a gap which begins here bears, whoever wrote it; -1 before any.
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
        """Bring `missing` and `state` up to date; whether the state changed.

        `unacknowledged`: ids that were published and that Kafka has not acknowledged, sorted. They count as missing:
        a record never says more than what Kafka holds.
        """
        before = self.state
        unresolved = part_of(sequence.unresolved, self.ids)
        self.missing = merged(
            [*unresolved, *part_of(unacknowledged, self.ids), *sequence.unpublished(self.ids)]
        )
        if self.published is not None:  # what an earlier process stored of it is not missing again
            self.missing = common(self.missing, self.published.missing)
        if not self.missing:
            self.state = "absent" if self.absent else "filled"
        elif unresolved:
            self.state = "unresolved"
        return self.state != before

    @property
    def content(self) -> GapContent:
        """What a record of it says now."""
        return GapContent(self.state, self.missing, self.absent)

    @property
    def is_due(self) -> bool:
        """Whether its state has changed since the newest record."""
        return self.state != "open" and (self.published is None or self.published.state != self.state)

    @property
    def is_outdated(self) -> bool:
        """Whether anything of it has changed since the newest record."""
        return self.state != "open" and self.published != self.content

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is missing any more."""
        return self.state in ("filled", "absent")

    def prove(self, proof: str, absent: list[IdRange]) -> None:
        """The venue was asked, and said that the ids in `absent` do not exist."""
        self.proof = proof
        self.absent = merged([*self.absent, *(part for each in absent for part in within([each], self.ids))])

    def message(self, venue: str, symbol: str, now_us: int, max_ranges: int) -> Gap:
        """The record of this entry, of at most `max_ranges` ranges of each kind.

        Of more ranges only the first ones are exact. What is told missing then holds all that is: whoever goes
        on from it fetches some trades once more. What is told absent is part of what is: it is proven again.
        Of two records consumers keep the one with the later time, so a clock that was set back is not followed.
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
    """The entry that an earlier process published."""
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
