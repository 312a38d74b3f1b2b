"""Recordings: a line per frame with receive time in nanoseconds since the epoch, a space, the combined-stream frame.

A recording is read twice: once completely before the port is opened, to validate every line and find the streams, and
then in chunks while it is sent, so that its size does not matter.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from marketfeed_service.errors import SettingsError
from marketfeed_simulator.frames import Frame, TradeRow, to_us


class RecordingError(SettingsError):
    """A recording cannot be replayed; the message names the file and the line."""


class _Trade(msgspec.Struct):
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _Quote(msgspec.Struct):
    s: str
    u: int


class _TradeLine(msgspec.Struct):
    stream: str
    data: _Trade


class _QuoteLine(msgspec.Struct):
    stream: str
    data: _Quote


class _OtherLine(msgspec.Struct):
    stream: str
    data: msgspec.Raw


_trade_line = msgspec.json.Decoder(_TradeLine)
_quote_line = msgspec.json.Decoder(_QuoteLine)
_other_line = msgspec.json.Decoder(_OtherLine)


def parse(line: bytes) -> Frame:
    """Parse a line.

    Raises:
        ValueError: the line is invalid.
    """
    time, _, text = line.rstrip().partition(b" ")
    if not time.isdigit():
        raise ValueError(f"does not begin with a time in nanoseconds: {line[:40]!r}")
    time_us = int(time) // 1000
    # The stream's name determines the type of the payload; a search in the bytes chooses the decoder.
    if b'@trade"' in text:
        trade_line = _trade_line.decode(text)
        if trade_line.stream.endswith("@trade"):
            trade = trade_line.data
            row = TradeRow(trade.t, trade.p, trade.q, to_us(trade.T), trade.m)
            return Frame(trade_line.stream, trade.s, "trade", time_us, trade.t, None, row, text)
    elif b'@bookTicker"' in text:
        quote_line = _quote_line.decode(text)
        if quote_line.stream.endswith("@bookTicker"):
            quote = quote_line.data
            return Frame(quote_line.stream, quote.s, "quote", time_us, quote.u, None, None, text)
    stream = _other_line.decode(text).stream
    symbol = "" if stream.startswith("!") else stream.partition("@")[0].upper()
    return Frame(stream, symbol, "other", time_us, 0, None, None, text)


def read(path: Path) -> Iterator[Frame]:
    """Yield the frames of a recording, plain or gzip, in order.

    Raises:
        RecordingError: the file cannot be read, or a line is invalid.
    """
    number = 0
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 - used in the error message
                yield parse(line)
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordingError(f"recording {path}, line {number}: {error}") from error
    except (EOFError, zlib.error) as error:
        raise RecordingError(f"recording {path} is damaged after line {number}: {error}") from error
    except OSError as error:
        raise RecordingError(f"recording {path} cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if not zipped:
        return path.open("rb")
    # Reading lines from GzipFile itself costs a Python call each.
    return io.BufferedReader(cast(io.RawIOBase, gzip.open(path, "rb")), 1 << 20)


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of a recording. Times in microseconds since the epoch."""

    frames: int
    start_us: int
    end_us: int
    streams: frozenset[str]
    symbols: tuple[str, ...]


def scan(path: Path) -> Summary:
    """Read a recording completely and summarise it.

    Raises:
        RecordingError: the recording cannot be replayed.
    """
    streams: dict[str, str] = {}
    first = last = count = 0
    for count, frame in enumerate(read(path), 1):
        if count == 1:
            first = frame.time_us
        last = max(last, frame.time_us)
        if frame.stream not in streams:
            streams[frame.stream] = frame.symbol
    if not count:
        raise RecordingError(f"recording {path} holds no frames")
    symbols = tuple(dict.fromkeys(symbol for symbol in streams.values() if symbol))
    return Summary(count, first, last, frozenset(streams), symbols)


class Replay:
    """A `Source` of a recording's frames."""

    def __init__(self, path: Path, summary: Summary) -> None:
        self.summary = summary
        self._frames = read(path)
        self._waiting: Frame | None = next(self._frames, None)

    @property
    def streams(self) -> frozenset[str]:
        """Every stream in the recording."""
        return self.summary.streams

    @property
    def start_us(self) -> int:
        """Receive time of the first frame."""
        return self.summary.start_us

    @property
    def finished(self) -> bool:
        """Whether every frame has been pulled."""
        return self._waiting is None

    def next_us(self) -> int | None:
        """Return the receive time of the next frame; None at the end."""
        return None if self._waiting is None else self._waiting.time_us

    def pull(self, until_us: int | None, most: int) -> list[Frame]:
        """Return the next frames up to and including `until_us`, at most `most`."""
        if self._waiting is None:
            return []
        if until_us is None:
            frames = [self._waiting, *islice(self._frames, most - 1)]
            self._waiting = next(self._frames, None)
            return frames
        frames = []
        while self._waiting is not None and self._waiting.time_us <= until_us and len(frames) < most:
            frames.append(self._waiting)
            self._waiting = next(self._frames, None)
        return frames
