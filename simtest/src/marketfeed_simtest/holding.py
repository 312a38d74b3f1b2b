"""Checks that trades behind a gap stay in the reorder buffer for GAP_HOLD_SECONDS, and not for less."""

from collections import defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

from marketfeed_simtest.clock import Clock
from marketfeed_simtest.excuses import Excuses
from marketfeed_simtest.faults import kind_of
from marketfeed_simtest.kafka_log import Record
from marketfeed_simtest.plan import PLAIN, Plan
from marketfeed_simtest.records import SeriesRecords, SymbolRecords, inside
from marketfeed_simtest.truth import TrueTrade
from marketfeed_wire import Trade

_NOT_JUDGED: Final = frozenset(
    {"clock_step", "corrupt", "wrong_unit", "odd_rows", "restart_ids", "kafka_refuses", "assign"}
)
"""Kinds of faults with which trades are flushed at once: after a rejected message or record, at the end of a
series, or when a symbol is removed; and those with which a time of receipt is not reliable."""
_SLACK_SECONDS: Final = 0.05
_TOGETHER_SECONDS: Final = 2.0
"""Trades of one flush are written within this time."""


def is_judged(plan: Plan) -> bool:
    """Return whether nothing in a plan flushes trades before GAP_HOLD_SECONDS."""
    has_room = plan.settings.get("gap_hold_trades", PLAIN["gap_hold_trades"]) == PLAIN["gap_hold_trades"]
    return has_room and not any(kind_of(fault) in _NOT_JUDGED for fault in plan.faults)


class _Early(NamedTuple):
    where: tuple[int, str]
    id: int
    seconds: float
    waited: float


class HoldJudge:
    """Checks each trade that is written while the previous one is missing.

    A flush ends the wait of every trade in the buffer, also of those behind younger gaps: one of the trades that are
    written together must have waited for GAP_HOLD_SECONDS.
    """

    def __init__(
        self, clock: Clock, excuses: Excuses, hold_seconds: float, violate: Callable[[str, str], None]
    ) -> None:
        self._clock = clock
        self._excuses = excuses
        self._hold_seconds = hold_seconds
        self._violate = violate
        self._early: list[_Early] = []
        self._waited: defaultdict[tuple[int, str], list[float]] = defaultdict(list)

    def written(
        self,
        trade: Trade,
        true: TrueTrade,
        record: Record,
        known: SymbolRecords,
        one: SeriesRecords,
        unstored: dict[int, TrueTrade],
    ) -> None:
        """Check a written trade; `known` does not include it yet, `unstored` are ids of its series without a record."""
        received = self._clock.shown_at(trade.received_time_us, record.seconds)
        newest = known.newest.get((record.life, true.series))
        if received is None or newest is None or true.id <= newest or trade.origin != "stream":
            return
        where, waited = (record.life, trade.symbol), record.seconds - received
        if waited >= self._hold_seconds - _SLACK_SECONDS:
            self._waited[where].append(record.seconds)
        elif true.id - 1 in unstored and not self._was_reported(one, true.id - 1, record.life):
            self._early.append(_Early(where, true.id, record.seconds, waited))

    @staticmethod
    def _was_reported(one: SeriesRecords, number: int, life: int) -> bool:
        """Return whether another process has reported the id missing: it is not waited for any more."""
        return any(record.life != life and inside(gap.missing, number) for gap, record in one.gaps.values())

    def check_end(self) -> None:
        """Check the session."""
        together = _TOGETHER_SECONDS + self._excuses.slow_seconds
        for early in self._early:
            if not any(abs(at - early.seconds) <= together for at in self._waited[early.where]):
                self._violate(
                    "flushed_early",
                    f"{early.where[1]} {early.id} by process {early.where[0]} at t={early.seconds:.2f}, "
                    f"{early.waited:.2f} s after receipt, without the previous one",
                )
