"""The market data messages on the Kafka topics.

Prices and quantities are the venue's own decimal strings from the socket to NUMERIC, never floats. Times
are integer microseconds since the Unix epoch, each of one clock:

- ``trade_time_us``: when the venue matched the trade;
- ``event_time_us``: when the venue sent the event, ``None`` if the venue does not give it;
- ``received_time_us``: when the worker read the message from the socket.

No time is part of a key: the key of a trade is (venue, symbol, id_series, trade_id), that of a quote (venue, symbol,
id_series, update_id). `id_series` is 0 until the venue restarts a symbol's ids, and is incremented at each restart.
"""

from typing import Annotated, Final, Literal

import msgspec

SCHEMA_VERSION: Final = 1
"""Incremented when a field changes its meaning or is removed; not for an added optional field."""

MAX_ID = 2**63 - 1
"""Maximum id: the maximum of a BIGINT column."""

MAX_TIME_US = 253_370_764_800_000_000
"""Maximum time: the beginning of the year 9999.

Many database clients (Python's datetime, for one) fail at the year 10000, which a view may reach when it rounds a time
or converts it to another time zone. One such row would break the view for every reader.
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
        # For the JSON schema only: the codec checks by `is_decimal`, which is faster than a pattern.
        extra_json_schema={"pattern": r"^([0-9]+\.?[0-9]*|\.[0-9]+)$"},
    ),
]

IdSeries = Annotated[
    int,
    msgspec.Meta(
        ge=0, le=2**31 - 1, description="number of times that the venue has restarted the symbol's ids"
    ),
]

Origin = Literal["stream", "backfill"]
"""``stream``: received over the venue's WebSocket; ``backfill``: fetched over REST to close a gap."""


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

    Update ids increase but are not contiguous, so a missing quote cannot be detected, only an old one. Quotes and
    trades have separate id series: a venue may restart the ids of one and not of the other.
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
