"""Comparison of the database with the simulator's ledger of sent trades.

The system keeps running meanwhile: a ledger is read, and every trade in it must be in the database
soon. A symbol that was added later is compared from its first stored trade.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

VENUE: Final = "binance_us"
_STORED: Final = """
SELECT t.symbol, count(*), count(DISTINCT t.trade_id), min(t.trade_id), max(t.trade_id)
FROM trades t JOIN (VALUES {bounds}) b (symbol, first_id, last_id)
  ON t.symbol = b.symbol AND t.trade_id BETWEEN b.first_id AND b.last_id
WHERE t.venue = '{venue}' GROUP BY t.symbol
"""
_FIRST: Final = (
    "SELECT symbol, min(trade_id), max(trade_id) FROM trades WHERE venue = '{venue}' GROUP BY symbol"
)
_CANDLES: Final = """
WITH made AS (
  SELECT venue, symbol, trade_time_us / 60000000 * 60000000 AS open_time_us, count(*) AS trade_count,
    sum(qty) AS volume, sum(price * qty) AS quote_volume, max(price) AS high, min(price) AS low,
    (array_agg(price ORDER BY trade_id))[1] AS open, (array_agg(price ORDER BY trade_id DESC))[1] AS close,
    min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id,
    coalesce(sum(qty) FILTER (WHERE NOT buyer_is_maker), 0) AS buy_volume
  FROM trades GROUP BY 1, 2, 3)
SELECT count(*), count(*) FILTER (WHERE c.open_time_us IS NULL OR m.open_time_us IS NULL OR
    (c.trade_count, c.volume, c.quote_volume, c.high, c.low, c.open, c.close, c.first_trade_id, c.last_trade_id,
     c.buy_volume)
    IS DISTINCT FROM
    (m.trade_count, m.volume, m.quote_volume, m.high, m.low, m.open, m.close, m.first_trade_id, m.last_trade_id,
     m.buy_volume))
FROM made m FULL JOIN candles_1m c USING (venue, symbol, open_time_us)
"""


class Database(Protocol):
    """A database of trades."""

    def rows(self, sql: str) -> list[list[str]]:
        """Return the rows of `sql`, every value as text."""
        ...


@dataclass
class Comparison:
    """Trades sent and stored.

    Attributes:
        symbols: number of symbols compared.
        sent: trades that the venue sent.
        stored: number of these in the database.
        twice: number of trades stored more than once.
        missing: symbol -> number of missing trades.
        candles: one-minute candles that were compared with an aggregate of the trades.
        wrong_candles: those that differ.
        seconds: time from reading the ledger until all of it was stored.
    """

    symbols: int = 0
    sent: int = 0
    stored: int = 0
    twice: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    candles: int = 0
    wrong_candles: int = 0
    seconds: float = 0.0

    def assert_equal(self) -> None:
        """Assert that every trade is stored once, and every candle is its trades' aggregate."""
        worst = dict(sorted(self.missing.items(), key=lambda each: -each[1])[:10])
        assert not self.missing, f"{sum(self.missing.values())} of {self.sent} trades are missing: {worst}"
        assert self.twice == 0, f"{self.twice} trades are stored twice"
        assert self.sent > 0, "the venue sent nothing, so the test is void"
        assert self.stored == self.sent, f"{self.stored} of {self.sent} trades are stored"
        assert self.wrong_candles == 0, (
            f"{self.wrong_candles} of {self.candles} candles differ from their trades"
        )


@dataclass(frozen=True)
class Bounds:
    """The expected trades of one symbol: ids `first` to `last`, without `absent`, which the venue skipped."""

    first: int
    last: int
    absent: int = 0

    @property
    def trades(self) -> int:
        return self.last - self.first + 1 - self.absent


def bounds_of(
    ledger: Mapping[str, Any], first_stored: Mapping[str, int], symbols: Iterable[str] | None = None
) -> dict[str, Bounds]:
    """Return the trades of each symbol that must be stored according to `ledger`.

    Args:
        ledger: ledger of the simulator.
        first_stored: symbol -> its first stored trade; other symbols are compared from their first trade.
        symbols: symbols that are read; None for all of the ledger's.
    """
    chosen = None if symbols is None else set(symbols)
    found = {}
    for symbol, sent in ledger["symbols"].items():
        if not sent["trades"] or (chosen is not None and symbol not in chosen):
            continue
        first = max(sent["first_trade_id"], first_stored.get(symbol, sent["first_trade_id"]))
        last = sent["last_trade_id"]
        if last < first:
            continue
        skipped = sum(
            max(0, min(end, last) - max(begin, first) + 1) for begin, end in sent["absent_trade_ids"]
        )
        found[symbol] = Bounds(first, last, skipped)
    return found


def first_stored(database: Database) -> dict[str, int]:
    """Return symbol -> its first stored trade."""
    return {symbol: int(first) for symbol, first, _ in database.rows(_FIRST.format(venue=VENUE))}


def last_stored(database: Database) -> dict[str, int]:
    """Return symbol -> its last stored trade."""
    return {symbol: int(last) for symbol, _, last in database.rows(_FIRST.format(venue=VENUE))}


def compare(
    database: Database, bounds: Mapping[str, Bounds], *, seconds: float, every: float = 2.0
) -> Comparison:
    """Compare until everything within `bounds` is stored or `seconds` have passed, then the candles as well."""
    begun = time.monotonic()
    while True:
        made = _compare_trades(database, bounds)
        made.seconds = time.monotonic() - begun
        if not made.missing or made.seconds > seconds:
            break
        time.sleep(every)
    made.candles, made.wrong_candles = (int(number) for number in database.rows(_CANDLES)[0])
    return made


def _compare_trades(database: Database, bounds: Mapping[str, Bounds]) -> Comparison:
    made = Comparison(symbols=len(bounds), sent=sum(each.trades for each in bounds.values()))
    if not bounds:
        return made
    values = ", ".join(f"('{symbol}', {each.first}, {each.last})" for symbol, each in bounds.items())
    counted = {
        symbol: (int(rows), int(distinct))
        for symbol, rows, distinct, _, _ in database.rows(_STORED.format(bounds=values, venue=VENUE))
    }
    for symbol, each in bounds.items():
        rows, distinct = counted.get(symbol, (0, 0))
        made.stored += distinct
        made.twice += rows - distinct
        if each.trades - distinct:
            made.missing[symbol] = each.trades - distinct
    return made
