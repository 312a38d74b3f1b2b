"""Venue messages that a worker has rejected: published unchanged to their own topic and stored as dead letters.

The id of a rejected trade is a gap; a backfill may close it.
"""

from typing import Annotated, Final

import msgspec

from marketfeed_wire.codec import decode_named
from marketfeed_wire.messages import Id, IdSeries, Name, TimeUs

MAX_RAW_BYTES: Final = 4096
"""Maximum size of the kept beginning of a message, in bytes."""


class RejectedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A venue message with implausible content."""

    venue: Name
    symbol: Name
    stream: Annotated[str, msgspec.Meta(max_length=128)]
    """The stream type: "trade"."""
    trade_id: Id | None
    """None if unknown."""
    reason: Annotated[str, msgspec.Meta(max_length=64)]
    """The value of the metrics' label `reason`: "impossible_time"."""
    details: Annotated[str, msgspec.Meta(max_length=1024)]
    """Description of the problem."""
    raw: Annotated[bytes, msgspec.Meta(max_length=MAX_RAW_BYTES)]
    """The unchanged beginning of the message."""
    received_time_us: TimeUs
    id_series: IdSeries = 0
    """Id series of `trade_id`."""


_rejected: Final = msgspec.json.Decoder(RejectedMessage)


def decode_rejected(value: bytes) -> RejectedMessage:
    """Decode the rejected message in a record's value.

    Raises:
        DecodeError: the value is not a `RejectedMessage`; has the invalid field.
    """
    return decode_named(_rejected, value)
