"""The messages on the Kafka topics: what workers publish and consumers store.

Prices and quantities are the venue's own decimal strings from the socket to NUMERIC, never floats. Times
are whole microseconds since the Unix epoch and are named for whose clock they are:

- ``trade_time_us``: when the venue matched the trade;
- ``event_time_us``: when the venue sent the event, ``None`` where it does not say;
- ``received_time_us``: when this project's worker read it from the socket.

No time is ever part of a key: a trade is (venue, symbol, id_series, trade_id), a quote (venue, symbol, id_series,
update_id). `id_series` is 0 until the venue begins a symbol's ids again, and is raised by one each time it does.
"""

from typing import Annotated, Final, Literal

import msgspec

SCHEMA_VERSION: Final = 1
"""Raised when a field changes its meaning or goes away; added optional fields leave it as it is."""

MAX_ID = 2**63 - 1
"""The largest id a message may hold: what a BIGINT column takes."""

MAX_TIME_US = 253_370_764_800_000_000
"""The largest time a message may hold: the year 9999 begins.

No clock says more but by mistake, and much that reads a database (Python's datetime, for one) fails at the year 10000,
which is near for a time that a view rounds or shows in another zone: one such row would spoil a view for everybody.
"""

Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
TimeUs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_US, description="microseconds since the Unix epoch")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Decimal = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        description="a non-negative decimal number as the venue wrote it",
        # For readers of the schema only; the codec's own check, `is_decimal`, costs less than a pattern.
        extra_json_schema={"pattern": r"^([0-9]+\.?[0-9]*|\.[0-9]+)$"},
    ),
]

IdSeries = Annotated[
    int,
    msgspec.Meta(ge=0, le=2**31 - 1, description="how often the venue has begun the symbol's ids again"),
]

Origin = Literal["stream", "backfill"]
"""``stream``: read live from the venue's socket; ``backfill``: fetched later over REST to close a gap."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade at a venue; identity is (venue, symbol, id_series, trade_id)."""

    venue: Name
    symbol: Name
    trade_id: Id
    price: Decimal
    qty: Decimal
    buyer_is_maker: bool
    trade_time_us: TimeUs
    event_time_us: TimeUs | None
    received_time_us: TimeUs
    origin: Origin = "stream"
    schema_version: Literal[1] = SCHEMA_VERSION
    id_series: IdSeries = 0


class BookTicker(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask of a symbol at one update of its book; identity is (venue, symbol, id_series, update_id).

    Update ids rise but are not contiguous, so a lost quote cannot be seen, only an old one. Their series is not that of
    the symbol's trades: a venue may begin one kind of ids again and not the other.
    """

    venue: Name
    symbol: Name
    update_id: Id
    bid_price: Decimal
    bid_qty: Decimal
    ask_price: Decimal
    ask_qty: Decimal
    event_time_us: TimeUs | None
    received_time_us: TimeUs
    schema_version: Literal[1] = SCHEMA_VERSION
    id_series: IdSeries = 0
