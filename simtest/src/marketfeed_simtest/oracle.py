"""Invariants of a session. A failing plan is shrunk by the name of the violated invariant.

Each record is checked when it is written (`written`), because a process may die at any write. Checks that depend on the
fate of a process, or on the whole log, run at the end (`check_end`), checks of the endpoints once a second
(watch.py).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from marketfeed_simtest.clock import Clock
from marketfeed_simtest.deliveries import Deliveries
from marketfeed_simtest.excuses import Excuses
from marketfeed_simtest.holding import HoldJudge
from marketfeed_simtest.kafka_log import Cluster, Record
from marketfeed_simtest.quotes import QuoteJudge
from marketfeed_simtest.records import SeriesRecords, Stored, SymbolRecords
from marketfeed_simtest.rejections import RejectionJudge
from marketfeed_simtest.truth import TrueTrade, Truth
from marketfeed_wire import Trade, decode_checkpoint, decode_gap, decode_trade, key_for

INVARIANTS: Final[Mapping[str, str]] = {
    # trades
    "lost_unreported": "each id that the venue had since the symbol began is in the topic or reported missing",
    "false_missing": "an id that is reported missing at the end is not in the topic",
    "false_absent": "an id that is reported absent never existed",
    "invented_trade": "no trade is published that the venue never had",
    "wrong_content": "price, quantity and side are the venue's",
    "wrong_time": "the trade's time is the venue's, and so is its event's, in the unit in which they were sent",
    "wrong_origin": "venue, origin and key of a message match its source",
    "wrong_rejection": "each message of an impossible time is kept once, unchanged, and no other message is",
    "identity_reused": "id series and id together identify one trade, also when the venue restarts ids",
    "identity_split": "the ids of one of the venue's series are published as one id series",
    "published_twice": "no process publishes a trade twice",
    "repeated_after_clean_stop": "trades of a process that exited with 0 are not published again by the next",
    "repeated_too_much": "after a crash only trades after the checkpoint are published again",
    "out_of_order": "trades of one process are in order of id, except for ids that a gap record covers",
    "held_too_long": "a trade is buffered no longer than GAP_HOLD_SECONDS",
    "flushed_early": "a trade is buffered behind a missing one for GAP_HOLD_SECONDS, and not for less",
    # ledger
    "checkpoint_past_gap": "at every write: nothing up to the checkpoint is neither stored nor reported missing",
    "checkpoint_behind": "the checkpoint follows the acknowledgements within its interval and a few seconds",
    "gap_order": "of two records of one gap the later one has the later time",
    "gap_without_fault": "without faults there is no gap, rotations included",
    # quotes
    "invented_quote": "no quote is published that the venue never had, and its prices and quantities are the venue's",
    "quote_backwards": "update ids of one process rise within an id series",
    "last_quote_lost": "the newest quote of each symbol in each read arrives, and the last one of all",
    # liveness and limits
    "not_backfilled": "after the last fault, no id that REST can return or deny is missing for longer than a minute",
    "no_progress": "after the last fault, the newest trade arrives",
    "not_ready": "after the last fault, the worker is ready",
    "unready_without_fault": "a ready worker stays ready until a fault, rotations included",
    "ready_without_kafka": "a worker is not ready while the brokers have been unreachable for longer than some seconds",
    "last_time_backwards": "the status's time of the newest trade never moves back",
    "ready_while_stalled": "a ready worker does not lag on a stream for longer than the detection time",
    "probes_differ": "/readyz equals the status, and /livez is healthy while the process runs",
    "venue_limits": "messages, attempts, request weight and Retry-After are respected",
    "too_many_requests": "gaps of a symbol cost few REST requests, however long they are",
    "exit_code": "a stop without a fault exits with 0",
    "no_stop": "a stop ends within its deadline",
    "crashed": "the worker does not end by an exception",
    # bounds and truthfulness
    "unbounded_collection": "no collection of the worker grows with the number of messages",
    "unbounded_log": "log lines a minute are bounded",
    "wrong_metric": "metrics equal the topics, the venue's history and the gap records",
    "harness": "the simulation itself works",
}
"""Name -> invariant."""


_ASKING_SECONDS: Final = 8.0
"""Time limit for verifying over REST whether ids have restarted, at a process's first gap."""
_BEGINNING_SECONDS: Final = 60.0
"""The same where they have, and REST does not respond: until ten trades have been received."""


class Fate(Protocol):
    """Interface of a process for the oracle; see `life.Life`."""

    number: int
    began: float
    ended: float
    code: int


class Oracle:
    """Checks a session.

    Attributes:
        violations: invariant -> its first violation, in a sentence.
        excuses: exemptions for outages, slow brokers and frozen processes.
    """

    def __init__(
        self,
        clock: Clock,
        cluster: Cluster,
        truth: Truth,
        topics: Mapping[str, str],
        hold_seconds: float,
        progress_seconds: float,
        *,
        venue: str,
        microseconds: bool,
        deliveries: Deliveries,
        odd_rows: Callable[[], set[tuple[str, int]]],
        judges_holds: bool = False,
    ) -> None:
        self.violations: dict[str, str] = {}
        self.excuses = Excuses()
        self.symbols: dict[str, SymbolRecords] = defaultdict(SymbolRecords)
        self.written_by: dict[tuple[int, str], int] = defaultdict(int)
        self.gap_states: dict[tuple[int, str], set[tuple[str, int, int, int]]] = defaultdict(set)
        self.fates: dict[int, Fate] = {}
        self._clock = clock
        self._cluster = cluster
        self._truth = truth
        self.hold_seconds = hold_seconds
        self._progress_seconds = progress_seconds
        self._venue = venue
        self._unit_us = 1 if microseconds else 1000
        parts = self.violate, self.known_after
        self.quotes = QuoteJudge(truth, deliveries, venue, self.fates, *parts, progress_seconds)
        self.holds = HoldJudge(clock, self.excuses, hold_seconds, self.violate) if judges_holds else None
        self.rejections = RejectionJudge(
            truth,
            deliveries,
            odd_rows,
            lambda symbol: len(self.symbols[symbol].left),
            venue,
            self.fates,
            *parts,
        )
        self._judges: dict[str, Callable[[Record], None]] = {
            topics["trades"]: self._trade,
            topics["book_ticker"]: self.quotes.written,
            topics["rejected"]: self.rejections.written,
            topics["gaps"]: self._gap,
            topics["progress"]: self._progress,
        }
        cluster.on_write.append(self.written)

    def violate(self, name: str, text: str) -> None:
        """Record a violation of an invariant."""
        if name not in INVARIANTS:
            raise KeyError(name)
        self.violations.setdefault(name, f"t={self._clock.seconds:.2f} {text}")

    def written(self, record: Record) -> None:
        """Check a written record."""
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
        if (trade.venue, record.key) != (self._venue, key_for(trade.symbol)):
            self.violate("wrong_origin", f"{trade.symbol} {trade.trade_id}: {trade.venue}, {record.key!r}")
        known = self.symbols[trade.symbol]
        self._check_time(trade, true, record)
        if known.stored or trade.origin == "stream":
            self._check_wait(trade, true, record)
        # Otherwise REST returned it when a stream that has never delivered was probed: it may be from before the
        # subscription, until a later response of REST has a newer one.
        one = known.series[trade.id_series]
        if one.stands_for is None:
            if known.standing_for(true.series) is not None:
                self.violate(
                    "identity_split", f"{trade.symbol} {trade.trade_id}: id series {trade.id_series}, too"
                )
            one.stands_for = true.series
        one.begins = true.id if one.begins is None else one.begins
        series = known.identities.setdefault((trade.id_series, trade.trade_id), true.series)
        if series != true.series:
            self.violate("identity_reused", f"{trade.symbol} {trade.trade_id} of id series {trade.id_series}")
        if self.holds is not None:
            unstored = self.unstored(trade.symbol, true.series)
            self.holds.written(trade, true, record, known, one, unstored)
        repeats = self._check_repeats(known, trade, true, record)
        place = record.life, true.series
        before = known.newest.get(place, -1)
        if true.id < before and not repeats:
            known.suspects.append(((true.series, true.id), before, record.seconds))
        known.newest[place] = max(true.id, before)
        known.unstored[true.series].pop(true.id, None)
        if one.checkpoint is None or true.id > one.checkpoint:
            one.uncovered.append((true.id, record.seconds, record.life))

    def _true_trade(self, trade: Trade) -> TrueTrade | None:
        """Return the venue's trade that was published; its series is determined by content and time."""
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
        # REST returns milliseconds, and no event time.
        is_streamed = trade.origin == "stream"
        unit_us = self._unit_us if is_streamed else 1000
        exact = true.time_us // unit_us * unit_us, true.event_us // unit_us * unit_us if is_streamed else None
        if (trade.trade_time_us, trade.event_time_us) != exact:
            self.violate(
                "wrong_time",
                f"{trade.symbol} {trade.trade_id} by {trade.origin}: {trade.trade_time_us}, "
                f"{trade.event_time_us} for {exact}",
            )
        if self._clock.shown_at(trade.received_time_us, record.seconds) is None:
            self.violate(
                "wrong_time", f"{trade.symbol} {trade.trade_id}: no clock showed its time of receipt"
            )

    def _check_wait(self, trade: Trade, true: TrueTrade, record: Record) -> None:
        received = self._clock.shown_at(trade.received_time_us, record.seconds)
        if received is None:
            return
        waited = record.seconds - received
        # The first trades of a series are buffered until REST or ten trades decide; so is a process's first gap.
        most = self.hold_seconds + (_BEGINNING_SECONDS if true.series else _ASKING_SECONDS)
        if waited > most + self.excuses.between(received, record.seconds):
            self.violate(
                "held_too_long", f"{trade.symbol} {trade.trade_id}: written {waited:.1f} s after receipt"
            )

    def _check_repeats(self, known: SymbolRecords, trade: Trade, true: TrueTrade, record: Record) -> bool:
        """Return whether this process has published the trade before."""
        records = known.stored.setdefault((true.series, true.id), [])
        now = Stored(record.life, record.seconds)
        for before in records:
            if before.life != record.life:
                known.repeats.append(((true.series, true.id), before, now))
            elif not self._came_back(known, before.seconds, now.seconds):
                self.violate("published_twice", f"{trade.symbol} {trade.trade_id} by process {record.life}")
        records.append(now)
        return any(before.life == record.life for before in records[:-1])

    def _came_back(self, known: SymbolRecords, before: float, now: float) -> bool:
        """Return whether the symbol was removed and added again, and the trade was new at the removal."""
        return any(left - before < self.known_after(before, left) and left < now for left in known.left)

    def known_after(self, since: float, until: float) -> float:
        """Return the seconds after a write within which the checkpoint and gap records must cover it."""
        return self._progress_seconds + 5 + self.excuses.between(since, until)

    # the ledger
    def _gap(self, record: Record) -> None:
        gap = decode_gap(record.value or b"")
        known = self.symbols[gap.symbol]
        one = known.series[gap.id_series]
        which = gap.symbol, gap.id_series, gap.first_id, gap.last_id
        self.gap_states[record.life, gap.state].add(which)
        before = one.gaps.get(gap.first_id)
        if (
            before is not None
            and gap.updated_time_us < before[0].updated_time_us
            and not self._side_by_side(before[1].life, record.life)
        ):
            self.violate(
                "gap_order", f"{gap.symbol} gap {gap.first_id}: {gap.state} is older than the previous record"
            )
        one.gaps[gap.first_id] = gap, record
        one.gaps_ever.setdefault((gap.first_id, gap.last_id), record.seconds)
        self._check_checkpoint(gap.symbol, one)

    def _progress(self, record: Record) -> None:
        if record.key.endswith(b"|quotes"):
            return
        decoded = decode_checkpoint(record.value or b"")
        one = self.symbols[decoded.symbol].series[decoded.id_series]
        checkpoint = decoded.trade_id if decoded.next_id is None else decoded.next_id - 1
        if one.begins is None:
            one.begins = checkpoint + 1
        one.checkpoint = checkpoint
        while one.uncovered and one.uncovered[0][0] <= checkpoint:
            one.uncovered.popleft()
        self._check_checkpoint(decoded.symbol, one)

    def unstored(self, symbol: str, series: int) -> dict[int, TrueTrade]:
        """Return the ids of the venue's series that are not in the topic, in order."""
        known = self.symbols[symbol]
        trades = self._truth.symbol(symbol).trades
        for trade in trades[known.checked :]:
            if (trade.series, trade.id) not in known.stored:
                known.unstored[trade.series][trade.id] = trade
        known.checked = len(trades)
        return known.unstored[series]

    def made_since(self, symbol: str, seconds: float) -> int:
        """Return the number of ids missing in the topic that are too recent to need a record."""
        series = self._truth.symbol(symbol).series
        return sum(trade.seconds > seconds for trade in self.unstored(symbol, series).values())

    def _check_checkpoint(self, symbol: str, one: SeriesRecords) -> None:
        """Check the state that the next process would recover, if this one were killed now."""
        if one.begins is None or one.checkpoint is None or one.stands_for is None:
            return
        # The last trades of an ended series may have reached no process: see `Ending`.
        last = self._newest_stored(symbol, one.stands_for)
        for number in self.unstored(symbol, one.stands_for):
            if number > min(one.checkpoint, last):
                break
            if number >= one.begins and not one.is_reported(number):
                self.violate(
                    "checkpoint_past_gap", f"{symbol}: checkpoint {one.checkpoint}, {number} is in no record"
                )
                break

    def _newest_stored(self, symbol: str, series: int) -> float:
        """Return the newest id in the topic of an ended series."""
        if series == self._truth.symbol(symbol).series:
            return math.inf
        newest = self.symbols[symbol].newest
        return max((number for (_, its), number in newest.items() if its == series), default=-1)

    def _side_by_side(self, first: int, second: int) -> bool:
        one, other = self.fates.get(first), self.fates.get(second)
        return one is not None and other is not None and one is not other and one.ended > other.began
