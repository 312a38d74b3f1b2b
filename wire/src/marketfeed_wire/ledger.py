"""What workers remember in Kafka: how far they are, and which trade ids were ever missing.

Both topics are compacted: the newest message of a key is the truth. Workers read them at start and hold no other
state; consumers store the gaps.
"""

from typing import Annotated, Final, Literal

import msgspec

from marketfeed_wire.codec import DecodeError, decode_named
from marketfeed_wire.messages import Id, IdSeries, Name, TimeUs

GapState = Literal["open", "filled", "absent", "unresolved"]
"""``open``: being repaired while later trades are held back; ``filled``: every id was published; ``absent``: the
venue proved that the ids not published do not exist; ``unresolved``: some ids are still missing, later trades went
on without them, and repair goes on."""

Ids = tuple[Id, Id]
"""First and last id of a range, both included."""


class Progress(msgspec.Struct, frozen=True, gc=False):
    """How far a symbol's trades are acknowledged by Kafka: its checkpoint.

    The newest message of a symbol counts, of those with its highest id series.
    """

    venue: Name
    symbol: Name
    trade_id: Id
    acknowledged_time_us: TimeUs
    id_series: IdSeries = 0
    trade_time_us: TimeUs | None = None
    """When the trade `trade_id` was matched, as far as is known."""
    next_id: Id | None = None
    """The id that comes next where it is not `trade_id` + 1: a series that begins at id 0 has no trade before it."""


class QuoteProgress(msgspec.Struct, frozen=True, gc=False):
    """About how far a symbol's quotes were published: the checkpoint of their update ids."""

    venue: Name
    symbol: Name
    update_id: Id
    id_series: IdSeries
    published_time_us: TimeUs


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A jump in a symbol's trade ids and what became of it; identity is (venue, symbol, id_series, first_id)."""

    venue: Name
    symbol: Name
    first_id: Id
    last_id: Id
    state: GapState
    missing: list[Ids]
    """The ids that are still missing."""
    absent: list[Ids]
    """The ids that the venue proved not to exist."""
    proof: Annotated[str, msgspec.Meta(max_length=64)]
    """Where the outcome comes from: the venue's endpoint, or "stream" when the trades came late by themselves."""
    detected_time_us: TimeUs
    updated_time_us: TimeUs
    after_time_us: TimeUs | None = None
    """About when the trade before it was matched, as far as is known: where a later process looks for it by time."""
    id_series: IdSeries = 0


_progress: Final = msgspec.json.Decoder(Progress)
_quote_progress: Final = msgspec.json.Decoder(QuoteProgress)
_gaps: Final = msgspec.json.Decoder(Gap)
_QUOTES_KEY_END: Final = b"|quotes"


def progress_key(venue: str, symbol: str) -> bytes:
    """The record key of a `Progress`."""
    return f"{venue}|{symbol}".encode()


def quote_progress_key(venue: str, symbol: str) -> bytes:
    """The record key of a `QuoteProgress`: they share a topic with `Progress`."""
    return progress_key(venue, symbol) + _QUOTES_KEY_END


def is_quote_progress_key(key: bytes) -> bool:
    """Whether the record of this key holds a `QuoteProgress`."""
    # A symbol cannot be mistaken for it: the key of a Progress holds one separator, unless a name has one of its own.
    return key.endswith(_QUOTES_KEY_END) and key.count(b"|") > 1


def gap_key(gap: Gap) -> bytes:
    """The record key of a `Gap`; of the first series the key that it had before there were series."""
    series = f"|{gap.id_series}" if gap.id_series else ""
    return f"{gap.venue}|{gap.symbol}|{gap.first_id}{series}".encode()


def decode_progress(value: bytes) -> Progress:
    """The progress in a record's value.

    Raises:
        DecodeError: the value is no `Progress`; names the field.
    """
    return decode_named(_progress, value)


def decode_quote_progress(value: bytes) -> QuoteProgress:
    """The checkpoint of quotes in a record's value.

    Raises:
        DecodeError: the value is no `QuoteProgress`; names the field.
    """
    return decode_named(_quote_progress, value)


def decode_gap(value: bytes) -> Gap:
    """The gap in a record's value.

    Raises:
        DecodeError: the value is no `Gap`, or a range of it ends before it starts; names the field.
    """
    gap = decode_named(_gaps, value)
    ranges = {"last_id": [(gap.first_id, gap.last_id)], "missing": gap.missing, "absent": gap.absent}
    for field, each in ranges.items():
        if any(last < first for first, last in each):
            raise DecodeError(field, "a range ends before it starts")
    return gap
