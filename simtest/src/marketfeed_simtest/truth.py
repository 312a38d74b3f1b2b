"""The venue's true history, from the market model: the reference of the oracle."""

from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import json

from marketfeed_simtest.clock import Clock
from marketfeed_simulator.frames import Frame


class TrueTrade(NamedTuple):
    """A trade of the market.

    Attributes:
        series: number of earlier restarts of the symbol's ids.
        event_us: time at which the venue sent it, by its clock.
        seconds: the same by the session's clock.
    """

    series: int
    id: int
    price: str
    qty: str
    buyer_is_maker: bool
    time_us: int
    event_us: int
    seconds: float


class TrueQuote(NamedTuple):
    """A quote of the market."""

    series: int
    id: int
    bid: tuple[str, str]
    ask: tuple[str, str]
    seconds: float


@dataclass(slots=True)
class TrueSymbol:
    """One symbol's history."""

    series: int = 0
    trades: list[TrueTrade] = field(default_factory=list)
    trades_by_id: dict[int, list[TrueTrade]] = field(default_factory=dict)
    quotes: list[TrueQuote] = field(default_factory=list)
    quotes_by_id: dict[int, list[TrueQuote]] = field(default_factory=dict)

    def behind(self, last_id: int | None) -> TrueTrade | None:
        """Return the oldest trade after the one with `last_id`, in the newest series that has it; None without one."""
        oldest = None
        for trade in reversed(self.trades):
            if last_id is not None and trade.id == last_id:
                return oldest
            oldest = trade
        return None


class Truth:
    """History of each symbol."""

    def __init__(self, clock: Clock) -> None:
        self.symbols: dict[str, TrueSymbol] = {}
        self._clock = clock

    def symbol(self, name: str) -> TrueSymbol:
        """Return a symbol's history, possibly empty."""
        known = self.symbols.get(name)
        if known is None:
            known = self.symbols[name] = TrueSymbol()
        return known

    def record(self, frame: Frame) -> None:
        """Add a frame of the market."""
        symbol = self.symbol(frame.symbol)
        if frame.trade is not None:
            row = frame.trade
            trade = TrueTrade(
                symbol.series,
                row.id,
                row.price,
                row.qty,
                row.buyer_is_maker,
                row.time_us,
                frame.event_time_us or row.time_us,
                self._clock.seconds,
            )
            symbol.trades.append(trade)
            symbol.trades_by_id.setdefault(row.id, []).append(trade)
        elif frame.kind == "quote":
            data = json.decode(frame.data)
            quote = TrueQuote(
                symbol.series, frame.id, (data["b"], data["B"]), (data["a"], data["A"]), self._clock.seconds
            )
            symbol.quotes.append(quote)
            symbol.quotes_by_id.setdefault(frame.id, []).append(quote)

    def restart(self, name: str) -> None:
        """Start a new id series of the symbol."""
        self.symbol(name).series += 1
