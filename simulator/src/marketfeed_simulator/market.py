"""Market generated from a seed: trades and quotes of any number of symbols as Poisson processes.

Equal seed, symbols, rates and start give equal frames, byte for byte. Trade ids are contiguous per symbol except for
those skipped by `skip_ids`; update ids increase by more than one, as at the venue. Prices move in ticks around their
initial value and stay above zero.
"""

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from marketfeed_simulator.frames import Frame, TradeRow
from marketfeed_simulator.instruments import Instrument, decimal

_FILLS: Final = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3)
"""Trades per taker order; their mean converts a trade rate to an order rate."""
_FILLS_MEAN: Final = sum(_FILLS) / len(_FILLS)
_MATCHING_US: Final = 400
"""Delay from a trade to its event: the venue's E is a little later than T."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Mean event rates of a symbol, per second."""

    trades: float
    quotes: float


class _Book:
    """One symbol's best bid and ask in ticks, and its ids."""

    __slots__ = (
        "aggregate_id",
        "ask",
        "ask_qty",
        "bid",
        "bid_qty",
        "home",
        "instrument",
        "order_id",
        "rates",
        "trade_id",
        "update_id",
    )

    def __init__(self, instrument: Instrument, rates: Rates, rng: random.Random) -> None:
        self.instrument = instrument
        self.rates = rates
        self.home = max(4, instrument.price // instrument.tick)
        self.bid = self.home - 1
        self.ask = self.home
        self.trade_id = rng.randrange(1_000_000, 900_000_000)
        self.update_id = rng.randrange(1_000_000_000, 50_000_000_000)
        self.order_id = rng.randrange(1_000_000_000, 9_000_000_000)
        self.aggregate_id = self.trade_id // 2
        self.bid_qty = self.ask_qty = instrument.size

    def move(self, rng: random.Random) -> None:
        """Move best bid and ask by a random step, biased towards the initial price."""
        step = rng.choice((-2, -1, -1, 0, 0, 0, 0, 1, 1, 2))
        if rng.random() < abs(self.bid - self.home) / self.home:
            step = 1 if self.bid < self.home else -1
        self.bid = max(1, self.bid + step)
        self.ask = self.bid + rng.choice((1, 1, 1, 1, 2, 3))
        self.bid_qty = self.size(rng)
        self.ask_qty = self.size(rng)
        self.update_id += rng.randrange(1, 12)

    def size(self, rng: random.Random) -> int:
        """Return a random quantity in units of 1e-8, at least one."""
        return 1 + int(rng.expovariate(1 / self.instrument.size))


class GeneratedMarket:
    """A `Source` of generated frames.

    Args:
        instruments: symbol and rates of each market.
        seed: equal seeds give equal markets.
        start_us: the market's time at the start.
        duration_us: duration; None for no end.
        order_ids: whether trades carry order ids (`Venue.order_ids`).
        aggregates: whether there are aggTrade streams, too.

    Attributes:
        skew_us: how far the clock of the event times is ahead.
    """

    def __init__(
        self,
        instruments: list[tuple[Instrument, Rates]],
        *,
        seed: int,
        start_us: int,
        duration_us: int | None = None,
        order_ids: bool = True,
        aggregates: bool = False,
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - a market, not a secret
        self._start_us = start_us
        self._end_us = None if duration_us is None else start_us + duration_us
        self._order_ids = order_ids
        self._aggregates = aggregates
        self._factor = 1.0
        self.skew_us = 0
        self._books: dict[str, _Book] = {}
        self._ready: list[Frame] = []
        self._next_us: float | None = None
        self._now_us: float = start_us
        for instrument, rates in instruments:
            self._books[instrument.symbol] = _Book(instrument, rates, self._rng)
        self._weigh()

    @property
    def streams(self) -> frozenset[str]:
        """Trade, bookTicker and aggTrade streams of the symbols that trade now."""
        kinds = ("trade", "aggTrade") if self._aggregates else ("trade",)
        names = set()
        for book in self._trading():
            symbol = book.instrument.symbol.lower()
            names |= {f"{symbol}@{kind}" for kind in kinds if book.rates.trades}
            names |= {f"{symbol}@bookTicker"} if book.rates.quotes else set()
        return frozenset(names)

    @property
    def start_us(self) -> int:
        """Time at which the market starts."""
        return self._start_us

    @property
    def finished(self) -> bool:
        """Whether the duration is over."""
        return not self._ready and self._end_us is not None and (self._now_us >= self._end_us)

    def next_us(self) -> int | None:
        """Return when the next event is due; None while nothing trades, or at the end."""
        if self._ready:
            return self._ready[0].time_us
        return None if self._next_us is None else int(self._next_us)

    def pull(self, until_us: int | None, most: int) -> list[Frame]:
        """Return the next frames up to and including `until_us`, at most `most`."""
        frames = self._ready
        while len(frames) < most and self._next_us is not None:
            if until_us is not None and self._next_us > until_us:
                break
            self._now_us = self._next_us
            self._event(frames, int(self._next_us))
            self._schedule()
        self._ready = frames[most:]
        if until_us is not None and not self._ready and len(frames) < most:
            self._now_us = max(self._now_us, until_us)
        return frames[:most]

    def set_status(self, symbol: str, status: str) -> None:
        """Set the trading status of a symbol. Raises KeyError: unknown symbol."""
        self._books[symbol].instrument.status = status
        self._weigh()

    def add(self, instrument: Instrument, rates: Rates) -> None:
        """Start trading a symbol; a symbol that was traded before continues with its ids."""
        book = self._books.get(instrument.symbol)
        if book is None:
            self._books[instrument.symbol] = _Book(instrument, rates, self._rng)
        else:
            book.instrument, book.rates = instrument, rates
        self._weigh()

    def remove(self, symbol: str) -> None:
        """Stop trading a symbol. Raises KeyError: unknown symbol."""
        self.set_status(symbol, "BREAK")

    def skip_ids(self, symbol: str, count: int) -> None:
        """Skip the next `count` trade ids: they never exist at the venue. Raises KeyError: unknown symbol."""
        self._books[symbol].trade_id += count

    def restart_ids(self, symbol: str, last_id: int) -> None:
        """Restart trade ids and update ids after `last_id`. Raises KeyError: unknown symbol."""
        book = self._books[symbol]
        book.trade_id = book.update_id = last_id

    def last_trade_id(self, symbol: str) -> int:
        """Return the id of the newest trade, or the id before the first. Raises KeyError: unknown symbol."""
        return self._books[symbol].trade_id

    def set_burst(self, factor: float) -> None:
        """Multiply every rate by `factor`; 1 is normal."""
        self._factor = factor
        self._weigh()

    def _trading(self) -> list[_Book]:
        return [book for book in self._books.values() if book.instrument.status == "TRADING"]

    def _weigh(self) -> None:
        """Recompute the weights of the symbols. The sum of Poisson processes is one with the sum of their rates."""
        self._choices: list[tuple[_Book, bool]] = []
        weights: list[float] = []
        for book in self._trading():
            self._choices += [(book, True), (book, False)]
            weights += [book.rates.trades / _FILLS_MEAN, book.rates.quotes]
        self._bounds = list(accumulate(weights))
        self._schedule()

    def _schedule(self) -> None:
        total = self._bounds[-1] * self._factor if self._bounds else 0
        if total <= 0:
            self._next_us = None
            return
        self._next_us = self._now_us + self._rng.expovariate(total) * 1e6
        if self._end_us is not None and self._next_us >= self._end_us:
            self._next_us, self._now_us = None, self._end_us

    def _event(self, frames: list[Frame], now_us: int) -> None:
        at = bisect_right(self._bounds, self._rng.random() * self._bounds[-1])
        book, is_order = self._choices[min(at, len(self._choices) - 1)]
        if is_order:
            self._order(book, now_us, frames)
        else:
            book.move(self._rng)
            frames.append(_quote(book, now_us))

    def _order(self, book: _Book, now_us: int, frames: list[Frame]) -> None:
        """Append the trades of one taker order at the best price, and their aggregate."""
        rng, stamp_us = self._rng, now_us + self.skew_us
        buyer_is_maker = rng.random() < 0.5
        price = decimal((book.bid if buyer_is_maker else book.ask) * book.instrument.tick)
        book.aggregate_id += 1
        book.order_id += rng.randrange(1, 9)
        taker_order, first_id, total = book.order_id, book.trade_id + 1, 0
        for _ in range(rng.choice(_FILLS)):
            book.trade_id += 1
            size = book.size(rng)
            total += size
            row = TradeRow(
                book.trade_id,
                price,
                decimal(size),
                stamp_us - _MATCHING_US,
                buyer_is_maker,
                book.aggregate_id,
            )
            maker_order = taker_order - rng.randrange(1, 9999)
            buyer, seller = (maker_order, taker_order) if buyer_is_maker else (taker_order, maker_order)
            orders = f'"b":{buyer},"a":{seller},' if self._order_ids else ""
            frames.append(_trade(book.instrument.symbol, row, orders, now_us, stamp_us))
        if self._aggregates:
            aggregate = _aggregate(book.instrument.symbol, row, first_id, decimal(total), now_us, stamp_us)
            frames.append(aggregate)


def _quote(book: _Book, now_us: int) -> Frame:
    symbol, tick = book.instrument.symbol, book.instrument.tick
    data = (
        f'{{"u":{book.update_id},"s":"{symbol}","b":"{decimal(book.bid * tick)}","B":"{decimal(book.bid_qty)}",'
        f'"a":"{decimal(book.ask * tick)}","A":"{decimal(book.ask_qty)}"}}'
    )
    return Frame(f"{symbol.lower()}@bookTicker", symbol, "quote", now_us, book.update_id, data.encode())


def _trade(symbol: str, row: TradeRow, orders: str, now_us: int, stamp_us: int) -> Frame:
    data = (
        f'{{"e":"trade","E":{stamp_us // 1000},"s":"{symbol}","t":{row.id},"p":"{row.price}","q":"{row.qty}",{orders}'
        f'"T":{row.time_us // 1000},"m":{"true" if row.buyer_is_maker else "false"},"M":true}}'
    )
    stream = f"{symbol.lower()}@trade"
    return Frame(stream, symbol, "trade", now_us, row.id, data.encode(), row, event_time_us=stamp_us)


def _aggregate(symbol: str, last: TradeRow, first_id: int, qty: str, now_us: int, stamp_us: int) -> Frame:
    data = (
        f'{{"e":"aggTrade","E":{stamp_us // 1000},"s":"{symbol}","a":{last.aggregate_id},"p":"{last.price}",'
        f'"q":"{qty}","f":{first_id},"l":{last.id},"T":{last.time_us // 1000},'
        f'"m":{"true" if last.buyer_is_maker else "false"},"M":true}}'
    )
    stream = f"{symbol.lower()}@aggTrade"
    return Frame(stream, symbol, "other", now_us, last.aggregate_id, data.encode(), event_time_us=stamp_us)
