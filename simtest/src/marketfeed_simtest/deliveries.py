"""Messages of each read of a process; their effect is checked when the process's fate is known."""

from collections import Counter, defaultdict
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from marketfeed_simtest.clock import Clock
from marketfeed_simtest.truth import Truth
from marketfeed_wire import is_decimal

_EARLIEST_US: Final = 1_230_768_000_000_000
"""2009-01-01: in a feed of microseconds an earlier time is impossible."""


class Rejectable(NamedTuple):
    """A trade of an impossible time, as read by a process."""

    life: int
    symbol: str
    trade_id: int
    raw: bytes


class ReadQuote(NamedTuple):
    """The newest quote of a symbol in one read."""

    life: int
    symbol: str
    series: int
    id: int
    seconds: float


class _TradeData(msgspec.Struct):
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _TradeFrame(msgspec.Struct):
    data: _TradeData


class _QuoteData(msgspec.Struct):
    u: int
    s: str
    b: str
    B: str
    a: str
    A: str


class _QuoteFrame(msgspec.Struct):
    data: _QuoteData


_trade_frame: Final = msgspec.json.Decoder(_TradeFrame)
_quote_frame: Final = msgspec.json.Decoder(_QuoteFrame)


class Deliveries:
    """Records the messages of each read.

    Attributes:
        rejectable: trades of an impossible time -> times at which each copy was read.
        spoiled_quotes: symbol and update id of quotes with corrupted decimals.
        quotes: newest quote of each symbol in each read, unless a newer one had been read before.
    """

    def __init__(self, clock: Clock, truth: Truth, *, microseconds: bool) -> None:
        self.rejectable: defaultdict[Rejectable, list[float]] = defaultdict(list)
        self.spoiled_quotes: Counter[tuple[str, int]] = Counter()
        self.quotes: list[ReadQuote] = []
        self._clock = clock
        self._truth = truth
        self._microseconds = microseconds
        self._newest: dict[tuple[int, str], tuple[int, int]] = {}

    def read(self, life: int, frames: list[bytes]) -> None:
        """Record the frames of a read."""
        newest: dict[str, tuple[int, int]] = {}
        for frame in frames:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):  # corrupted by a fault
                if b'@trade"' in frame[:64]:
                    self._trade(life, frame)
                elif b'@bookTicker"' in frame[:64]:
                    self._quote(_quote_frame.decode(frame).data, newest)
        for symbol, quote in newest.items():
            if quote > self._newest.get((life, symbol), (-1, -1)):
                self._newest[life, symbol] = quote
                self.quotes.append(ReadQuote(life, symbol, *quote, self._clock.seconds))

    def _trade(self, life: int, frame: bytes) -> None:
        if self._microseconds:
            trade = _trade_frame.decode(frame).data
            if trade.T < _EARLIEST_US and is_decimal(trade.p) and is_decimal(trade.q):
                self.rejectable[Rejectable(life, trade.s, trade.t, frame)].append(self._clock.seconds)

    def _quote(self, data: _QuoteData, newest: dict[str, tuple[int, int]]) -> None:
        rows = self._truth.symbol(data.s).quotes_by_id.get(data.u, [])
        same = [row for row in rows if (*row.bid, *row.ask) == (data.b, data.B, data.a, data.A)]
        if same:
            newest[data.s] = max(newest.get(data.s, (-1, -1)), (same[-1].series, data.u))
        elif not all(map(is_decimal, (data.b, data.B, data.a, data.A))):
            self.spoiled_quotes[data.s, data.u] += 1
