"""What became of each jump in a symbol's trade ids: the gap ledger's entries, without I/O or clock.

open ──▶ filled       every id was published
  │ └──▶ absent       the venue proved that what was not published does not exist
  └────▶ unresolved   later trades went on without it; repair goes on ──▶ filled or absent
"""

from dataclasses import dataclass, field
from typing import Final

from marketfeed_wire import Gap, GapState
from marketfeed_workers.continuity import TradeSequence
from marketfeed_workers.id_ranges import IdRange, merged, within

MOST_RANGES: Final = 5_000
"""Ranges that a note tells one by one, of missing ids and of absent ones. A long gap of which a venue proves only every
other trade has tens of thousands, which would make a message that no topic takes."""

_RANGE_BYTES: Final = 100
"""A range of missing ids and one of absent ones, as JSON, with room for the rest of the note."""


def most_ranges(most_batch_bytes: int) -> int:
    """How many ranges a note may tell so that a topic takes it which takes batches of that size."""
    return min(MOST_RANGES, most_batch_bytes // _RANGE_BYTES)


FROM_STREAM = "stream"
"""The proof of a gap whose trades came by themselves, a little late."""


@dataclass(slots=True)
class GapEntry:
    """One jump; `after_time_us` is about when the trade before it was matched, None where nobody knows.

    `is_told`: the world has heard of it, so that it must hear of its end.
    `told_time_us`: the time that the last word on a gap which begins here bears, whoever said it; -1 before any.
    """

    ids: IdRange
    detected_time_us: int
    after_time_us: int | None
    state: GapState = "open"
    absent: list[IdRange] = field(default_factory=list)
    proof: str = FROM_STREAM
    is_told: bool = False
    told_time_us: int = -1

    def judge(self, sequence: TradeSequence) -> bool:
        """Bring `state` up to date; whether it changed."""
        before = self.state
        if not within(sequence.missing(), self.ids):
            # What came for it may wait behind an earlier hole still.
            if sequence.expected is not None and sequence.expected > self.ids.last:
                self.state = "absent" if self.absent else "filled"
        elif within(sequence.late, self.ids):
            self.state = "unresolved"
        return self.state != before

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is missing any more."""
        return self.state in ("filled", "absent")

    def prove(self, proof: str, absent: list[IdRange]) -> None:
        """The venue was asked, and said that the ids in `absent` do not exist."""
        self.proof = proof
        self.absent = merged([*self.absent, *(part for each in absent for part in within([each], self.ids))])

    def message(self, venue: str, symbol: str, sequence: TradeSequence, now_us: int, most: int) -> Gap:
        """This entry as it is told to the world, in at most `most` ranges of each kind.

        Of more ranges only the first ones are exact. What is told missing then holds all that is: whoever goes
        on from it fetches some trades once more. What is told absent is part of what is: it is proven again.
        Of two words consumers keep the one with the later time, so a clock that was set back is not followed.
        """
        missing = within(sequence.missing(), self.ids)
        if len(missing) > most:
            missing = [*missing[: most - 1], IdRange(missing[most - 1].first, missing[-1].last)]
        return Gap(
            venue=venue,
            symbol=symbol,
            first_id=self.ids.first,
            last_id=self.ids.last,
            state=self.state,
            missing=[(first, last) for first, last in missing],
            absent=[(first, last) for first, last in self.absent[:most]],
            proof=self.proof,
            detected_time_us=self.detected_time_us,
            updated_time_us=max(now_us, self.told_time_us + 1),
            after_time_us=self.after_time_us,
        )


def restored(gap: Gap) -> GapEntry:
    """The entry that an earlier process told about."""
    return GapEntry(
        IdRange(gap.first_id, gap.last_id),
        gap.detected_time_us,
        gap.after_time_us,
        gap.state,
        [IdRange(*each) for each in gap.absent],
        gap.proof,
        is_told=True,
        told_time_us=gap.updated_time_us,
    )
