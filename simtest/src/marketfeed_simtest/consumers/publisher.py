"""Model of workers for consumers: records of a market, each with its expected effect."""

import random
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from marketfeed_simtest.clock import START_SECONDS, Clock
from marketfeed_simtest.consumers import faults
from marketfeed_simtest.consumers.meaning import Meaning, of_gap, of_quote, of_trade
from marketfeed_simtest.consumers.plan import Plan
from marketfeed_simtest.consumers.store import REFUSED_QTY
from marketfeed_simtest.consumers.topics import Brokers, Entry
from marketfeed_wire import BookTicker, Gap, RejectedMessage, Trade, encode, key_for

VENUE: Final = "binance_us"
_HISTORY_STEP_US: Final = 3 * 3_600_000_000
_FIRST_ID: Final = 1000


class _Symbol:
    """One symbol's market."""

    def __init__(self, name: str, rates: tuple[float, float]) -> None:
        self.name = name
        self.rates = rates
        self.owed = [0.0, 0.0]
        self.next_id = _FIRST_ID
        self.first_id = _FIRST_ID
        self.series = 0
        self.update_id = 0
        self.trades: list[Trade] = []
        self.quotes: list[BookTicker] = []
        self.hidden = 0
        self.hidden_trades: list[Trade] = []


class Publisher:
    """Publisher to the model of Kafka."""

    def __init__(
        self,
        plan: Plan,
        clock: Clock,
        brokers: Brokers,
        report: Callable[[Entry, Meaning], None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.records = 0
        self._clock = clock
        self._brokers = brokers
        self._report = report
        self._later = later
        self._rng = random.Random(f"market {plan.seed}")  # noqa: S311 - a market
        self._symbols = [_Symbol(f"S{number}USDT", rates) for number, rates in enumerate(plan.rates)]
        now_us = int(START_SECONDS * 1e6)
        for symbol in self._symbols:
            for number in range(plan.history):
                self._next_trade(symbol, now_us - (plan.history - number) * _HISTORY_STEP_US)
                self._next_quote(symbol, now_us - (plan.history - number) * _HISTORY_STEP_US)

    def tick(self, seconds: float) -> None:
        """Publish the records of a time span."""
        if not self._brokers.are_up:
            return  # the workers buffer it
        now_us = self._clock.true_us()
        for symbol in self._symbols:
            for kind, rate in enumerate(symbol.rates):
                symbol.owed[kind] += rate * seconds * self._rng.uniform(0.5, 1.5)
                while symbol.owed[kind] >= 1:
                    symbol.owed[kind] -= 1
                    (self._next_quote if kind else self._next_trade)(symbol, now_us)

    def apply(self, fault: faults.EachFault) -> None:
        """Publish the records of a fault."""
        match fault:
            case faults.Repeat():
                self._repeat(self._symbols[fault.symbol], fault)
            case faults.Gap():
                self._gap(self._symbols[fault.symbol], fault)
            case faults.Series():
                self._begin_series(self._symbols[fault.symbol], fault.first_id)
            case faults.Old():
                self._publish_old(self._symbols[fault.symbol], fault.count)
            case faults.Poison():
                for _ in range(fault.count):
                    self._poison(self._symbols[fault.symbol], fault.what)
            case faults.Transaction():
                self._transaction(self._symbols[fault.symbol], fault)
            case faults.Burst():
                for _ in range(fault.count):
                    self._next_trade(self._symbols[fault.symbol], self._clock.true_us())

    def _publish_old(self, symbol: _Symbol, count: int) -> None:
        """Publish trades from before the symbol's first, of its first id series."""
        begin_us = int(START_SECONDS * 1e6) - 100 * 3_600_000_000
        for _ in range(count):
            symbol.first_id -= 1
            age_us = (_FIRST_ID - symbol.first_id) * _HISTORY_STEP_US // 4
            made = self._trade(symbol, symbol.first_id, begin_us - age_us)
            self._publish_trade(replace(made, origin="backfill", id_series=0))

    def _trade(self, symbol: _Symbol, trade_id: int, time_us: int) -> Trade:
        return Trade(
            VENUE, symbol.name, trade_id, f"{60000 + trade_id * 7 % 11}.{trade_id % 100:02}0",
            f"0.{trade_id % 97 + 1:04}", trade_id % 3 == 0, time_us, time_us + trade_id % 5 if trade_id % 4 else None,
            self._clock.true_us(), id_series=symbol.series,
        )  # fmt: skip

    def _begin_series(self, symbol: _Symbol, first_id: int) -> None:
        """Start a new id series; unpublished trades of the previous one stay so, unless they are backfilled later."""
        symbol.series += 1
        symbol.next_id, symbol.update_id, symbol.hidden = first_id, 0, 0

    def _next_trade(self, symbol: _Symbol, time_us: int) -> None:
        trade = self._trade(symbol, symbol.next_id, time_us + symbol.next_id % 7)
        symbol.next_id += 1
        if symbol.hidden:
            symbol.hidden -= 1
            symbol.hidden_trades.append(trade)
            return
        symbol.trades.append(trade)
        self._publish_trade(trade)

    def _next_quote(self, symbol: _Symbol, time_us: int) -> None:
        symbol.update_id += self._rng.choice((1, 1, 3))
        number = symbol.update_id
        quote = BookTicker(
            VENUE,
            symbol.name,
            number,
            f"{60000 + number % 13}.5",
            "1.25",
            f"{60001 + number % 13}",
            "0.5",
            time_us - number % 5 if number % 4 else None,
            time_us,
            id_series=symbol.series,
        )
        symbol.quotes.append(quote)
        self._publish("book_tickers", symbol.name, encode(quote), of_quote(quote))

    def _publish_trade(self, trade: Trade) -> None:
        self._publish("trades", trade.symbol, encode(trade), of_trade(trade))

    def _publish(self, topic: str, symbol: str, value: bytes, meaning: Meaning) -> None:
        entry = self._brokers.append(topic, key_for(symbol), value)
        if entry is not None:
            self.records += 1
            self._report(entry, meaning)

    def _repeat(self, symbol: _Symbol, fault: faults.Repeat) -> None:
        if fault.quotes:
            for quote in symbol.quotes[-fault.count :]:
                other = replace(quote, bid_qty="9.75") if fault.differing else quote
                self._publish("book_tickers", symbol.name, encode(other), of_quote(other))
            return
        for trade in symbol.trades[-fault.count :]:
            # The same trade over REST: equal numbers with other digits, received later.
            duplicate = replace(
                trade, price=f"{trade.price}0", origin="backfill", received_time_us=self._clock.true_us()
            )
            if fault.differing:
                duplicate = replace(trade, qty=f"7.{trade.trade_id % 3}")
            self._publish_trade(duplicate)

    def _gap(self, symbol: _Symbol, fault: faults.Gap) -> None:
        symbol.hidden += fault.count
        symbol.hidden_trades = []
        if fault.fill_seconds is not None:
            self._later(fault.fill_seconds, lambda: self._fill(symbol))
        elif fault.absent:
            first, last, series = symbol.next_id, symbol.next_id + fault.count - 1, symbol.series
            self._later(2.0, lambda: self._prove_absent(symbol, series, first, last))

    def _fill(self, symbol: _Symbol) -> None:
        hidden, symbol.hidden_trades = symbol.hidden_trades, []
        for trade in self._rng.sample(hidden, len(hidden)):
            self._publish_trade(replace(trade, origin="backfill"))

    def _prove_absent(self, symbol: _Symbol, series: int, first: int, last: int) -> None:
        now_us = self._clock.true_us()
        gap = Gap(
            venue=VENUE, symbol=symbol.name, first_id=first, last_id=last, state="absent", missing=[],
            absent=[(first, last)], proof="aggTrades", detected_time_us=now_us, updated_time_us=now_us,
            id_series=series,
        )  # fmt: skip
        self._publish("trade_gaps", symbol.name, encode(gap), of_gap(gap))

    def _poison(self, symbol: _Symbol, what: str) -> None:
        unknown = (VENUE, symbol.name, 0)
        trade = self._trade(symbol, symbol.next_id, self._clock.true_us())
        if what in ("named", "refused"):
            symbol.next_id += 1
        value, topic = (
            b"junk",
            {"quote": "book_tickers", "gap": "trade_gaps", "reported": "dead_letters"}.get(what, "trades"),
        )
        if what == "named":
            value = encode(trade).replace(b'"price":"', b'"price":"1E')
        elif what == "refused":
            value = encode(replace(trade, qty=str(REFUSED_QTY)))
        elif what == "reported":
            value = encode(
                RejectedMessage(
                    venue=VENUE, symbol=symbol.name, stream="trade", trade_id=None, reason="impossible_time",
                    details="1970", raw=b"{}", received_time_us=self._clock.true_us(),
                )
            )  # fmt: skip
        self._publish(topic, symbol.name, value, Meaning("letter", unknown, None, ()))

    def _transaction(self, symbol: _Symbol, fault: faults.Transaction) -> None:
        key = key_for(symbol.name)
        for _ in range(fault.count):
            if fault.commits:
                self._next_trade(symbol, self._clock.true_us())
            else:
                # A real producer sends aborted records again; here they are not.
                trade = self._trade(symbol, symbol.next_id, self._clock.true_us())
                self._brokers.append("trades", key, encode(trade), "aborted")
        self._brokers.append("trades", key, None, "control")
