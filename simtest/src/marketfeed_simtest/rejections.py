"""Invariants of the topic of rejected messages: each once, unchanged, and no other message."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from marketfeed_simtest.deliveries import Deliveries, Rejectable
from marketfeed_simtest.kafka_log import Record
from marketfeed_simtest.truth import Truth
from marketfeed_wire import key_for
from marketfeed_wire.rejected import RejectedMessage, decode_rejected

_SERIES_SECONDS: Final = 60.0
"""Time after a restart of ids within which a message may still count as one of the previous series."""


class RejectionJudge:
    """Checks rejected messages; see `QuoteJudge`."""

    def __init__(
        self,
        truth: Truth,
        deliveries: Deliveries,
        odd_rows: Callable[[], set[tuple[str, int]]],
        removals: Callable[[str], int],
        venue: str,
        lives: Mapping[int, Any],
        violate: Callable[[str, str], None],
        known_after: Callable[[float, float], float],
    ) -> None:
        self._truth = truth
        self._deliveries = deliveries
        self._odd_rows = odd_rows
        self._removals = removals
        self._venue = venue
        self._lives = lives
        self._violate = violate
        self._known_after = known_after
        self._written: Counter[Rejectable] = Counter()
        self._rows: Counter[tuple[int, str, bytes]] = Counter()

    def written(self, record: Record) -> None:
        """Check a written record."""
        rejected = decode_rejected(record.value or b"")
        what = f"{rejected.symbol} {rejected.trade_id}, {rejected.reason}, by process {record.life}"
        if (rejected.venue, rejected.stream, record.key) != (self._venue, "trade", key_for(rejected.symbol)):
            self._violate("wrong_rejection", f"{what}: {rejected.venue}, {rejected.stream}, {record.key!r}")
        if rejected.reason != "impossible_time":
            self._check_row(rejected, record.life, what)
            return
        one = Rejectable(
            record.life,
            rejected.symbol,
            rejected.trade_id if rejected.trade_id is not None else -1,
            rejected.raw,
        )
        self._written[one] += 1
        if self._written[one] > len(self._deliveries.rejectable.get(one, ())):
            self._violate(
                "wrong_rejection", f"{what}: no such message was read, or fewer times: {rejected.raw[:200]!r}"
            )
        self._check_series(rejected, record.seconds, what)

    def _check_series(self, rejected: RejectedMessage, seconds: float, what: str) -> None:
        true = self._truth.symbol(rejected.symbol)
        newest = next((row for row in reversed(true.trades) if row.id == rejected.trade_id), None)
        if newest is None or newest.series != true.series:
            return
        began = next(row.seconds for row in true.trades if row.series == true.series)
        is_wrong = (rejected.id_series > 0) if not true.series else (rejected.id_series < 1)
        if is_wrong and (not true.series or seconds > began + _SERIES_SECONDS):
            self._violate("wrong_rejection", f"{what}: id series {rejected.id_series}")

    def _check_row(self, rejected: RejectedMessage, life: int, what: str) -> None:
        self._rows[life, rejected.symbol, rejected.raw] += 1
        ids = [number for symbol, number in self._odd_rows() if symbol == rejected.symbol]
        # A symbol that is removed from the assignment and added again is a new one to the worker.
        once = 1 + self._removals(rejected.symbol)
        if self._rows[life, rejected.symbol, rejected.raw] > once or not any(
            b"%d" % number in rejected.raw for number in ids
        ):
            self._violate("wrong_rejection", f"{what}: no such row was returned, or it was kept before")

    def check_end(self, left: Callable[[str], bool]) -> None:
        """Check that each message that had to be kept was kept."""
        for one, read in self._deliveries.rejectable.items():
            life = self._lives[one.life]
            if life.was_refused or left(one.symbol):
                continue
            is_whole = life.ending == "exited" and life.code == 0
            due = [at for at in read if is_whole or life.ended - at > self._known_after(at, life.ended)]
            if self._written[one] < len(due):
                self._violate(
                    "wrong_rejection",
                    f"{one.symbol} {one.trade_id}: read {len(due)} times, kept {self._written[one]} times",
                )
