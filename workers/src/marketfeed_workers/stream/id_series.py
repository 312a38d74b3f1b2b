"""Detection of id resets of a symbol: the rule, without I/O and clock.

A trade indicates a reset if its id is known, or below all known ids, and its time is later than that of the newest
trade: ids and times increase together, so either the trade is odd or the ids were reset. From the first such trade on
the symbol's trades are held, in a bounded buffer, until a decision:

    the venue's newest trade in REST has an id below ours and a later time      ─▶ reset
    it is ours, or ours still exists with the same content                      ─▶ odd trades, published unchanged
    a held trade continues where ours stopped                                   ─▶ odd trades, published unchanged
    no response of REST: DECISIVE_TRADES trades with increasing ids and times   ─▶ reset

The number of a new series is the newest one in Kafka plus one: another worker may have begun series in the meantime. If
one has, the symbol continues from its checkpoint by the same rule. A new series begins at the first id that REST has
after the newest trade of the old series, or at the lowest held id.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from msgspec.structs import replace

from marketfeed_wire import BookTicker, Trade, same_trade

DECISIVE_TRADES: Final = 10
"""Trades in a row that decide without a response of REST."""
MAX_HELD: Final = 1000
"""Maximum number of held trades of a symbol; at this number they decide without REST."""
MAX_DECIDED: Final = 2 * MAX_HELD
"""Number of held trades of a symbol with a decided reset above which reading is paused."""
DECISIVE_QUOTES: Final = 3
QUOTES_SECONDS: Final = 5.0
"""Duration of quotes with increasing ids below the newest one, without any above it, that decides, unless the newest
update id in REST shows a lagging connection."""
OUTAGE_SECONDS: Final = 60.0
"""Duration of an outage after which ids that were reset may have passed any known id."""
MAX_IDS_A_SECOND: Final = 1000
"""Ids per second of a busy symbol: limits how far ids that were reset can be after a shorter outage."""
MAX_STEP_SECONDS: Final = 2.0
"""Maximum time counted between two observations, a second apart; more means that the process was frozen."""
MAX_HELD_QUOTES: Final = 1000


class SeriesDecision(Enum):
    """Outcome of a check for an id reset."""

    CONTINUES = auto()
    """No reset; the held trades are odd."""
    RESTARTED = auto()
    """Reset."""
    UNDECIDED = auto()


@dataclass(slots=True)
class SuspectedReset:
    """Held trades of a symbol since the first one that indicates an id reset.

    Attributes:
        after_time_us: time of the newest trade before.
        expected: next id without a reset.
        since: monotonic time of the first held trade.
        rest_failed: whether REST did not respond.
        responses: number of responses of REST without a decision.
        known_to: value of `SymbolFlow.known_to` before.
        is_gap: only a gap indicates the reset: the first ids of this process are above those of the checkpoint, and ids
            that were reset may have passed it. Without a response of REST the series continues.
        is_decided: the reset is decided; the number of the new series is being read from Kafka.
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
        """Hold `trade`; return False if it is an identical copy of a held one."""
        for held in reversed(self.trades):
            if held.trade_id == trade.trade_id and same_trade(held, trade):
                return False
        self.trades.append(trade)
        return True

    def decide(self) -> SeriesDecision:
        """Return the decision of the held trades alone."""
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
    """Decide by the venue's newest trade in REST.

    Args:
        newest: None if the venue has none.
        after_time_us: time of the newest trade of the series.
        expected: the id after that.
        is_missing: whether the id of `newest` is missing in this series.
    """
    if newest is None or is_missing:
        return SeriesDecision.UNDECIDED
    if newest.trade_id < expected and newest.trade_time_us > after_time_us + MS_US:
        return SeriesDecision.RESTARTED
    return SeriesDecision.UNDECIDED


MS_US: Final = 1000
"""Resolution of times in REST: a smaller difference may be none."""


FRESH_US: Final = 2_000_000
"""Younger rows of REST prove nothing, because some venues set their time to that of the request. At the retry a moment
later the row is older."""


def decide_by_known_row(
    row: Trade | None, known_time_us: int | None, now_us: int, known: Trade | None = None
) -> SeriesDecision:
    """Decide by the venue's row of the newest id of the series.

    Args:
        row: the row; None if the venue has none.
        known_time_us: time of our trade with this id.
        now_us: the venue's time.
        known: our trade, if times of REST are unreliable: equal price, quantity and side mean the same trade.
    """
    if row is None or known_time_us is None:
        return SeriesDecision.UNDECIDED
    if row.trade_time_us <= known_time_us + MS_US:
        return SeriesDecision.CONTINUES
    if known is not None and same_trade(replace(row, trade_time_us=known.trade_time_us), known):
        return SeriesDecision.CONTINUES
    return SeriesDecision.UNDECIDED if row.trade_time_us > now_us - FRESH_US else SeriesDecision.RESTARTED


def decide_by_first_since(first_id: int | None, known_id: int) -> SeriesDecision:
    """Decide by the first id after the time of the newest trade `known_id`, if the venue has no row of that trade.

    Ids and times increase together: a later trade with a lower id belongs to another series.
    """
    if first_id is None:
        return SeriesDecision.UNDECIDED
    return SeriesDecision.RESTARTED if first_id <= known_id else SeriesDecision.CONTINUES


@dataclass(slots=True)
class LowQuotes:
    """Quotes below the newest update id, which may be the first of a new series.

    Attributes:
        below: newest update id when the first of them was received.
        observed_at: monotonic time of the last observation.
        observed: observed duration, without the time of a freeze, after which the buffers of several connections are
            read one after the other.
        observed_to_last: observed duration when the last of them was received.
        follows_trades: whether the trade ids were reset, so that it need not take long until this is decided.
    """

    below: int
    observed_at: float
    observed: float = 0.0
    observed_to_last: float = 0.0
    follows_trades: bool = False
    quotes: list[BookTicker] = field(default_factory=list)

    def hold(self, quote: BookTicker, now: float) -> None:
        """Hold `quote` if it continues the held ones, or alone if it is below all of them."""
        self.observe(now)
        if self.quotes and quote.update_id < self.quotes[0].update_id:
            self.quotes.clear()
            self.observed = 0.0
        if self.quotes and quote.update_id <= self.quotes[-1].update_id:
            return
        self.observed_to_last = self.observed
        self.quotes.append(quote)
        if len(self.quotes) > MAX_HELD_QUOTES:
            del self.quotes[0]

    def observe(self, now: float) -> None:
        """Add the time since the last observation."""
        self.observed += min(now - self.observed_at, MAX_STEP_SECONDS)
        self.observed_at = now

    def is_decided(self) -> bool:
        """Return whether the number of quotes and the duration suffice for a decision."""
        return len(self.quotes) >= DECISIVE_QUOTES and self.observed >= QUOTES_SECONDS

    def is_due(self) -> bool:
        """Return whether the venue should be asked for its newest update id."""
        return bool(self.follows_trades and self.quotes) or self.is_decided()

    def decide(self, newest_id: int | None) -> SeriesDecision:
        """Decide by the venue's newest update id; without one the quotes decide alone.

        Silence after them proves nothing: the connection that lagged may have ended. If the newest id is below all of
        them they belong to the series before.
        """
        if newest_id is None:
            is_reset = self.is_decided() and self.observed_to_last >= QUOTES_SECONDS
            return SeriesDecision.RESTARTED if is_reset else SeriesDecision.UNDECIDED
        if newest_id >= self.below:  # right after a reset REST may lag
            return SeriesDecision.CONTINUES if self.is_decided() else SeriesDecision.UNDECIDED
        return SeriesDecision.RESTARTED if newest_id >= self.quotes[0].update_id else SeriesDecision.UNDECIDED


def series_start(first_since: int | None, held: Sequence[Trade]) -> int | None:
    """Return the first id of a new series: by REST if that is plausible, otherwise the lowest held id."""
    lowest = min((trade.trade_id for trade in held), default=None)
    if first_since is None or (lowest is not None and first_since > lowest):
        return lowest
    return first_since
