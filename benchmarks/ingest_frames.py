"""Frames of the ingestion benchmark, prepared as bytes on the wire.

A tape is a file of consecutive WebSocket text frames, so that serving it is cheap. It contains repetitions of the
recording with continuously increasing ids, so that it has no gaps. Without a recording the simulator's generated market
is used.
"""

import gzip
import itertools
import json
import mmap
import random
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from marketfeed_simulator.frames import COMBINED, text_frame
from marketfeed_simulator.instruments import instrument
from marketfeed_simulator.market import GeneratedMarket, Rates

RECORDING = Path("..") / "shared" / "recordings" / "binance-spot-btcusdt-ethusdt-20240809.frames.gz"
GENERATED_FRAMES = 100_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")

_STREAM = re.compile(rb'^\{"stream":"([a-z0-9]+)@(\w+)"')
_ID = {b"trade": re.compile(rb'("t":)(\d+)'), b"bookTicker": re.compile(rb'("u":)(\d+)')}


class Tape(NamedTuple):
    """A file of frames."""

    path: Path
    streams: frozenset[str]
    trades: int
    quotes: int

    @property
    def events(self) -> int:
        return self.trades + self.quotes

    def ends(self) -> "array[int]":
        """Return the end offset of each frame in the file."""
        ends: array[int] = array("Q")
        with self.path.with_suffix(".ends").open("rb") as file:
            ends.fromfile(file, self.events)
        return ends

    def trades_of(self, first: int, events: int) -> int:
        """Return the number of trades in `events` frames, starting at frame `first`."""
        ends = self.ends()
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            part = data[ends[first - 1] if first else 0 : ends[first + events - 1]]
        return part.count(b'@trade","data"') + part.count(b'@aggTrade","data"')

    @staticmethod
    def load(path: Path) -> "Tape":
        about = json.loads(path.with_suffix(".json").read_text())
        return Tape(path, frozenset(about["streams"]), about["trades"], about["quotes"])


def source(recording: Path) -> tuple[str, list[bytes]]:
    """Return the description of the replayed market and its frames."""
    if recording.exists():
        with gzip.open(recording) as lines:
            return f"recording {recording.name}", [line.rstrip().split(b" ", 1)[1] for line in lines]
    market = GeneratedMarket(
        [(instrument(symbol), Rates(trades=20, quotes=80)) for symbol in SYMBOLS], seed=1, start_us=10**15
    )
    return "generated frames", [frame.text(COMBINED) for frame in market.pull(None, GENERATED_FRAMES)]


def repeated(frames: list[bytes], events: int) -> Iterator[bytes]:
    """Yield `events` frames: repetitions of `frames` with continuously increasing ids."""
    parsed = [_split(frame) for frame in frames]
    ids: dict[tuple[bytes, bytes], list[int]] = {}
    for kind, symbol, _, number, _ in parsed:
        ids.setdefault((kind, symbol), []).append(number)
    spans = {key: max(numbers) - min(numbers) + 1 for key, numbers in ids.items()}
    rounds = ((number, piece) for number in itertools.count() for piece in parsed)
    for number, (kind, symbol, before, event_id, after) in itertools.islice(rounds, events):
        yield b"%b%d%b" % (before, event_id + number * spans[kind, symbol], after)


def as_aggregates(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Yield trades as aggTrade frames of the same content, which cryptofeed reads instead of trades."""
    for frame in frames:
        if b'@trade"' not in frame[:64]:
            yield frame
            continue
        number = _ID[b"trade"].search(frame)
        if number is None:
            raise ValueError(f"a trade without an id: {frame!r}")
        same = b'"a":%b,"f":%b,"l":%b' % ((number[2],) * 3)
        aggregate = frame.replace(b'@trade"', b'@aggTrade"').replace(b'"e":"trade"', b'"e":"aggTrade"')
        yield aggregate.replace(number[0], same)


def spread(frames: list[bytes], symbols: list[str], events: int) -> Iterator[bytes]:
    """Yield `events` frames with randomly chosen `symbols` and separate ids per symbol; deterministic.

    Args:
        frames: Source frames.
        symbols: Symbols of the result.
        events: Number of frames.
    """
    rng = random.Random(symbols[0])  # noqa: S311 - not for security
    chosen = rng.choices([symbol.encode() for symbol in symbols], k=events)
    numbers = {(kind, symbol.encode()): 1_000_000_000 for kind in _ID for symbol in symbols}
    parsed = itertools.cycle([_split(frame) for frame in frames])
    for symbol, (kind, old, before, _, after) in zip(chosen, parsed, strict=False):
        numbers[kind, symbol] += 1
        renamed = before.replace(old.lower() + b"@", symbol.lower() + b"@").replace(old, symbol)
        yield b"%b%d%b" % (renamed, numbers[kind, symbol], after.replace(old, symbol))


def write(path: Path, frames: Iterable[bytes]) -> Tape:
    """Write a tape."""
    ends: array[int] = array("Q")
    streams: set[str] = set()
    offset = trades = 0
    with path.open("wb") as file:
        for frame in frames:
            offset += file.write(text_frame(frame))
            ends.append(offset)
            name = frame[11 : frame.index(b'"', 11)].decode()
            streams.add(name)
            trades += not name.endswith("bookTicker")
    with path.with_suffix(".ends").open("wb") as file:
        ends.tofile(file)
    about = {"streams": sorted(streams), "trades": trades, "quotes": len(ends) - trades}
    path.with_suffix(".json").write_text(json.dumps(about))
    return Tape.load(path)


class IdPositions(NamedTuple):
    """Positions of the ids of a stream in a tape, and their increment per round."""

    starts: "array[int]"
    width: int
    span: int


def id_positions(tape: Tape) -> list[IdPositions]:
    """Return the positions of all ids in a tape; the ids of a stream must have the same length.

    Raises:
        ValueError: The lengths differ.
    """
    found: dict[bytes, list[re.Match[bytes]]] = {}
    for match in re.finditer(
        rb'@(\w+)","data":\{[^}]*?"s":"(\w+)","t":(\d+)', data := tape.path.read_bytes()
    ):
        found.setdefault(match[1] + match[2], []).append(match)
    for match in re.finditer(rb'@(bookTicker)","data":\{"u":(\d+),"s":"(\w+)"', data):
        found.setdefault(match[1] + match[3], []).append(match)
    positions = []
    for matches in found.values():
        group = 2 if matches[0][1] == b"bookTicker" else 3
        numbers = [int(match[group]) for match in matches]
        if len({len(match[group]) for match in matches}) > 1:
            raise ValueError("ids of different lengths: such a tape cannot be looped")
        starts = array("Q", [match.start(group) for match in matches])
        positions.append(IdPositions(starts, len(matches[0][group]), max(numbers) - min(numbers) + 1))
    return positions


def increase_ids(data: mmap.mmap, positions: list[IdPositions], rounds: int) -> None:
    """Increase every id in place by the increment of `rounds` rounds.

    Args:
        data: Content of the tape.
        positions: Positions of the ids.
        rounds: Number of rounds.
    """
    for starts, width, span in positions:
        step = span * rounds
        for start in starts:
            data[start : start + width] = b"%d" % (int(data[start : start + width]) + step)


def _split(frame: bytes) -> tuple[bytes, bytes, bytes, int, bytes]:
    """Return (stream, symbol in upper case, bytes before the id, id, bytes after it)."""
    name = _STREAM.match(frame)
    number = _ID[name[2]].search(frame) if name is not None else None
    if name is None or number is None:
        raise ValueError(f"not a trade or quote of a combined stream: {frame[:80]!r}")
    return name[2], name[1].upper(), frame[: number.start(2)], int(number[2]), frame[number.end(2) :]
