"""State of one symbol, independent of its connection."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from marketfeed_service.id_ranges import IdRange, common, merged, of_ids, total, within
from marketfeed_wire import BookTicker, Checkpoint, Gap, QuoteCheckpoint, Trade, encode, is_decimal
from marketfeed_workers.stream.gaps import FROM_STREAM, GapEntry, restore
from marketfeed_workers.stream.id_series import LowQuotes, SuspectedReset
from marketfeed_workers.stream.reorder_buffer import ReorderBuffer
from marketfeed_workers.stream.series_key import encoder, series_key
from marketfeed_workers.stream.trade_times import SPARE, TradeTimes
from marketfeed_workers.venues.venue import BestQuote, Fetched

MIN_REJECTED_IN_A_ROW: Final = 3
"""Consecutive rejected messages that mean a broken feed instead of an odd message."""
MAX_SEEN: Final = 1000


@dataclass(slots=True)
class SymbolFlow:
    """State of one symbol.

    Attributes:
        key: key of its Kafka records.
        trades, quotes: number of received messages.
        gaps: gaps that are not closed.
        first_trades: first trades of a series, held until its start is acknowledged.
        gap_record_times: first id -> time of an earlier process's record of a gap there, which may open again.
        trade_times: times of trades before gaps, for backfill by time.
        new_gaps: number of new gaps that are not counted yet.
        unacknowledged: batch -> ids of gaps that it published and that are not acknowledged.
        resumed_id: trade id of the checkpoint; -1 without one.
        gap_update_scheduled: whether an update of the gaps is scheduled.
        known_to: last id of a recovered gap that is still above the expected id; MAX_ID while trades are held.
        id_series, quote_series: number of id resets of its trades and quotes.
        first_id: first id of a new series of trades, until it is acknowledged.
        suspected_reset: trades held until an id reset is confirmed or excluded.
        low_quotes: the same for quotes below the newest update id.
        checkpoint_time_us: time of the trade of the checkpoint, or soon after.
        checkpoint_is_exact: whether it is the trade's own time.
        is_gap_unverified: ids may have been reset and have passed the newest known one, after an outage or because
            fetched trades were late for their ids; until REST or a trade decides.
        has_late_rows: fetched trades were late for their ids, for an undetermined reason.
        unverified_responses: number of responses of REST without a decision since then.
        verified_us: the venue's time when REST last excluded a reset.
        is_start_checked: whether a reset was checked for at start.
        conflicts: number of duplicates with other content.
        unproven: number of duplicates published because no copy is left to compare them with.
        rejected_in_a_row: number of rejected messages since the last valid one.
    """

    symbol: str
    key: bytes
    sequence: ReorderBuffer = field(default_factory=ReorderBuffer)
    gaps: list[GapEntry] = field(default_factory=list)
    first_trades: list[Trade] = field(default_factory=list)
    gap_record_times: dict[int, int] = field(default_factory=dict)
    trade_times: TradeTimes = field(default_factory=TradeTimes)
    new_gaps: int = 0
    unacknowledged: dict[int, list[IdRange]] = field(default_factory=dict)
    resumed_id: int = -1
    known_to: int = -1
    gap_update_scheduled: bool = False
    trades: int = 0
    quotes: int = 0
    last_trade_time_us: int | None = None
    last_update_id: int = -1
    last_quote: BookTicker | None = None
    id_series: int = 0
    quote_series: int = 0
    first_id: int | None = None
    suspected_reset: SuspectedReset | None = None
    low_quotes: LowQuotes | None = None
    checkpoint_time_us: int | None = None
    checkpoint_is_exact: bool = False
    is_gap_unverified: bool = False
    has_late_rows: bool = False
    unverified_responses: int = 0
    verified_us: int = -1
    is_start_checked: bool = False
    conflicts: int = 0
    unproven: int = 0
    series_key: str = ""
    encode: Callable[[Trade | BookTicker], bytes] = encode
    encode_quote: Callable[[Trade | BookTicker], bytes] = encode
    rejected_in_a_row: int = 0
    _rejected_after: int = -1
    _rejected_ahead: tuple[int, str] = (-1, "")
    _seen: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Set key and encoders of the series."""
        self.series_key = series_key(self.symbol, self.id_series)
        self.encode = encoder(self.id_series)
        self.encode_quote = encoder(self.quote_series)

    @property
    def newest_time_us(self) -> int | None:
        """Approximate time of the newest published trade, of this process or the one before."""
        known_us = self.checkpoint_time_us if self.last_trade_time_us is None else self.last_trade_time_us
        # The newest may be in the reorder buffer.
        newest = self.sequence.buffered.get(self.sequence.newest or 0)
        return known_us if newest is None else max(newest.trade_time_us, known_us or 0)

    def begin_in_series(self, id_series: int) -> None:
        """Begin with a series other than the first."""
        self.id_series = id_series
        self.__post_init__()

    def resume_series(self, checkpoint: Checkpoint | None, quotes: QuoteCheckpoint | None) -> None:
        """Continue the id series of the checkpoints."""
        if checkpoint is not None:
            self.id_series = checkpoint.id_series
            self.checkpoint_is_exact = checkpoint.trade_time_us is not None
            self.checkpoint_time_us = (
                checkpoint.acknowledged_time_us
                if checkpoint.trade_time_us is None
                else checkpoint.trade_time_us
            )
        if quotes is not None and (quotes.id_series, quotes.update_id) > (
            self.quote_series,
            self.last_update_id,
        ):
            self.quote_series = quotes.id_series
            self.last_update_id = quotes.update_id
        self.__post_init__()

    def resume(self, trade_id: int, gaps: list[Gap], acknowledged_time_us: int | None = None) -> None:
        """Resume from a checkpoint with the gaps that are not closed.

        Args:
            trade_id: last acknowledged trade id.
            gaps: records of the gaps.
            acknowledged_time_us: approximate time of `trade_id`; None if unknown.
        """
        # Also gaps above the checkpoint, whose records were acknowledged before the next checkpoint: they still need a
        # final record.
        entries = [restore(gap) for gap in gaps if gap.missing]
        # Also of a gap around the checkpoint: its ids below the checkpoint are unresolved.
        missing = merged(IdRange(*each) for gap in gaps for each in gap.missing)
        unresolved = within(missing, IdRange(0, trade_id))
        self.sequence.resume_after(trade_id, unresolved)
        self.resumed_id = trade_id
        self.gaps = entries
        self.known_to = max((entry.ids.last for entry in entries), default=-1)
        self.gap_record_times = {gap.first_id: gap.updated_time_us for gap in gaps if gap.first_id > trade_id}
        self.trade_times.clear()
        for entry in entries:
            if entry.after_time_us is not None:
                self.trade_times.add(entry.ids.first - 1, entry.after_time_us)
        if acknowledged_time_us is not None:
            self.trade_times.add(trade_id, acknowledged_time_us)

    def accept(self, trade: Trade, now_us: int) -> list[Trade]:
        """Add a trade; return the trades that can be published now."""
        ready, gap = self.sequence.arrive(trade)
        if gap is not None:
            self.new_gaps += 1
            rejected_id, why = self._rejected_ahead
            self._open_gap(gap, now_us, why if gap.first <= rejected_id <= gap.last else FROM_STREAM)
        return ready

    def reject(self, trade_id: int, reason: str, now_us: int) -> None:
        """Note a rejected trade: its id is missing, unless a valid copy was received."""
        if self._rejected_after != self.trades:
            self._rejected_after, self.rejected_in_a_row = self.trades, 0
        self.rejected_in_a_row += 1
        gap, why = self.sequence.skip(trade_id), f"rejected: {reason}"
        if gap is None:
            known = next(
                (entry for entry in self.gaps if entry.ids.first <= trade_id <= entry.ids.last), None
            )
            if known is not None and known.proof == FROM_STREAM:
                known.proof = why
            elif trade_id > (self.sequence.newest or 0):
                self._rejected_ahead = (trade_id, why)  # the next trade opens the gap
            return
        last = self.gaps[-1] if self.gaps else None
        if last is not None and last.proof == why and last.ids.last == gap.first - 1:
            # One growing gap instead of one per message of a broken feed; its record is published again.
            last.ids, last.state, last.published = IdRange(last.ids.first, gap.last), "open", None
            return
        self._open_gap(gap, now_us, why)

    def skip_rejected(self, now_us: int) -> None:
        """Open the gap of ids that were rejected before the symbol's first trade."""
        trade_id, why = self._rejected_ahead
        gap = self.sequence.skip(trade_id)
        if gap is not None:
            self._open_gap(gap, now_us, why)

    @property
    def has_not_begun(self) -> bool:
        """Whether the series has neither a trade nor a checkpoint yet."""
        return self.sequence.expected is None and self.first_id is None and not self.first_trades

    def _open_gap(self, gap: IdRange, now_us: int, proof: str) -> None:
        after_us = self.last_trade_time_us or self.time_before(gap.first)
        known = [entry for entry in self.gaps if entry.ids.first == gap.first]
        self.gaps = [entry for entry in self.gaps if entry not in known]
        record_us = self.gap_record_times.pop(gap.first, -1)
        self.gaps.append(
            GapEntry(gap, now_us, after_us, proof=proof, has_record=bool(known), record_time_us=record_us)
        )
        if after_us is not None:
            self.trade_times.add(gap.first - 1, after_us)

    @property
    def is_rejecting(self) -> bool:
        """Whether several of the newest messages in a row were rejected. For any thread."""
        return self.rejected_in_a_row >= MIN_REJECTED_IN_A_ROW and self._rejected_after == self.trades

    def is_first_seen(self, message: str) -> bool:
        """Return whether REST returns this message for the first time."""
        if message in self._seen:
            return False
        self._seen[message] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return True

    def accept_fetched(self, fetched: Fetched, now_us: int) -> list[Trade]:
        """Add the result of a request; return the trades that can be published now."""
        answered = [*of_ids(trade.trade_id for trade in fetched.trades), *fetched.absent]
        for entry in self.gaps:
            if within(answered, entry.ids):
                entry.prove(fetched.proof, fetched.absent)
        ready: list[Trade] = []
        for trade in fetched.trades:
            ready += self.accept(trade, now_us)
        if fetched.trades and self.gaps:
            newest = max(fetched.trades, key=lambda trade: trade.trade_id)
            self.trade_times.add(newest.trade_id, newest.trade_time_us)
        for absent in fetched.absent:
            ready += self.sequence.mark_absent(absent)
        return ready

    def update_last_trade_time(self, published: list[Trade]) -> None:
        """Advance the time of the newest trade; late trades and duplicates do not set it back."""
        if published:
            newest_us = max(trade.trade_time_us for trade in published)
            if self.last_trade_time_us is None or newest_us > self.last_trade_time_us:
                self.last_trade_time_us = newest_us

    def track_gap_trades(self, batch: int, trades: list[Trade]) -> bool:
        """Track the ids of gaps in `batch` until its acknowledgement; return whether there are any."""
        gaps = merged(entry.ids for entry in self.gaps)
        ids = common(of_ids(trade.trade_id for trade in trades), gaps) if gaps else []
        if ids:
            self.unacknowledged[batch] = merged([*self.unacknowledged.get(batch, ()), *ids])
        return bool(ids)

    def update_gaps(self) -> list[GapEntry]:
        """Update every gap; return those whose state changed."""
        if not self.gaps:
            return []
        unacknowledged = merged(ids for batch in self.unacknowledged.values() for ids in batch)
        return [entry for entry in self.gaps if entry.update(self.sequence, unacknowledged)]

    def remove_gaps(self, *, is_done: Callable[[GapEntry], bool]) -> None:
        """Remove the gaps for which `is_done` is true."""
        self.gaps = [entry for entry in self.gaps if not is_done(entry)]
        if not self.gaps:
            self.trade_times.clear()
        elif len(self.trade_times) > SPARE:
            missing = self.sequence.missing()
            if len(self.trade_times) > 2 * len(missing) + SPARE:
                self.trade_times.prune(first for first, _ in missing)

    def time_before(self, trade_id: int) -> int | None:
        """Return the approximate time of the newest trade before `trade_id` with a known time; None without one."""
        before_us = self.trade_times.before(trade_id)
        return self.last_trade_time_us if before_us is None else before_us

    def best_quote(self) -> BestQuote | None:
        """Return the newest best bid and ask of the stream; None before the first, or if it is invalid."""
        quote = self.last_quote
        if quote is None:
            return None
        written = (quote.bid_price, quote.bid_qty, quote.ask_price, quote.ask_qty)
        # Decimals of quotes are not validated by the mapper.
        return BestQuote(*map(Decimal, written)) if all(map(is_decimal, written)) else None

    @property
    def missing(self) -> int:
        """Number of missing trade ids."""
        return total(self.sequence.missing())

    @property
    def blocking_gaps(self) -> list[int]:
        """First ids of the gaps that block the reorder buffer."""
        if not self.sequence.buffered:
            return []
        expected = self.sequence.expected or 0
        return [
            entry.ids.first for entry in self.gaps if entry.state == "open" and entry.ids.last >= expected
        ]
