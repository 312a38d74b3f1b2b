"""What became of each jump in a symbol's trade ids: the gap ledger's entries, without I/O or clock.

open ──▶ filled       every id was published
  │ └──▶ absent       the venue proved that what was not published does not exist
  └────▶ unresolved   later trades went on without it; repair goes on ──▶ filled or absent
"""

from dataclasses import dataclass, field

from marketfeed_wire import Gap, GapState
from marketfeed_workers.continuity import TradeSequence
from marketfeed_workers.id_ranges import IdRange, merged, within

MOST_RANGES = 100
"""Ranges that a note tells one by one, of missing ids and of absent ones: it stays below 10 kB then. A long gap of
which a venue proves only every other trade has tens of thousands, more than a Kafka topic takes in one message."""

FROM_STREAM = "stream"
"""The proof of a gap whose trades came by themselves, a little late."""


@dataclass(slots=True)
class GapEntry:
    """One jump."""

    ids: IdRange
    detected_time_us: int
    state: GapState = "open"
    absent: list[IdRange] = field(default_factory=list)
    proof: str = FROM_STREAM

    def judge(self, sequence: TradeSequence) -> bool:
        """Bring `state` up to date; whether it changed."""
        before = self.state
        if not within(sequence.missing(), self.ids):
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

    def message(self, venue: str, symbol: str, sequence: TradeSequence, now_us: int) -> Gap:
        """This entry as it is told to the world.

        Of very many ranges only the first ones are exact. What is told missing then holds all that is: whoever goes
        on from it fetches some trades once more. What is told absent is part of what is: it is proven again.
        """
        missing = within(sequence.missing(), self.ids)
        if len(missing) > MOST_RANGES:
            missing = [*missing[: MOST_RANGES - 1], IdRange(missing[MOST_RANGES - 1].first, missing[-1].last)]
        return Gap(
            venue=venue,
            symbol=symbol,
            first_id=self.ids.first,
            last_id=self.ids.last,
            state=self.state,
            missing=[(first, last) for first, last in missing],
            absent=[(first, last) for first, last in self.absent[:MOST_RANGES]],
            proof=self.proof,
            detected_time_us=self.detected_time_us,
            updated_time_us=now_us,
        )


def restored(gap: Gap) -> GapEntry:
    """The entry that an earlier process told about."""
    return GapEntry(
        IdRange(gap.first_id, gap.last_id),
        gap.detected_time_us,
        gap.state,
        [IdRange(*each) for each in gap.absent],
        gap.proof,
    )
