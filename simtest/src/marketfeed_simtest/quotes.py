"""Invariants of quotes, checked when they are written, and when each process's fate is known."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from marketfeed_simtest.deliveries import Deliveries, ReadQuote
from marketfeed_simtest.kafka_log import Record
from marketfeed_simtest.life import Life
from marketfeed_simtest.truth import TrueQuote, Truth
from marketfeed_wire import BookTicker, DecodeError, decode_book_ticker, key_for
from marketfeed_workers.kafka.checkpoints import QUOTE_CHECKPOINT_INTERVAL

_IN_FLIGHT_SECONDS: Final = 5.0


@dataclass(slots=True)
class _IdSeries:
    """One id series of the messages.

    Attributes:
        stands_for: the venue's series of its first quote.
        newest: process -> highest id that it published.
        written: the venue's series and process -> times at which it wrote a higher id, and that id.
    """

    stands_for: int
    newest: dict[int, int] = field(default_factory=dict)
    written: defaultdict[tuple[int, int], list[tuple[float, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )


@dataclass(slots=True)
class _Symbol:
    series: dict[int, _IdSeries] = field(default_factory=dict)
    identities: dict[tuple[int, int], int] = field(default_factory=dict)
    newest: dict[tuple[int, int], int] = field(default_factory=dict)
    first_of: dict[tuple[int, int], float] = field(default_factory=dict)
    stored: set[tuple[int, int]] = field(default_factory=set)
    last: tuple[int, int] = (-1, -1)


class QuoteJudge:
    """Checks quotes.

    Args:
        violate: function that records a violation.
        known_after: time after a write until the next process can recover it; see `Oracle.known_after`.
    """

    def __init__(
        self,
        truth: Truth,
        deliveries: Deliveries,
        venue: str,
        lives: Mapping[int, Any],
        violate: Callable[[str, str], None],
        known_after: Callable[[float, float], float],
        progress_seconds: float,
    ) -> None:
        self._truth = truth
        self._deliveries = deliveries
        self._venue = venue
        self._lives = lives
        self._violate = violate
        self._known_after = known_after
        self._checkpoint_seconds = QUOTE_CHECKPOINT_INTERVAL * progress_seconds
        self._symbols: defaultdict[str, _Symbol] = defaultdict(_Symbol)

    def last(self, symbol: str) -> tuple[int, int]:
        """Return the venue's series and the id of the newest quote in the topic."""
        return self._symbols[symbol].last

    def written(self, record: Record) -> None:
        """Check a written record."""
        try:
            quote = decode_book_ticker(record.value or b"")
        except DecodeError:
            self._check_spoiled(record.value or b"")
            return
        what = f"{quote.symbol} {quote.update_id} of id series {quote.id_series}"
        if (quote.venue, quote.event_time_us, record.key) != (self._venue, None, key_for(quote.symbol)):
            self._violate(
                "wrong_origin", f"quote {what}: {quote.venue}, {quote.event_time_us}, {record.key!r}"
            )
        true = self._true_quote(quote)
        if true is None:
            self._violate("invented_quote", f"{what}: {_prices(quote)}")
            return
        known = self._symbols[quote.symbol]
        self._check_series(known, quote, true, record, what)
        before = known.newest.get((record.life, true.series), -1)
        if quote.update_id <= before:
            self._violate("quote_backwards", f"{what} after {before}")
        known.newest[record.life, true.series] = max(before, quote.update_id)
        known.first_of.setdefault((record.life, true.series), record.seconds)
        known.stored.add((true.series, quote.update_id))
        known.last = max(known.last, (true.series, quote.update_id))

    def _check_spoiled(self, value: bytes) -> None:
        """Check an undecodable quote: decimals are validated by consumers, so a corrupted quote may be here."""
        quote = msgspec.json.decode(value, type=dict[str, Any])
        if not self._deliveries.spoiled_quotes[quote.get("symbol", ""), quote.get("update_id", -1)]:
            self._violate("invented_quote", f"undecodable, and never delivered: {value[:200]!r}")

    def _true_quote(self, quote: BookTicker) -> TrueQuote | None:
        rows = self._truth.symbol(quote.symbol).quotes_by_id.get(quote.update_id, [])
        return next((row for row in reversed(rows) if (*row.bid, *row.ask) == _prices(quote)), None)

    def _check_series(
        self, known: _Symbol, quote: BookTicker, true: TrueQuote, record: Record, what: str
    ) -> None:
        one = known.series.get(quote.id_series)
        if one is None:
            if any(other.stands_for == true.series for other in known.series.values()):
                self._violate("identity_split", f"quote {what}: the ids of one series, twice")
            one = known.series[quote.id_series] = _IdSeries(true.series)
        if known.identities.setdefault((quote.id_series, quote.update_id), true.series) != true.series:
            self._violate("identity_reused", f"quote {what}")
        before = one.newest.get(record.life, -1)
        if quote.update_id <= before:
            self._violate("quote_backwards", f"{what} after {before} by the same process")
        one.newest[record.life] = max(before, quote.update_id)
        if true.series > one.stands_for and quote.update_id <= self._known_at(one, true.series, record.life):
            self._violate("identity_reused", f"quote {what}: below the recovered id of the previous series")
        written = one.written[true.series, record.life]
        if not written or written[-1][1] < quote.update_id:
            written.append((record.seconds, quote.update_id))

    def _known_at(self, one: _IdSeries, series: int, life: int) -> int:
        """Return the newest id of the venue's earlier series in this one that a process could recover at its start.

        The first of a process is in the checkpoint soon, later ones after a number of checkpoints of trades, if the
        process lives for so long.
        """
        began = self._lives[life].began
        known = -1
        for (its, writer), written in one.written.items():
            end: Life = self._lives[writer]
            alive_until = began if end.ending == "exited" and end.code == 0 else min(began, end.ended)
            until = alive_until - self._known_after(alive_until - 60, alive_until)
            if its < series and written[0][0] < until:
                number = bisect_left(written, (until - self._checkpoint_seconds, -1))
                known = max(known, written[max(0, number - 1)][1])
        return known

    def check_end(self, symbols: Iterable[str], left: Callable[[str], bool], last_end: float) -> None:
        """Check that all required quotes arrived.

        Args:
            symbols: symbols of the plan.
            left: function that returns whether a symbol was ever removed.
            last_end: end of the last process, in seconds.
        """
        for read in self._deliveries.quotes:
            if read.symbol in symbols and not left(read.symbol) and self._is_due(read):
                known = self._symbols[read.symbol]
                if (read.series, read.id) not in known.stored:
                    self._violate(
                        "last_quote_lost",
                        f"{read.symbol} {read.id}: the last of a read at t={read.seconds:.2f} by process {read.life}",
                    )
        for symbol in symbols:
            quotes = [
                each
                for each in self._truth.symbol(symbol).quotes
                if each.seconds < last_end - _IN_FLIGHT_SECONDS
            ]
            last = self.last(symbol)
            if quotes and last < (quotes[-1].series, quotes[-1].id):
                # Newer ones may have arrived in the last seconds, which makes `last` larger.
                self._violate(
                    "last_quote_lost", f"{symbol} {quotes[-1].id}: the newest in the topic is {last}"
                )

    def _is_due(self, read: ReadQuote) -> bool:
        """Return whether the process that read it ran long enough, and had no undecided series."""
        life: Life = self._lives[read.life]
        if life.was_refused:
            return False
        if read.series:
            first = self._symbols[read.symbol].first_of.get((read.life, read.series))
            if first is None or first > read.seconds:
                return False  # quotes below the newest are buffered until REST has decided
        if life.ending == "exited" and life.code == 0:
            return True
        return life.ended - read.seconds > self._known_after(read.seconds, life.ended)


def _prices(quote: BookTicker) -> tuple[str, str, str, str]:
    return quote.bid_price, quote.bid_qty, quote.ask_price, quote.ask_qty
