"""Resolution of trade ids that are not stored: pure functions over rows of these tables.

    missing_trades   ranges inside what is stored ──┐
    dead_letters     ids whose messages were rejected ─┼──▶ ranges with resolution and times
    trade_gaps       ids before and after what is stored that workers report missing ─┤
    trade_gaps       what the venue proved absent ──┤
    retention_state  how old is old ────────────────┘

Whatever may have been there and may be young is unresolved: absent is only what the venue proved, expired only what is
old for certain, because the stored trades on both sides of it are.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from marketfeed_consumers.planning.plausible_times import is_plausible
from marketfeed_consumers.planning.stored_ranges import Key

Resolution: TypeAlias = Literal["absent", "unresolved", "rejected", "expired"]
RESOLUTIONS: Final[tuple[Resolution, ...]] = ("absent", "unresolved", "rejected", "expired")

LabelledRange: TypeAlias = tuple[int, int, str]
"""First id, last id, and the source."""

MARGIN_US: Final = 3_600_000_000
"""How much older than the limit the trades on both sides of a range must be: ids and times are not in quite the same
order at a venue, and a range is written off an hour later at no cost.
"""


NEVER: Final = -1
"""An unknown time; sorts before all known ones."""
REJECTED_BY: Final = "dead_letters"


class Range(NamedTuple):
    """A range of trade ids that are not stored, and its resolution.

    Attributes:
        resolution: "absent" when the venue proved that they do not exist; "rejected" when their messages were there and
            could not be stored (see dead_letters); "expired" when they are older than retention keeps; "unresolved"
            otherwise.
        proof: where a verdict comes from, "" where there is none.
    """

    first_id: int
    last_id: int
    resolution: Resolution
    proof: str

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.last_id - self.first_id + 1

    @property
    def is_open(self) -> bool:
        """Whether existing trades may be missing."""
        return self.resolution in ("unresolved", "rejected")


@dataclass(frozen=True, slots=True)
class GapRows:
    """The rows about missing ids, as queried; keys are (venue, symbol, id series).

    Attributes:
        marks: (*key, first id, last id).
        missing: (*key, first id, last id, times of the stored trades before and after it).
        absent: (*key, [[first, last], …], proof).
        rejected: (*key, first id, last id, when the newest of them was rejected).
        reported: (*key, [[first, last], …] that a worker reports missing, first and last id that are stored and their
            times, time of the trade before, when it was detected); None for what is not known.
        limits: key -> the limit of the newest retention of trades.
        now_us: when the tables were read.
    """

    marks: Sequence[Sequence[Any]]
    missing: Sequence[Sequence[Any]]
    absent: Sequence[Sequence[Any]]
    rejected: Sequence[Sequence[Any]]
    reported: Sequence[Sequence[Any]]
    limits: Mapping[Key, int]
    now_us: int


class ResolvedRange(NamedTuple):
    """A range, and the bounds of its trade times; None if unknown."""

    key: Key
    range: Range
    lower_us: int | None
    upper_us: int | None


def resolve(ledger: GapRows) -> Iterator[ResolvedRange]:
    """Yield the ranges that are not stored with their resolutions, by key and ascending by id."""
    proven: defaultdict[Key, list[LabelledRange]] = defaultdict(list)
    for *key, spans, proof in ledger.absent:
        proven[_key(key)] += [(first, last, proof) for first, last in spans]
    rejected: defaultdict[Key, list[LabelledRange]] = defaultdict(list)
    for *key, first, last, _ in ledger.rejected:
        rejected[_key(key)].append((first, last, REJECTED_BY))
    unstored: list[tuple[Any, ...]] = [*map(tuple, ledger.missing), *_outside(ledger)]
    for *key, first, last, after_us, before_us in sorted(unstored):
        lower_us, upper_us = between(after_us, before_us, ledger.now_us)
        if is_expired(after_us, before_us, ledger.limits.get(_key(key), 0), ledger.now_us):
            rest: Resolution = "expired"
            refused: Sequence[LabelledRange] = ()
        else:
            rest, refused = "unresolved", rejected[_key(key)]
        for one in resolved_ranges(first, last, proven[_key(key)], refused, rest):
            yield ResolvedRange(_key(key), one, lower_us, upper_us)


def _key(parts: Sequence[Any]) -> Key:
    venue, symbol, id_series = parts
    return venue, symbol, id_series


def _outside(ledger: GapRows) -> Iterator[tuple[Any, ...]]:
    """Yield the ids outside the stored span that exist, in the form of missing ranges.

    Several may name the same ids, and each is yielded once.
    """
    found: defaultdict[Key, list[tuple[int, int, int, int]]] = defaultdict(list)
    for *key, first, last, after_us, before_us in (*_rejected_outside(ledger), *_reported_outside(ledger)):
        found[_key(key)].append((first, last, after_us, before_us))
    for one, ranges in found.items():
        end = -1
        for first, last, after_us, before_us in sorted(ranges):
            if last > end:
                yield *one, max(first, end + 1), last, after_us, before_us
                end = last


def _rejected_outside(ledger: GapRows) -> Iterator[tuple[Any, ...]]:
    # Their trades were matched before they were rejected, and that is all that is known of their times.
    spans = {_key(key): (first, last) for *key, first, last in ledger.marks}
    for *key, first, last, rejected_us in ledger.rejected:
        low, high = spans.get(_key(key), (last + 1, last))
        if first < low:
            yield *key, first, min(last, low - 1), NEVER, rejected_us
        if last > high:
            yield *key, max(first, high + 1), last, NEVER, rejected_us


def _reported_outside(ledger: GapRows) -> Iterator[tuple[Any, ...]]:
    for *key, parts, low, high, low_us, high_us, after_us, detected_us in ledger.reported:
        begun_us = NEVER if after_us is None else after_us
        for first, last in parts:
            if low is None:
                yield *key, first, last, begun_us, detected_us
                continue
            if first < low:
                yield *key, first, min(last, low - 1), begun_us, low_us
            if last > high:
                yield *key, max(first, high + 1), last, high_us, detected_us


def between(after_us: int, before_us: int, now_us: int) -> tuple[int | None, int | None]:
    """Return the bounds of a range's trade times, from the times of the adjacent stored trades.

    Args:
        after_us, before_us: times of the stored trades before and after the range; NEVER if unknown.
        now_us: the current time.
    """
    known = [time_us if is_plausible(time_us, now_us) else None for time_us in (after_us, before_us)]
    lower_us, upper_us = known
    if lower_us is not None and upper_us is not None and lower_us > upper_us:
        return upper_us, lower_us
    return lower_us, upper_us


def is_expired(after_us: int, before_us: int, limit_us: int, now_us: int) -> bool:
    """Return whether all trades of a range are certainly older than the retention limit.

    Args:
        after_us, before_us: times of the stored trades before and after the range; NEVER if unknown.
        limit_us: the retention limit.
        now_us: the current time.
    """
    old = limit_us - MARGIN_US
    return (
        is_plausible(before_us, now_us)
        and before_us < old
        and (after_us == NEVER or (is_plausible(after_us, now_us) and after_us < old))
    )


def resolved_ranges(
    first: int,
    last: int,
    proven: Iterable[LabelledRange],
    rejected: Iterable[LabelledRange] = (),
    rest: Resolution = "unresolved",
) -> list[Range]:
    """Split the ids `first`..`last` into rejected ranges, absent ranges and the rest.

    Args:
        first, last: the ids, inclusive.
        proven: ranges confirmed absent, with their proofs.
        rejected: ranges of rejected messages.
        rest: resolution of all other ids.
    """
    found, proven = [], sorted(proven)
    for start, end, reason in _parts(first, last, sorted(rejected)):
        if reason is not None:
            found.append(Range(start, end, "rejected", reason))
            continue
        for low, high, proof in _parts(start, end, proven):
            found.append(Range(low, high, rest, "") if proof is None else Range(low, high, "absent", proof))
    return found


def _parts(first: int, last: int, spans: Iterable[LabelledRange]) -> Iterator[tuple[int, int, str | None]]:
    """Split `first`..`last` by the ascending `spans`; yield parts with their labels, None outside of all spans."""
    at = first
    for start, end, label in spans:
        start, end = max(start, at), min(end, last)
        if start > end:
            continue
        if at < start:
            yield at, start - 1, None
        yield start, end, label
        at = end + 1
    if at <= last:
        yield at, last, None
