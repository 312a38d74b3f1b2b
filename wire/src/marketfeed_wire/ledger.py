"""The workers' durable state in Kafka: checkpoints and gaps.

Both topics are compacted: the newest message of a key is the current one. Workers read them at start and keep no other
durable state; consumers store the gaps.
"""

from typing import Annotated, Final, Literal

import msgspec

from marketfeed_wire.codec import DecodeError, decode_named
from marketfeed_wire.messages import Id, IdSeries, Name, TimeUs

GapState = Literal["open", "backfilled", "absent", "unresolved"]
"""``open``: backfill runs while later trades are in the reorder buffer; ``backfilled``: every id was published;
``absent``: the venue has confirmed that the ids not published do not exist; ``unresolved``: some ids are still missing,
the reorder buffer was flushed without them, and backfill continues."""

Ids = tuple[Id, Id]
"""First and last id of a range, inclusive."""


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """The checkpoint of a symbol: its last trade up to which Kafka has acknowledged all.

    The newest message with the symbol's highest id series is the current one.
    """

    venue: Name
    symbol: Name
    trade_id: Id
    acknowledged_time_us: TimeUs
    id_series: IdSeries = 0
    trade_time_us: TimeUs | None = None
    """When the trade `trade_id` was matched; None if unknown."""
    next_id: Id | None = None
    """The next expected id where it is not `trade_id` + 1: a series that begins at id 0 has no trade before it."""


class QuoteCheckpoint(msgspec.Struct, frozen=True, gc=False):
    """The approximate checkpoint of a symbol's quotes: an update id that was published."""

    venue: Name
    symbol: Name
    update_id: Id
    id_series: IdSeries
    published_time_us: TimeUs


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A gap in a symbol's trade ids and its state; identity is (venue, symbol, id_series, first_id)."""

    venue: Name
    symbol: Name
    first_id: Id
    last_id: Id
    state: GapState
    missing: list[Ids]
    """The ids that are still missing, as ranges."""
    absent: list[Ids]
    """The ids that the venue has confirmed not to exist, as ranges."""
    proof: Annotated[str, msgspec.Meta(max_length=64)]
    """The source of the outcome: the venue's endpoint, or "stream" if the trades arrived out of order."""
    detected_time_us: TimeUs
    updated_time_us: TimeUs
    after_time_us: TimeUs | None = None
    """About when the trade before the gap was matched, for backfill by time in a later process; None if unknown."""
    id_series: IdSeries = 0


_progress: Final = msgspec.json.Decoder(Checkpoint)
_quote_progress: Final = msgspec.json.Decoder(QuoteCheckpoint)


class _StoredGap(Gap, frozen=True, kw_only=True):
    """A gap record as it is in the topic, where the state ``backfilled`` is written ``filled``, see `encode_gap`."""

    state: Literal["open", "backfilled", "absent", "unresolved", "filled"]  # type: ignore[assignment]


_gaps: Final = msgspec.json.Decoder(_StoredGap)
_gap_encoder: Final = msgspec.json.Encoder()
_STORED_BACKFILLED: Final = "filled"
_QUOTES_KEY_END: Final = b"|quotes"


def checkpoint_key(venue: str, symbol: str, id_series: int = 0) -> bytes:
    """Return the record key of a `Checkpoint`.

    Each series has a key of its own, so that compaction never removes the newest series' checkpoint in favour of one
    that a worker published later for a series that has ended.

    Args:
        venue, symbol: names of the checkpoint.
        id_series: its id series; the first one has no suffix.
    """
    series = f"|{id_series}" if id_series else ""
    return f"{venue}|{symbol}{series}".encode()


def quote_checkpoint_key(venue: str, symbol: str, id_series: int = 0) -> bytes:
    """Return the record key of a `QuoteCheckpoint`; it shares a topic with `Checkpoint`.

    Args:
        venue, symbol, id_series: as of `checkpoint_key`.
    """
    return checkpoint_key(venue, symbol, id_series) + _QUOTES_KEY_END


def is_quote_checkpoint_key(key: bytes) -> bool:
    """Return whether the record of this key holds a `QuoteCheckpoint`."""
    # A symbol cannot be mistaken for it: the key of a Progress ends in the symbol or in a number.
    return key.endswith(_QUOTES_KEY_END) and key.count(b"|") > 1


def gap_key(gap: Gap) -> bytes:
    """Return the record key of a `Gap`; the first series has no suffix, as before id series were introduced."""
    series = f"|{gap.id_series}" if gap.id_series else ""
    return f"{gap.venue}|{gap.symbol}|{gap.first_id}{series}".encode()


def encode_gap(gap: Gap) -> bytes:
    """Return the record value of a gap, with the state ``backfilled`` as ``filled``.

    ``filled`` is the name in the version before this one, whose consumers would store a record of another state as a
    dead letter, and whose workers would skip it. They run beside this version during a rolling upgrade, and after a
    rollback. The next version may write ``backfilled``, which this one reads.
    """
    if gap.state != "backfilled":
        return _gap_encoder.encode(gap)
    return _gap_encoder.encode({**msgspec.structs.asdict(gap), "state": _STORED_BACKFILLED})


def decode_checkpoint(value: bytes) -> Checkpoint:
    """Decode the checkpoint in a record's value.

    Raises:
        DecodeError: the value is not a `Checkpoint`; has the invalid field.
    """
    return decode_named(_progress, value)


def decode_quote_checkpoint(value: bytes) -> QuoteCheckpoint:
    """Decode the quotes' checkpoint in a record's value.

    Raises:
        DecodeError: the value is not a `QuoteCheckpoint`; has the invalid field.
    """
    return decode_named(_quote_progress, value)


def decode_gap(value: bytes) -> Gap:
    """Decode the gap in a record's value.

    Raises:
        DecodeError: the value is not a `Gap`, or one of its ranges ends before it starts; has the invalid field.
    """
    stored = decode_named(_gaps, value)
    fields = msgspec.structs.asdict(stored)
    gap = Gap(**{**fields, "state": "backfilled" if stored.state == _STORED_BACKFILLED else stored.state})
    ranges = {"last_id": [(gap.first_id, gap.last_id)], "missing": gap.missing, "absent": gap.absent}
    for field, each in ranges.items():
        if any(last < first for first, last in each):
            raise DecodeError(field, "a range ends before it starts")
    return gap
