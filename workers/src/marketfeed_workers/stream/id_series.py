"""Whether a venue has begun a symbol's ids again: the rule, without I/O and clock.

A trade is suspect when its id is known (or lies below all that is known) and its time is later than that of the newest
trade: ids and times rise together, so either the trade is odd or the ids begin again. From the first such trade on the
symbol's trades are held back, in a bounded buffer, until it is decided:

    the venue's newest trade by REST has an id below ours and a later time  ─▶ the ids begin again
    it is ours, or ours is still there with the same content                ─▶ odd trades, published as they are
    a held trade goes on where ours stopped                                 ─▶ the same
    REST does not answer: DECISIVE trades whose ids and times rise          ─▶ the ids begin again

The new series is the newest one's number plus one, of those that Kafka has a record of: another worker may have begun
series meanwhile. Where one has, the symbol goes on from the newest one's checkpoint, by the same rule. A new series
begins at the first id that REST has after the old series' newest trade, or at the lowest that was held.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from msgspec.structs import replace

from marketfeed_wire import BookTicker, Trade, same_trade

DECISIVE_TRADES: Final = 10
"""Trades in a row that decide where REST does not answer."""
MAX_HELD: Final = 1000
"""Trades of a symbol that are held back at most; then they decide, whatever REST says later."""
MAX_DECIDED: Final = 2 * MAX_HELD
"""Held trades of a symbol whose new series waits for Kafka; sockets are not read while there are more."""
DECISIVE_QUOTES: Final = 3
QUOTES_SECONDS: Final = 5.0
"""Quotes with rising ids below the newest one, over so long a time without any above it, decide, unless REST's newest
update id shows that a connection lags so far behind another that has ended."""
OUTAGE_SECONDS: Final = 60.0
"""After a connection was away for so long, ids that have begun again may have passed any newest known."""
MAX_IDS_A_SECOND: Final = 1000
"""How far ids that have begun again may have come in a shorter outage: what a busy symbol trades."""
MAX_STEP_SECONDS: Final = 2.0
"""It is looked every second; where more than this has passed the process was frozen."""
MAX_HELD_QUOTES: Final = 1000


class SeriesDecision(Enum):
    """What was found out."""

    CONTINUES = auto()
    """The ids go on; what was held is odd."""
    RESTARTED = auto()
    """The ids begin again."""
    UNDECIDED = auto()


@dataclass(slots=True)
class SuspectedReset:
    """The trades of a symbol that are held back since a suspect one came.

    Attributes:
        after_time_us: when the newest trade before was matched.
        expected: the id that would come next if the ids go on.
        since: by the monotonic clock.
        rest_failed: whether REST has been asked in vain.
        responses: how often REST has answered and that decided nothing.
        known_to: what `SymbolFlow.known_to` was before.
        is_gap: nothing but a jump is suspect: the first ids of this process lie beyond those of the one before, and
            the venue may have begun again and come further meanwhile. Without an answer the ids go on.
        is_decided: they begin again; which number the new series has is being read from Kafka.
    """

    after_time_us: int
    expected: int
    since: float
    trades: list[Trade] = field(default_factory=list)
    rest_failed: bool = False
    responses: int = 0
    is_gap: bool = False
    known_to: int = -1
    is_decided: bool = False

    def hold(self, trade: Trade) -> bool:
        """Take `trade`; False where it is an identical copy of one that is held."""
        for held in reversed(self.trades):
            if held.trade_id == trade.trade_id and same_trade(held, trade):
                return False
        self.trades.append(trade)
        return True

    def decide(self) -> SeriesDecision:
        """What the held trades themselves decide."""
        if self.is_gap:
            return (
                SeriesDecision.CONTINUES
                if self.rest_failed or len(self.trades) >= MAX_HELD
                else SeriesDecision.UNDECIDED
            )
        before: Trade | None = None
        rising = 0
        for trade in self.trades:
            if trade.trade_id == self.expected and (before is None or before.trade_id + 1 != trade.trade_id):
                return SeriesDecision.CONTINUES
            if before is None or (
                trade.trade_id > before.trade_id and trade.trade_time_us >= before.trade_time_us
            ):
                rising += 1
                before = trade
        is_decided = rising >= DECISIVE_TRADES and (self.rest_failed or len(self.trades) >= MAX_HELD)
        if is_decided:
            return SeriesDecision.RESTARTED
        return SeriesDecision.CONTINUES if len(self.trades) >= MAX_HELD else SeriesDecision.UNDECIDED


def decide_by_newest(
    newest: Trade | None, after_time_us: int, expected: int, is_missing: bool
) -> SeriesDecision:
    """What the venue's newest trade by REST says.

    Args:
        newest: None where the venue has none.
        after_time_us: when the newest trade of the series so far was matched.
        expected: the id after that.
        is_missing: whether the id of `newest` is one that this series lacks.
    """
    if newest is None or is_missing:
        return SeriesDecision.UNDECIDED
    if newest.trade_id < expected and newest.trade_time_us > after_time_us + MS_US:
        return SeriesDecision.RESTARTED
    return SeriesDecision.UNDECIDED


MS_US: Final = 1000
"""REST tells times in milliseconds: what is later by less may be the same."""


FRESH_US: Final = 2_000_000
"""A row of REST that is younger proves nothing: there are venues that date rows by the request. One of a new series is
older a moment later, when it is asked for again."""


def decide_by_known_row(
    row: Trade | None, known_time_us: int | None, now_us: int, known: Trade | None = None
) -> SeriesDecision:
    """What the venue's row of the newest id of the series says, of which the time is known.

    Args:
        now_us: the venue's time.
        known: the trade itself, where the times of REST are in doubt: with its price, quantity and side it is the same.
    """
    if row is None or known_time_us is None:
        return SeriesDecision.UNDECIDED
    if row.trade_time_us <= known_time_us + MS_US:
        return SeriesDecision.CONTINUES
    if known is not None and same_trade(replace(row, trade_time_us=known.trade_time_us), known):
        return SeriesDecision.CONTINUES
    return SeriesDecision.UNDECIDED if row.trade_time_us > now_us - FRESH_US else SeriesDecision.RESTARTED


def decide_by_first_since(first_id: int | None, known_id: int) -> SeriesDecision:
    """What the first id after the newest trade `known_id` says, where the venue has no row of that trade itself.

    Ids and times rise together: a later trade with a lower id is of another series.
    """
    if first_id is None:
        return SeriesDecision.UNDECIDED
    return SeriesDecision.RESTARTED if first_id <= known_id else SeriesDecision.CONTINUES


def decide_by_newest_update(newest_id: int | None, below: int) -> SeriesDecision:
    """What the venue's newest update id by REST says of quotes that stay below `below`; without one they decide."""
    return SeriesDecision.RESTARTED if newest_id is None or newest_id < below else SeriesDecision.CONTINUES


@dataclass(slots=True)
class LowQuotes:
    """Quotes below the newest update id, which may be the first of a new series.

    Attributes:
        below: the newest update id when the first came.
        observed_at: when it was last looked at them, by the monotonic clock.
        observed: for how long they have been observed: not while the process was frozen, when what came waits in the
            buffers of several connections, and is read from one after the other.
    """

    below: int
    observed_at: float
    observed: float = 0.0
    quotes: list[BookTicker] = field(default_factory=list)

    def hold(self, quote: BookTicker) -> bool:
        """Take `quote`; False where it does not go on from those held."""
        if self.quotes and quote.update_id <= self.quotes[-1].update_id:
            return False
        self.quotes.append(quote)
        if len(self.quotes) > MAX_HELD_QUOTES:
            del self.quotes[0]
        return True

    def observe(self, now: float) -> None:
        """Take in that time has passed since the last look."""
        self.observed += min(now - self.observed_at, MAX_STEP_SECONDS)
        self.observed_at = now

    def is_decided(self) -> bool:
        """Whether so many have come, over so long a time, that a new series is likely."""
        return len(self.quotes) >= DECISIVE_QUOTES and self.observed >= QUOTES_SECONDS


def series_start(first_since: int | None, held: Sequence[Trade]) -> int | None:
    """The first id of a new series: as REST has it where that is sound, otherwise the lowest that is held."""
    lowest = min((trade.trade_id for trade in held), default=None)
    if first_since is None or (lowest is not None and first_since > lowest):
        return lowest
    return first_since
