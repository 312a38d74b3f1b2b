"""Decoding of Binance's combined stream frames to wire messages. Pure: the receive time is an argument.

A combined frame is ``{"stream":"btcusdt@trade","data":{…}}``. The stream name near its start determines the type, so
that each frame is decoded once, directly into that type.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

import msgspec

from marketfeed_wire import BookTicker, Trade, is_decimal
from marketfeed_wire.messages import Id, Name
from marketfeed_workers.venues.errors import BadFrame
from marketfeed_workers.venues.venue import DecodedFrames, Event, Reply, ShutdownNotice, one_by_one

_NAME_END: Final = 96  # a stream name ends within the first bytes of a frame: '{"stream":"' + symbol + kind
# Including the text after the name, because a reply that lists subscriptions also has stream names at its start.
_TRADE_START: Final = b'@trade","data":'
_BOOK_TICKER_START: Final = b'@bookTicker","data":'
_OURS: Final = ("@trade", "@bookTicker")
# Last byte before a frame's two closing braces: a quote ends with a quantity, a trade with `"M":true`.
_BOOK_TICKER_END: Final = b'"}}'[0]
_TRADE_END: Final = b"e}}"[0]

_STREAM_FIELD: Final = b'{"stream":"'

_T = TypeVar("_T")


_Time = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Any integer: `VenueClock` checks times, because a trade with an impossible time is still recorded with its id."""


class _TradePayload(msgspec.Struct, gc=False):
    s: Name
    t: Id
    p: Name
    q: Name
    T: _Time
    m: bool
    E: _Time | None = None


class _TradeFrame(msgspec.Struct, gc=False):
    data: _TradePayload


class _BookTickerPayload(msgspec.Struct, gc=False):
    u: Id
    s: Name
    b: Name
    B: Name
    a: Name
    A: Name


class _BookTickerFrame(msgspec.Struct, gc=False):
    data: _BookTickerPayload


class _OtherPayload(msgspec.Struct, gc=False):
    e: str = ""


class _CommandError(msgspec.Struct, gc=False):
    code: int
    msg: str = ""


class _OtherFrame(msgspec.Struct, gc=False):
    """Replies to commands, and notices."""

    stream: str | None = None
    data: _OtherPayload | None = None
    e: str = ""
    id: int | None = None
    result: object | msgspec.UnsetType = msgspec.UNSET
    error: _CommandError | None = None
    code: int | None = None
    msg: str = ""


class _AnyFrame(msgspec.Struct, gc=False):
    stream: str
    data: msgspec.Raw


_read_trade: Final = msgspec.json.Decoder(_TradeFrame).decode
_read_trades: Final = msgspec.json.Decoder(list[_TradeFrame]).decode
_book_tickers: Final = msgspec.json.Decoder(_BookTickerFrame)
_all_book_tickers: Final = msgspec.json.Decoder(list[_BookTickerFrame])
_others: Final = msgspec.json.Decoder(_OtherFrame)
_any_frame: Final = msgspec.json.Decoder(_AnyFrame)
# RecursionError: msgspec raises it for deeply nested values, also inside ignored fields.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def reader(venue: str, time_unit_us: int) -> Callable[[bytes, int], Event]:
    """Return ``read(frame, received_time_us)`` for a venue with times in units of `time_unit_us` microseconds."""
    read_trade = _read_trade

    def read(frame: bytes, received_time_us: int) -> Event:
        # One function without calls: each call would add a tenth to its cost.
        try:
            # Quotes first: they are more frequent than trades.
            if frame.find(_BOOK_TICKER_START, 0, _NAME_END) > 0:
                quote = _book_tickers.decode(frame).data
                # The spot stream has no event time. Consumers validate the decimals: four checks here would cost as
                # much as the decoding.
                return BookTicker(
                    venue, quote.s, quote.u, quote.b, quote.B, quote.a, quote.A, None, received_time_us
                )
            if frame.find(_TRADE_START, 0, _NAME_END) > 0:
                trade = read_trade(frame).data
                if is_decimal(trade.p) and is_decimal(trade.q):
                    return Trade(
                        venue,
                        trade.s,
                        trade.t,
                        trade.p,
                        trade.q,
                        trade.m,
                        trade.T * time_unit_us,
                        trade.E * time_unit_us if trade.E is not None else None,
                        received_time_us,
                    )
                field = "q" if is_decimal(trade.p) else "p"
                raise BadFrame(f"not a decimal number - at `$.data.{field}`: {_start_of(frame)}")
            other = _others.decode(frame)
            if other.stream is not None and other.stream.endswith(_OURS):
                return read(_normalized(frame), received_time_us)
            return _other(other)
        except _UNREADABLE as error:
            raise BadFrame(f"{error}: {_start_of(frame)}") from None

    return read


def batch_reader(venue: str, time_unit_us: int) -> Callable[[list[bytes], int], DecodedFrames]:
    """Return ``read_all(frames, received_time_us)``: as `reader`, but all frames of a type are decoded in one call.

    The type is guessed by the end of a frame, at a quarter of the cost of searching its name. The names and types are
    then verified for all frames together. If the guess was wrong, or a frame is invalid, each frame is decoded
    separately, so that only invalid frames are skipped.
    """
    read = reader(venue, time_unit_us)
    read_trades = _read_trades

    def read_all(frames: list[bytes], received_time_us: int) -> DecodedFrames:
        try:
            quotes, trades, others = _by_end(frames)
            tickers = _decoded(_all_book_tickers.decode, quotes, _BOOK_TICKER_START)
            matches = _decoded(read_trades, trades, _TRADE_START)
        except (*_UNREADABLE, _TypeMismatch, IndexError):
            return one_by_one(read, frames, received_time_us)
        batch = one_by_one(read, others, received_time_us)
        for frame in tickers:
            quote = frame.data
            batch.quotes.append(
                BookTicker(
                    venue, quote.s, quote.u, quote.b, quote.B, quote.a, quote.A, None, received_time_us
                )
            )
        for match in matches:
            trade = match.data
            if not (is_decimal(trade.p) and is_decimal(trade.q)):
                return one_by_one(read, frames, received_time_us)
            batch.trades.append(
                Trade(
                    venue,
                    trade.s,
                    trade.t,
                    trade.p,
                    trade.q,
                    trade.m,
                    trade.T * time_unit_us,
                    trade.E * time_unit_us if trade.E is not None else None,
                    received_time_us,
                )
            )
        return batch

    return read_all


def _by_end(frames: list[bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Sort frames by their end into quotes, trades and others; raise IndexError for less than three bytes."""
    quotes: list[bytes] = []
    trades: list[bytes] = []
    others: list[bytes] = []
    for frame in frames:
        end = frame[-3]
        if end == _BOOK_TICKER_END:
            quotes.append(frame)
        elif end == _TRADE_END:
            trades.append(frame)
        else:
            others.append(frame)
    return quotes, trades, others


def _decoded(decode: Callable[[bytes], Sequence[_T]], frames: list[bytes], start: bytes) -> Sequence[_T]:
    """Decode frames of one type.

    Args:
        decode: decoder of a list of frames.
        frames: the frames.
        start: the end of the stream name and what follows it, which every frame must contain.

    Raises:
        _TypeMismatch: not all frames are of this type.
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: a frame is invalid.
    """
    if not frames:
        return []
    joined = b"[%b]" % b",".join(frames)
    decode_body = decode(joined)
    if joined.count(start) != len(frames) or len(decode_body) != len(frames):
        raise _TypeMismatch
    return decode_body


class _TypeMismatch(Exception):
    """Frames are not of the type that was guessed by their ends."""


def stream_of(frame: bytes) -> str:
    """Return the stream name of a combined frame; "" for any other frame."""
    if not frame.startswith(_STREAM_FIELD):  # other formatting, or not a combined frame
        try:
            return _any_frame.decode(frame).stream
        except _UNREADABLE:
            return ""
    start = len(_STREAM_FIELD)
    return frame[start : frame.find(b'"', start)].decode(errors="replace")


def _normalized(frame: bytes) -> bytes:
    """Return a frame with other formatting (order of fields, spaces) in the venue's usual format."""
    written = _any_frame.decode(frame)
    kind = written.stream[written.stream.rindex("@") :]
    return b'{"stream":"%b","data":%b}' % (kind.encode(), written.data)


def _other(frame: _OtherFrame) -> Event:
    if frame.e == "serverShutdown" or (frame.data is not None and frame.data.e == "serverShutdown"):
        return ShutdownNotice()
    if frame.error is not None:
        return Reply(frame.id, f"{frame.error.code}: {frame.error.msg}", None)
    if frame.code is not None:
        return Reply(frame.id, f"{frame.code}: {frame.msg}", None)
    if frame.result is not msgspec.UNSET:
        return Reply(frame.id, "", frame.result)
    return None


def _start_of(frame: bytes) -> str:
    return repr(frame[:200])
