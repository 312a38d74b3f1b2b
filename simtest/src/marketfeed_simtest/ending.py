"""What the oracle judges when a session is over: the whole log, the fate of each process, the last one's metrics."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from marketfeed_simtest.clock import START_SECONDS
from marketfeed_simtest.life import Life
from marketfeed_simtest.oracle import Oracle, SymbolRecords, inside
from marketfeed_simtest.truth import TrueSymbol

_UNDER_WAY_SECONDS = 5.0
"""What was made so shortly before the last process ended need not have reached it."""


class Ending:
    """The end of a session.

    Args:
        slowest_seconds: the longest that writes took.
        had_faults: whether anything struck at all.
    """

    def __init__(
        self,
        oracle: Oracle,
        truth: Mapping[str, TrueSymbol],
        lives: Mapping[int, Life],
        *,
        healed_at: float,
        slowest_seconds: float,
        progress_seconds: float,
        had_faults: bool,
    ) -> None:
        self._oracle = oracle
        self._truth = truth
        self._lives = lives
        self._healed_at = healed_at
        self._slowest_seconds = slowest_seconds
        self._progress_seconds = progress_seconds
        self._had_faults = had_faults
        self._last_end = max(life.ended for life in lives.values())

    def check(self, symbols: Mapping[str, tuple[float, float]], kinds: str) -> None:
        """Judge every symbol of the plan."""
        for symbol in symbols:
            true, known = self._truth.get(symbol, TrueSymbol()), self._oracle.symbols[symbol]
            if "trade" in kinds:
                self._check_trades(symbol, true, known)
                self._check_repeats(symbol, known)
                self._check_order(symbol, known)
                self._check_gaps(symbol, known)
            if "bookTicker" in kinds:
                self._check_last_quote(symbol, true, known)

    def _check_trades(self, symbol: str, true: TrueSymbol, known: SymbolRecords) -> None:
        absent = [each for gap, _ in known.gaps.values() for each in gap.absent]
        missing = [each for gap, _ in known.gaps.values() for each in gap.missing]
        begins: dict[int, int] = {}
        for series, number in known.stored:
            begins[series] = min(number, begins.get(series, number))
        if known.begins is not None:
            begins[0] = min(known.begins, begins.get(0, known.begins))
        for trade in true.trades:
            begun = trade.series in begins and trade.id >= begins[trade.series]
            if trade.seconds > self._last_end - _UNDER_WAY_SECONDS:
                break
            if not begun and trade.seconds > self._last_end - 30:
                continue
            stored = (trade.series, trade.id) in known.stored
            if (
                stored
                and not trade.series
                and inside(missing, trade.id)
                and self._could_know(known, trade.id)
            ):
                self._violate("false_missing", f"{symbol} {trade.id} is in the topic")
            elif not stored and not trade.series and inside(absent, trade.id):
                self._violate("false_absent", f"{symbol} {trade.id}: the venue had it")
            elif not stored and begun and not known.is_reported(trade.id, is_first_series=not trade.series):
                self._violate(
                    "lost_unreported",
                    f"{symbol} {trade.id} of series {trade.series}, made t={trade.seconds:.2f}",
                )
            elif trade.series not in begins:
                self._violate("lost_unreported", f"{symbol}: no trade of series {trade.series} was published")

    def _could_know(self, known: SymbolRecords, number: int) -> bool:
        """Whether an id is reported missing by a process that published it, or followed one that ended well.

        What a process published that was killed, or that still runs beside, the next one learns from REST only.
        """
        for gap, record in known.gaps.values():
            if gap.id_series or not inside(gap.missing, number):
                continue
            for stored in known.stored[0, number]:
                writer = self._lives[stored.life]
                ended_well = writer.ending == "exited" and writer.code == 0
                if stored.life == record.life or (
                    ended_well and writer.ended <= self._lives[record.life].began
                ):
                    return True
        return False

    def _check_repeats(self, symbol: str, known: SymbolRecords) -> None:
        for key, before, again in known.repeats:
            old, new = self._lives[before.life], self._lives[again.life]
            if new.began < old.ended:
                continue  # side by side: both publish
            if old.ending == "exited" and old.code == 0:
                self._violate(
                    "repeated_after_clean_stop", f"{symbol} {key}, by processes {old.number} and {new.number}"
                )
                continue
            age = old.ended - before.seconds
            most = self._progress_seconds + 5 + self._oracle.allowance_seconds + 6 * self._slowest_seconds
            if age > most:
                self._violate(
                    "repeated_too_much",
                    f"{symbol} {key}: in the topic {age:.1f} s before process {old.number} ended",
                )

    def _check_order(self, symbol: str, known: SymbolRecords) -> None:
        for number, before, seconds in known.suspects:
            if not inside(known.gaps_ever, number):
                self._violate(
                    "out_of_order", f"{symbol} {number} after {before} at t={seconds:.2f}, in no gap record"
                )

    def _check_gaps(self, symbol: str, known: SymbolRecords) -> None:
        if self._had_faults:
            return
        for gap, _ in known.gaps.values():
            if gap.detected_time_us < (self._healed_at + START_SECONDS) * 1e6:
                self._violate("gap_without_fault", f"{symbol} {gap.first_id}-{gap.last_id} {gap.state}")

    def _check_last_quote(self, symbol: str, true: TrueSymbol, known: SymbolRecords) -> None:
        quotes = [quote for quote in true.quotes if quote.seconds < self._last_end - _UNDER_WAY_SECONDS]
        if quotes and known.last_quote < (quotes[-1].series, quotes[-1].id):
            # Newer ones may have come in the last seconds, which makes `last_quote` larger.
            self._violate(
                "last_quote_lost", f"{symbol} {quotes[-1].id}: the newest in the topic is {known.last_quote}"
            )

    def _violate(self, name: str, text: str) -> None:
        self._oracle.violate(name, text)


def metric(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def check_metrics(oracle: Oracle, life: Life, topics: Mapping[str, str], frames: int) -> None:
    """The metrics of a process that exited with 0, against the topics and what its connections delivered."""
    if life.registry is None:
        return
    for topic in topics.values():
        told = metric(life.registry, "kafka_publish_success_total", topic=topic)
        written = oracle.written_by[life.number, topic]
        if told != written:
            oracle.violate(
                "wrong_metric", f"kafka_publish_success_total of {topic} is {told:.0f}, written: {written}"
            )
    read = metric(life.registry, "vendor_fetch_success_total")
    refused = metric(life.registry, "vendor_fetch_failure_total", reason="bad_frame")
    if read + refused != frames:
        oracle.violate("wrong_metric", f"{read:.0f} messages and {refused:.0f} bad frames of {frames} frames")
    for symbol, known in oracle.symbols.items():
        reported = sum(last - first + 1 for gap, _ in known.gaps.values() for first, last in gap.missing)
        still_open = any(gap.state == "open" for gap, _ in known.gaps.values())
        missing = metric(life.registry, "marketfeed_trade_ids_missing", symbol=symbol)
        if missing != reported and not still_open:
            oracle.violate(
                "wrong_metric",
                f"marketfeed_trade_ids_missing of {symbol} is {missing:.0f}, reported: {reported}",
            )
