"""What has to be true of a session. Names of invariants are what a failing plan is made smaller by.

Online: each record is judged when it is written (`written`), because a process may die at any write. What needs the
fate of a process, or the whole log, is judged at the end (`check_end`). What the endpoints say is judged once a second
(watch.py).
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from marketfeed_simtest.clock import START_SECONDS, Clock
from marketfeed_simtest.kafka_log import Cluster, Record
from marketfeed_simtest.truth import TrueTrade, Truth
from marketfeed_wire import (
    BookTicker,
    DecodeError,
    Gap,
    Trade,
    decode_book_ticker,
    decode_gap,
    decode_progress,
    decode_trade,
)

INVARIANTS: Final[Mapping[str, str]] = {
    # trades
    "lost_unreported": "each id that the venue had since the symbol began is in the topic or reported missing",
    "false_missing": "an id that is reported missing at the end is not in the topic",
    "false_absent": "an id that is reported absent never was",
    "invented_trade": "no trade is published that the venue never had",
    "wrong_content": "price, quantity and side are the venue's",
    "wrong_time": "the trade's time is the venue's",
    "identity_reused": "id series and id together stand for one trade, also when the venue begins ids again",
    "published_twice": "no process publishes a trade twice",
    "repeated_after_clean_stop": "what a process published that exited with 0 is not published again by the next",
    "repeated_too_much": "after a crash only what the checkpoint had not covered is published again",
    "out_of_order": "trades of one process are in order of id, but for ids that a gap record covers",
    "held_too_long": "a trade waits for earlier ones no longer than GAP_HOLD_SECONDS",
    # ledger
    "checkpoint_past_gap": "at every write: nothing up to the checkpoint is neither stored nor reported missing",
    "checkpoint_behind": "the checkpoint follows the acknowledgements within its interval and a few seconds",
    "gap_order": "of two records of one gap the later one bears the later time",
    "gap_without_fault": "without faults there is no gap, rotations included",
    # quotes
    "invented_quote": "no quote is published that the venue never had, and its prices and quantities are the venue's",
    "quote_backwards": "update ids of one process rise",
    "last_quote_lost": "the last quote of each symbol arrives",
    # liveness and manners
    "not_backfilled": "once all is well, what REST can give or deny is not missing for longer than a minute",
    "no_progress": "once all is well, the newest trade arrives",
    "not_ready": "once all is well, the worker is ready",
    "ready_while_stalled": "a ready worker is not behind on a stream for longer than a minute",
    "venue_limits": "messages, attempts, request weight and Retry-After are respected",
    "exit_code": "a stop while all is well exits with 0",
    "no_stop": "a stop ends within its deadline",
    "crashed": "the worker ends by no exception",
    # bounds and truthfulness
    "unbounded_collection": "no collection of the worker grows with the number of messages",
    "unbounded_log": "log lines a minute are bounded",
    "wrong_metric": "metrics say what the topics, the venue and the gap records say",
    "harness": "the simulation itself works",
}
"""Name -> what has to hold."""


class Fate(Protocol):
    """What the oracle has to know of a process; see `life.Life`."""

    number: int
    began: float
    ended: float
    code: int


@dataclass(slots=True)
class Stored:
    """What the trades topic holds of one trade, beyond its first record."""

    life: int
    seconds: float


@dataclass(slots=True)
class SymbolRecords:
    """What the topics hold of one symbol.

    Attributes:
        stored: (series, id) -> its records.
        unstored: series 0, ids that the venue had and the topic has not, in order.
        begins: the id at which the symbol begins; None before anything of it is known.
        checkpoint: the newest one.
        gaps: (id series of the messages, first id) -> the newest record of that gap.
        identities: (id series of the messages, id) -> the venue's series that it stands for.
        gaps_ever: ranges that ever had a record.
        newest: (process, series) -> highest id that it published.
        uncovered: trades beyond the checkpoint: id, when it was written, by which process.
        suspects: trades out of order so far, unless a gap record covers them: id, highest id before, when.
    """

    stored: dict[tuple[int, int], list[Stored]] = field(default_factory=dict)
    begins: int | None = None
    checkpoint: int | None = None
    gaps: dict[tuple[int, int], tuple[Gap, Record]] = field(default_factory=dict)
    gaps_ever: list[tuple[int, int]] = field(default_factory=list)
    identities: dict[tuple[int, int], int] = field(default_factory=dict)
    newest: dict[tuple[int, int], int] = field(default_factory=dict)
    suspects: list[tuple[int, int, float]] = field(default_factory=list)
    repeats: list[tuple[tuple[int, int], Stored, Stored]] = field(default_factory=list)
    checked: int = 0
    unstored: dict[int, TrueTrade] = field(default_factory=dict)
    uncovered: deque[tuple[int, float, int]] = field(default_factory=deque)
    newest_quote: dict[tuple[int, int], int] = field(default_factory=dict)
    last_quote: tuple[int, int] = (-1, -1)

    def is_reported(self, number: int, *, is_first_series: bool = True) -> bool:
        """Whether the newest gap records report an id missing."""
        return any(
            inside(gap.missing, number)
            for (series, _), (gap, _) in self.gaps.items()
            if (series == 0) == is_first_series
        )


class Oracle:
    """Judges a session.

    Attributes:
        violations: invariant -> the first time that it did not hold, in a sentence.
        allowance_seconds: what outages, slow brokers and frozen processes excuse, in all.
    """

    def __init__(
        self, clock: Clock, cluster: Cluster, truth: Truth, topics: Mapping[str, str], hold_seconds: float
    ) -> None:
        self.violations: dict[str, str] = {}
        self.allowance_seconds = 0.0
        self.clock_was_set = False
        self.undecodable_quotes = 0
        self.symbols: dict[str, SymbolRecords] = defaultdict(SymbolRecords)
        self.written_by: dict[tuple[int, str], int] = defaultdict(int)
        self.fates: dict[int, Fate] = {}
        self._clock = clock
        self._cluster = cluster
        self._truth = truth
        self._hold_seconds = hold_seconds
        self._judges: dict[str, Callable[[Record], None]] = {
            topics["trades"]: self._trade,
            topics["book_ticker"]: self._quote,
            topics["gaps"]: self._gap,
            topics["progress"]: self._progress,
        }
        cluster.on_write.append(self.written)

    def violate(self, name: str, text: str) -> None:
        """An invariant does not hold."""
        if name not in INVARIANTS:
            raise KeyError(name)
        self.violations.setdefault(name, f"t={self._clock.seconds:.2f} {text}")

    def written(self, record: Record) -> None:
        """A record stands in a topic."""
        self.written_by[record.life, record.topic] += 1
        judge = self._judges.get(record.topic)
        if judge is not None:
            judge(record)

    # trades
    def _trade(self, record: Record) -> None:
        trade = decode_trade(record.value or b"")
        true = self._true_trade(trade)
        if true is None:
            return
        self._check_time(trade, true, record)
        known = self.symbols[trade.symbol]
        known.begins = true.id if known.begins is None and not true.series else known.begins
        series = known.identities.setdefault((trade.id_series, trade.trade_id), true.series)
        if series != true.series:
            self.violate("identity_reused", f"{trade.symbol} {trade.trade_id} of id series {trade.id_series}")
        self._check_repeats(known, trade, true, record)
        place = record.life, true.series
        before = known.newest.get(place, -1)
        if true.id < before:
            known.suspects.append((true.id, before, record.seconds))
        known.newest[place] = max(true.id, before)
        if not true.series:
            known.unstored.pop(true.id, None)
            if known.checkpoint is None or true.id > known.checkpoint:
                known.uncovered.append((true.id, record.seconds, record.life))

    def _true_trade(self, trade: Trade) -> TrueTrade | None:
        """The venue's trade that was published; the series of its ids is told by its content and time."""
        rows = self._truth.symbol(trade.symbol).trades_by_id.get(trade.trade_id, [])
        same = [
            row
            for row in rows
            if (row.price, row.qty, row.buyer_is_maker) == (trade.price, trade.qty, trade.buyer_is_maker)
        ]
        if not rows:
            self.violate("invented_trade", f"{trade.symbol} {trade.trade_id}: the venue never had it")
        elif not same:
            self.violate("wrong_content", f"{trade.symbol} {trade.trade_id}: {trade.price} x {trade.qty}")
        at_that_time = [row for row in same if row.time_us // 1000 == trade.trade_time_us // 1000]
        same = at_that_time or same
        return same[-1] if same else None

    def _check_time(self, trade: Trade, true: TrueTrade, record: Record) -> None:
        if trade.trade_time_us // 1000 != true.time_us // 1000:
            self.violate(
                "wrong_time", f"{trade.symbol} {trade.trade_id}: {trade.trade_time_us} for {true.time_us}"
            )
        event_us = trade.event_time_us
        if event_us is not None and not -1000 <= event_us - true.time_us <= 2000:
            self.violate("wrong_time", f"{trade.symbol} {trade.trade_id}: event time {event_us}")
        waited = START_SECONDS + record.seconds - trade.received_time_us / 1e6
        if not self.clock_was_set and waited > self._hold_seconds + 3 + self.allowance_seconds:
            self.violate(
                "held_too_long", f"{trade.symbol} {trade.trade_id}: written {waited:.1f} s after receipt"
            )

    def _check_repeats(self, known: SymbolRecords, trade: Trade, true: TrueTrade, record: Record) -> None:
        records = known.stored.setdefault((true.series, true.id), [])
        now = Stored(record.life, record.seconds)
        for before in records:
            if before.life == record.life:
                self.violate("published_twice", f"{trade.symbol} {trade.trade_id} by process {record.life}")
            else:
                known.repeats.append(((true.series, true.id), before, now))
        records.append(now)

    # quotes
    def _quote(self, record: Record) -> None:
        try:
            quote = decode_book_ticker(record.value or b"")
        except DecodeError:
            self.undecodable_quotes += 1  # decimals of quotes are checked by the consumers, see mapper.reader
            return
        rows = self._truth.symbol(quote.symbol).quotes_by_id.get(quote.update_id, [])
        same = [row for row in rows if (*row.bid, *row.ask) == _prices(quote)]
        if not same:
            self.violate("invented_quote", f"{quote.symbol} {quote.update_id}: {_prices(quote)}")
            return
        known, series = self.symbols[quote.symbol], same[-1].series
        before = known.newest_quote.get((record.life, series), -1)
        if quote.update_id <= before:
            self.violate("quote_backwards", f"{quote.symbol} {quote.update_id} after {before}")
        known.newest_quote[record.life, series] = max(before, quote.update_id)
        known.last_quote = max(known.last_quote, (series, quote.update_id))

    # the ledger
    def _gap(self, record: Record) -> None:
        gap = decode_gap(record.value or b"")
        known = self.symbols[gap.symbol]
        before = known.gaps.get((gap.id_series, gap.first_id))
        if (
            before is not None
            and gap.updated_time_us < before[0].updated_time_us
            and not self._side_by_side(before[1].life, record.life)
        ):
            self.violate(
                "gap_order", f"{gap.symbol} gap {gap.first_id}: {gap.state} is older than the one before"
            )
        known.gaps[gap.id_series, gap.first_id] = gap, record
        known.gaps_ever.append((gap.first_id, gap.last_id))
        self._check_checkpoint(gap.symbol, known)

    def _progress(self, record: Record) -> None:
        if record.key.endswith(b"|quotes"):
            return
        told = decode_progress(record.value or b"")
        known = self.symbols[told.symbol]
        if told.id_series:
            known.uncovered.clear()  # the checkpoint is one of a later series
            return
        if known.begins is None:
            known.begins = told.trade_id + 1
        known.checkpoint = told.trade_id
        while known.uncovered and known.uncovered[0][0] <= told.trade_id:
            known.uncovered.popleft()
        self._check_checkpoint(told.symbol, known)

    def unstored(self, symbol: str) -> dict[int, TrueTrade]:
        """The ids of series 0 that the venue had since the symbol began and the topic has not, in order."""
        known = self.symbols[symbol]
        trades = self._truth.symbol(symbol).trades
        for trade in trades[known.checked :]:
            if not trade.series and (0, trade.id) not in known.stored:
                known.unstored[trade.id] = trade
        known.checked = len(trades)
        return known.unstored

    def _check_checkpoint(self, symbol: str, known: SymbolRecords) -> None:
        """What the next process would begin with, were this one killed now."""
        if known.begins is None or known.checkpoint is None:
            return
        for number in self.unstored(symbol):
            if number > known.checkpoint:
                break
            if number >= known.begins and not known.is_reported(number):
                self.violate(
                    "checkpoint_past_gap", f"{symbol}: {known.checkpoint} is told, {number} is nowhere"
                )
                break

    def _side_by_side(self, first: int, second: int) -> bool:
        one, other = self.fates.get(first), self.fates.get(second)
        return one is not None and other is not None and one is not other and one.ended > other.began


def inside(ranges: Iterable[tuple[int, int]], number: int) -> bool:
    """Whether a number is in one of the ranges, both ends included."""
    return any(first <= number <= last for first, last in ranges)


def _prices(quote: BookTicker) -> tuple[Any, ...]:
    return quote.bid_price, quote.bid_qty, quote.ask_price, quote.ask_qty
