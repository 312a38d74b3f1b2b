"""Messages of a venue that a worker has rejected: kept as they came, on a topic of their own and in the dead letters.

The id of a rejected trade is a gap; a row of REST may fill it.
"""

from typing import Annotated, Final

import msgspec

from marketfeed_wire.codec import decode_named
from marketfeed_wire.messages import Id, IdSeries, Name, TimeUs

MAX_RAW_BYTES: Final = 4096
"""How much of a message is kept."""


class RejectedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that cannot be taken for what it says."""

    venue: Name
    symbol: Name
    stream: Annotated[str, msgspec.Meta(max_length=128)]
    """The kind of stream that it belongs to: "trade"."""
    trade_id: Id | None
    """None where it is not known."""
    reason: Annotated[str, msgspec.Meta(max_length=64)]
    """A constant for metrics: "impossible_time"."""
    details: Annotated[str, msgspec.Meta(max_length=1024)]
    """What is wrong with it, in words."""
    raw: Annotated[bytes, msgspec.Meta(max_length=MAX_RAW_BYTES)]
    """Its beginning, as it came."""
    received_time_us: TimeUs
    id_series: IdSeries = 0
    """Of the trade's id."""


_rejected: Final = msgspec.json.Decoder(RejectedMessage)


def decode_rejected(value: bytes) -> RejectedMessage:
    """The rejected message in a record's value.

    Raises:
        DecodeError: the value is no `RejectedMessage`; names the field.
    """
    return decode_named(_rejected, value)
