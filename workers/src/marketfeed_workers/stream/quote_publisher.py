"""Publishing of quotes: order by update id, conflation under back-pressure, id resets."""

from collections.abc import Callable

from marketfeed_service import logs
from marketfeed_wire import (
    BookTicker,
    QuoteCheckpoint,
)
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.id_series import (
    LowQuotes,
    SeriesDecision,
)
from marketfeed_workers.stream.recent_trades import RecentQuotes
from marketfeed_workers.stream.series_key import encoder
from marketfeed_workers.stream.symbol_flow import SymbolFlow

log = logs.get(__name__)


class QuotePublisher:
    """Publishes the quotes of all symbols.

    Args:
        flows: the assigned symbols.
        reads_quotes: whether quotes are subscribed.
        publisher: publisher of the messages.
        counters: counters of the worker.
        now_us: wall clock.
        monotonic: monotonic clock.
        count_unexpected: counts a message that is not subscribed, by type and symbol.
    """

    def __init__(
        self,
        flows: dict[str, SymbolFlow],
        reads_quotes: bool,
        publisher: Publisher,
        counters: Counters,
        now_us: Callable[[], int],
        monotonic: Callable[[], float],
        count_unexpected: Callable[[str, str], None],
    ) -> None:
        self.flows = flows
        self._reads_quotes = reads_quotes
        self._publisher = publisher
        self._counters = counters
        self._now_us = now_us
        self._monotonic = monotonic
        self._count_unexpected = count_unexpected
        self._recent_quotes = RecentQuotes()
        self._lagging: dict[str, logs.Episode] = {}
        """Symbol -> episode of quotes that lag behind the venue's newest update id."""

    def publish(self, quotes: list[BookTicker], now_us: int) -> None:
        """Publish the newer ones of `quotes`; hold those below the newest update id."""
        counters = self._counters.quotes
        counters.received += len(quotes)
        self._recent_quotes.add(quotes)
        if self._publisher.is_near_capacity:
            # Under back-pressure only the newest quote of a symbol is published; trades are never skipped.
            newest_only = {quote.symbol: quote for quote in quotes}
            counters.conflated += len(quotes) - len(newest_only)
            quotes = list(newest_only.values())
        records: list[Record] = []
        flows = self.flows
        for quote in quotes:
            flow = flows.get(quote.symbol)
            if flow is None or not self._reads_quotes:
                self._count_unexpected("quote", quote.symbol)
                continue
            flow.quotes += 1
            if quote.update_id > flow.last_update_id:
                flow.last_update_id, flow.last_quote = quote.update_id, quote
                records.append({"value": flow.encode_quote(quote), "key": flow.key})
            else:
                counters.outdated += 1
                self._hold_low_quote(flow, quote)
        if records:
            self._publisher.publish(counters, records, now_us, {})

    def _hold_low_quote(self, flow: SymbolFlow, quote: BookTicker) -> None:
        if self._recent_quotes.has_duplicate(quote):
            return  # of overlapping connections
        low, now = flow.low_quotes, self._monotonic()
        if low is None or low.below != flow.last_update_id:
            low = flow.low_quotes = LowQuotes(flow.last_update_id, now)
        if quote.update_id < low.below:
            low.hold(quote, now)

    def low_quotes_due(self) -> list[tuple[SymbolFlow, LowQuotes]]:
        """Return the symbols whose quotes have stayed below the newest update id for long enough."""
        now, found = self._monotonic(), []
        for flow in self.flows.values():
            low = flow.low_quotes
            if low is None:
                continue
            low.observe(now)
            if low.below != flow.last_update_id:
                flow.low_quotes = None  # a higher update id was received
                self.end_lagging(flow.symbol)
            elif low.is_due():
                found.append((flow, low))
        return found

    def decide(
        self, flow: SymbolFlow, low: LowQuotes, decision: SeriesDecision, known: QuoteCheckpoint | None = None
    ) -> None:
        """Begin a new series with the held quotes, or skip them as quotes of a lagging connection.

        `known` is the newest checkpoint of quotes in Kafka.
        """
        is_ours = self.flows.get(flow.symbol) is flow and flow.low_quotes is low
        if not is_ours or low.below != flow.last_update_id:
            return
        if decision is SeriesDecision.RESTARTED:
            self._begin_series(flow, low, known)
        else:
            lagging = self._lagging.setdefault(
                flow.symbol, logs.Episode(log, "quotes lagging", "quotes no longer lagging", self._monotonic)
            )
            lagging.begin(symbol=flow.symbol, update_id=low.quotes[-1].update_id, newest_id=low.below)
            flow.low_quotes = LowQuotes(low.below, self._monotonic())

    def end_lagging(self, symbol: str) -> None:
        """Log the end of lagging quotes of a symbol."""
        lagging = self._lagging.pop(symbol, None)
        if lagging is not None:
            lagging.end(symbol=symbol)

    def _begin_series(self, flow: SymbolFlow, low: LowQuotes, known: QuoteCheckpoint | None = None) -> None:
        """Begin a new series with the held quotes; `known` is the newest checkpoint of quotes in Kafka."""
        flow.low_quotes = None
        self.end_lagging(flow.symbol)
        if known is not None and known.id_series > flow.quote_series:
            # Another worker has begun a series. Ids above its newest belong to it, lower ones to the next.
            continues = low.quotes[-1].update_id >= known.update_id
            flow.quote_series = known.id_series if continues else known.id_series + 1
        else:
            flow.quote_series += 1
        flow.encode_quote = encoder(flow.quote_series)
        flow.last_update_id = low.quotes[-1].update_id
        self._counters.quotes.outdated -= len(low.quotes)
        self._counters.series_begun["book_ticker", flow.symbol] += 1
        log.error(
            "quote id reset detected",
            symbol=flow.symbol,
            id_series=flow.quote_series,
            first_id=low.quotes[0].update_id,
            after_id=low.below,
        )
        records: list[Record] = [{"value": flow.encode_quote(quote), "key": flow.key} for quote in low.quotes]
        self._publisher.publish(self._counters.quotes, records, self._now_us(), {})
