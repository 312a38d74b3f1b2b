"""Frames of a market, encoded once and shared by all subscribers of the stream."""

from typing import Final, Literal

import msgspec

Kind = Literal["trade", "quote", "other"]

COMBINED: Final = 1
"""Bit of a `Frame.wire` variant: wrapped in stream and data, as on /stream."""
MICROSECONDS: Final = 2
"""Bit of a `Frame.wire` variant: times in microseconds."""


class TradeRow(msgspec.Struct, frozen=True, gc=False):
    """A trade as in REST. Decimals are the venue's strings."""

    id: int
    price: str
    qty: str
    time_us: int
    buyer_is_maker: bool
    aggregate_id: int = 0
    """The taker order's aggregate; 0 if unknown."""


class _Combined(msgspec.Struct):
    data: msgspec.Raw


_unwrap: Final = msgspec.json.Decoder(_Combined)


class Frame:
    """One message of one stream.

    Attributes:
        stream: such as ``btcusdt@trade``.
        symbol: in capitals; "" for a stream of no single symbol.
        time_us: when the venue sends it, microseconds since the epoch.
        id: the trade id or the book's update id, 0 for other kinds.
        trade: the trade, for kind "trade".
    """

    __slots__ = (
        "_combined",
        "_data",
        "_wire",
        "_wire_variant",
        "event_time_us",
        "id",
        "kind",
        "stream",
        "symbol",
        "time_us",
        "trade",
    )

    def __init__(
        self,
        stream: str,
        symbol: str,
        kind: Kind,
        time_us: int,
        number: int,
        data: bytes | None,
        trade: TradeRow | None = None,
        combined: bytes | None = None,
        event_time_us: int | None = None,
    ) -> None:
        self.stream = stream
        self.symbol = symbol
        self.kind: Kind = kind
        self.time_us = time_us
        self.id = number
        self.trade = trade
        self.event_time_us = event_time_us
        self._data = data
        self._combined = combined
        self._wire_variant = -1
        self._wire = b""

    @property
    def data(self) -> bytes:
        """Payload as JSON, times in milliseconds (or as recorded)."""
        if self._data is None:
            # Decoded on first use: the payload of a recorded frame is rarely needed alone.
            self._data = bytes(_unwrap.decode(self._combined or b"").data)
        return self._data

    def text(self, variant: int) -> bytes:
        """Return the JSON text for a connection of this `variant` (COMBINED, MICROSECONDS or both)."""
        if variant == COMBINED and self._combined is not None:
            return self._combined  # a recorded frame is sent byte for byte
        data = self._in_microseconds() if variant & MICROSECONDS else self.data
        return combine(self.stream, data) if variant & COMBINED else data

    def wire(self, variant: int) -> bytes:
        """Return the bytes for the socket: the text as one unmasked WebSocket frame."""
        # Only the last variant is cached: nearly all connections have the same.
        if variant != self._wire_variant:
            text = self.text(variant)
            length = len(text)
            self._wire = (_HEADERS[length] if length < _SHORT else _header(0x81, length)) + text
            self._wire_variant = variant
        return self._wire

    def _in_microseconds(self) -> bytes:
        fields = msgspec.json.decode(self.data)
        if isinstance(fields, dict):
            exact = {"E": self.event_time_us, "T": self.trade.time_us if self.trade else None}
            for name, time_us in exact.items():
                if isinstance(fields.get(name), int):
                    fields[name] = time_us or to_us(fields[name])
        return msgspec.json.encode(fields)


def to_us(time: int) -> int:
    """Convert a time of the venue to microseconds; it is in milliseconds unless too large for that."""
    return time if time >= 10**14 else time * 1000


def combine(stream: str, data: bytes) -> bytes:
    """Wrap a payload as on a combined stream."""
    return b'{"stream":"%b","data":%b}' % (stream.encode(), data)


def text_frame(payload: bytes) -> bytes:
    """Encode `payload` as one final, unmasked text frame (RFC 6455, section 5.2)."""
    return _header(0x81, len(payload)) + payload


def ping_frame(payload: bytes) -> bytes:
    """Encode a ping with a payload of at most 125 bytes."""
    return _header(0x89, len(payload)) + payload


def pong_frame(payload: bytes) -> bytes:
    """Encode a pong with the payload of the ping."""
    return _header(0x8A, len(payload)) + payload


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


_SHORT: Final = 2048
_HEADERS: Final = [_header(0x81, length) for length in range(_SHORT)]
"""Precomputed headers of short text frames, which is all market data."""
