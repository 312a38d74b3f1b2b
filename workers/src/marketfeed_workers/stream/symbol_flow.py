"""One symbol on its way through the worker, whichever connection brings it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from marketfeed_wire import BookTicker, Gap, Progress, QuoteProgress, Trade, encode, is_decimal
from marketfeed_workers.stream.gaps import FROM_STREAM, GapEntry, restore
from marketfeed_workers.stream.id_ranges import IdRange, common, merged, of_ids, total, within
from marketfeed_workers.stream.id_series import FRESH_US, MS_US, LowQuotes, SuspectedReset
from marketfeed_workers.stream.reorder_buffer import ReorderBuffer
from marketfeed_workers.stream.series_key import encoder, series_key
from marketfeed_workers.stream.trade_times import SPARE, TradeTimes
from marketfeed_workers.venues.venue import BestQuote, Fetched

MIN_REJECTED_IN_A_ROW: Final = 3
"""So many rejected messages without a good one between them are no odd message, but an odd feed."""
MAX_SEEN: Final = 1000


@dataclass(slots=True)
class SymbolFlow:
    """What the worker knows of one symbol.

    Attributes:
        key: the key of its Kafka records.
        trades, quotes: how many were read.
        gaps: jumps of which something is still missing.
        first_trades: the first trades of a symbol that Kafka remembers nothing of, until it has word that they begin here.
        gap_record_times: first id -> when an earlier process last told of a gap there, where one may open once more.
        trade_times: of trades before holes: where holes are looked for by time.
        new_gaps: holes that were met and not yet counted.
        unacknowledged: batch -> ids of gaps that it published and that Kafka has not acknowledged.
        resumed_id: the trade id that it went on after; -1 where it began anew.
        gap_update_scheduled: its gaps are looked at soon.
        known_to: the last id of a gap that an earlier process knew of and that this one has not come to yet;
            MAX_ID while trades are held back.
        id_series, quote_series: of its trades' and its quotes' ids: how often the venue has begun them again.
        first_id: where a new series of trades begins, until Kafka has word of that.
        suspected_reset: trades that are held back until it is known whether the ids begin again.
        low_quotes: quotes below the newest update id, likewise.
        checkpoint_time_us: when the trade was matched after which an earlier process stopped, or a time soon after.
        checkpoint_is_exact: whether it is that trade's own time.
        is_gap_unverified: the venue may have begun the ids again, and have come further than ours meanwhile: the
            connection was away for long, or fetched trades were late for their ids; until REST or a trade has shown.
        has_late_rows: fetched trades were late for their ids, and nothing has shown yet why.
        unverified_responses: how often REST has answered since then and that showed nothing.
        verified_us: the venue's time when REST last showed that the ids go on.
        is_start_checked: REST was asked at the start whether the ids go on after those of an earlier process.
        conflicts: repeats with another content than was read before.
        unproven: repeats that were published because nothing is left here to compare them with.
        rejected_in_a_row: messages that were rejected since the last good one before them.
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
        """Have messages carry the series."""
        self.series_key = series_key(self.symbol, self.id_series)
        self.encode = encoder(self.id_series)
        self.encode_quote = encoder(self.quote_series)

    @property
    def newest_time_us(self) -> int | None:
        """About when the newest trade was matched that was published, by this process or the one before."""
        known_us = self.checkpoint_time_us if self.last_trade_time_us is None else self.last_trade_time_us
        newest = self.sequence.buffered.get(self.sequence.newest or 0)  # the newest may wait behind a hole
        return known_us if newest is None else max(newest.trade_time_us, known_us or 0)

    def begin_in_series(self, id_series: int) -> None:
        """Begin in a later series than the first."""
        self.id_series = id_series
        self.__post_init__()

    def resume_series(self, checkpoint: Progress | None, quotes: QuoteProgress | None) -> None:
        """Go on in the id series in which an earlier process stopped."""
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
        """Go on where an earlier process stopped, still wanting what it could not get.

        `acknowledged_time_us`: about when `trade_id` was matched; None where nobody knows.
        """
        # Also those beyond: their words came to Kafka, the progress that passed them did not. They will come to an end.
        entries = [restore(gap) for gap in gaps if gap.missing]
        # Also of a gap that the checkpoint lies in: what is missing before that comes late.
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

    def adopt(self, gaps: Sequence[Gap]) -> None:
        """Take over the newest records of gaps where another process wrote them after this one had begun.

        A gap that this process has met with other bounds has a record of its own; without this the other one would
        stay unresolved until the next start.
        """
        absent = merged(IdRange(*each) for gap in gaps for each in gap.absent)
        own = {entry.ids.first: entry for entry in self.gaps}
        for gap in gaps:
            if gap.id_series != self.id_series or not gap.missing:
                continue
            entry = own.get(gap.first_id)
            if entry is None:
                entry = restore(gap)
                entry.absent = within(absent, entry.ids)
                self.gaps.append(entry)
                self.known_to = max(self.known_to, entry.ids.last)
            elif entry.record_time_us < gap.updated_time_us:
                entry.record_time_us, entry.published = gap.updated_time_us, None

    def accept(self, trade: Trade, now_us: int) -> list[Trade]:
        """The trades that may be published now that `trade` came."""
        ready, gap = self.sequence.arrive(trade)
        if gap is not None:
            self.new_gaps += 1
            rejected_id, why = self._rejected_ahead
            self._open_gap(gap, now_us, why if gap.first <= rejected_id <= gap.last else FROM_STREAM)
        return ready

    def reject(self, trade_id: int, reason: str, now_us: int) -> None:
        """A trade of that id exists and cannot be used: its id is missing, unless another copy of it has come."""
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
                self._rejected_ahead = (trade_id, why)  # the next trade shows it to be missing
            return
        last = self.gaps[-1] if self.gaps else None
        if last is not None and last.proof == why and last.ids.last == gap.first - 1:
            # One gap that grows, and not one for each message of an odd feed; published anew with what was added.
            last.ids, last.state, last.published = IdRange(last.ids.first, gap.last), "open", None
            return
        self._open_gap(gap, now_us, why)

    def skip_rejected(self, now_us: int) -> None:
        """Open the gap of ids that were rejected before the symbol had begun, where nothing shows it otherwise."""
        trade_id, why = self._rejected_ahead
        gap = self.sequence.skip(trade_id)
        if gap is not None:
            self._open_gap(gap, now_us, why)

    @property
    def has_not_begun(self) -> bool:
        """Whether nothing of the series has come yet, and Kafka has no word of where it begins."""
        return self.sequence.expected is None and self.first_id is None and not self.first_trades

    def _open_gap(self, gap: IdRange, now_us: int, proof: str) -> None:
        after_us = self.last_trade_time_us or self.time_before(gap.first)
        known = [entry for entry in self.gaps if entry.ids.first == gap.first]
        self.gaps = [entry for entry in self.gaps if entry not in known]
        told_us = self.gap_record_times.pop(gap.first, -1)
        self.gaps.append(
            GapEntry(gap, now_us, after_us, proof=proof, has_record=bool(known), record_time_us=told_us)
        )
        if after_us is not None:
            self.trade_times.add(gap.first - 1, after_us)

    @property
    def is_rejecting(self) -> bool:
        """Whether the newest messages of the symbol were rejected, several in a row. For any thread."""
        return self.rejected_in_a_row >= MIN_REJECTED_IN_A_ROW and self._rejected_after == self.trades

    def is_first_seen(self, message: str) -> bool:
        """Whether a message that REST returns again and again is to be kept: the first time it is seen."""
        if message in self._seen:
            return False
        self._seen[message] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return True

    def accept_fetched(self, fetched: Fetched, now_us: int) -> list[Trade]:
        """The trades that may be published now that the venue answered."""
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
        """Remember when the newest trade was matched: a late one or a repeat does not set it back."""
        if published:
            newest_us = max(trade.trade_time_us for trade in published)
            if self.last_trade_time_us is None or newest_us > self.last_trade_time_us:
                self.last_trade_time_us = newest_us

    def track_gap_trades(self, batch: int, trades: list[Trade]) -> bool:
        """Remember which ids of gaps are in `batch`, until Kafka has acknowledged it; whether there are any."""
        gaps = merged(entry.ids for entry in self.gaps)
        ids = common(of_ids(trade.trade_id for trade in trades), gaps) if gaps else []
        if ids:
            self.unacknowledged[batch] = merged([*self.unacknowledged.get(batch, ()), *ids])
        return bool(ids)

    def update_gaps(self) -> list[GapEntry]:
        """Bring every gap up to date; those whose state changed."""
        if not self.gaps:
            return []
        unacknowledged = merged(ids for batch in self.unacknowledged.values() for ids in batch)
        return [entry for entry in self.gaps if entry.update(self.sequence, unacknowledged)]

    def remove_gaps(self, *, is_done: Callable[[GapEntry], bool]) -> None:
        """Forget the gaps that are done."""
        self.gaps = [entry for entry in self.gaps if not is_done(entry)]
        if not self.gaps:
            self.trade_times.clear()
        elif len(self.trade_times) > SPARE:
            missing = self.sequence.missing()
            if len(self.trade_times) > 2 * len(missing) + SPARE:
                self.trade_times.prune(first for first, _ in missing)

    def time_before(self, trade_id: int) -> int | None:
        """About when the newest trade before `trade_id` was matched of which that is known; None when of none."""
        before_us = self.trade_times.before(trade_id)
        return self.last_trade_time_us if before_us is None else before_us

    def best_quote(self) -> BestQuote | None:
        """The newest best bid and ask that the stream has delivered; None before the first, or where it is none."""
        quote = self.last_quote
        if quote is None:
            return None
        written = (quote.bid_price, quote.bid_qty, quote.ask_price, quote.ask_qty)
        # The stream's decimals are not checked on their way: consumers do that.
        return BestQuote(*map(Decimal, written)) if all(map(is_decimal, written)) else None

    def is_of_new_series(self, fetched: Fetched, now_us: int) -> bool:
        """Whether a fetched trade is later than the newest, though its id is lower: the ids may have begun again."""
        newest_us, newest_id = self.newest_time_us, self.sequence.newest_received
        if newest_us is None:
            return False
        latest_us = max(newest_us, self.verified_us) + MS_US
        return any(
            trade.trade_id < newest_id and latest_us < trade.trade_time_us <= now_us - FRESH_US
            for trade in fetched.trades
        )

    @property
    def missing(self) -> int:
        """How many trade ids are known to be missing."""
        return total(self.sequence.missing())

    @property
    def blocking_gaps(self) -> list[int]:
        """The first ids of the gaps that trades are held back behind."""
        if not self.sequence.buffered:
            return []
        expected = self.sequence.expected or 0
        return [
            entry.ids.first for entry in self.gaps if entry.state == "open" and entry.ids.last >= expected
        ]
