"""The oracle's checks at the end of a session: the whole log, each process's fate, the last one's metrics."""

import math
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry

from marketfeed_service.settings import parse_time_us
from marketfeed_simtest.life import Life
from marketfeed_simtest.oracle import Oracle
from marketfeed_simtest.records import SeriesRecords, SymbolRecords, inside, merged
from marketfeed_simtest.truth import TrueSymbol
from marketfeed_simtest.venue_model import Delivered
from marketfeed_workers.symbol_assignment import ADOPT_SECONDS

_IN_FLIGHT_SECONDS = 5.0
"""Seconds before the last process's end within which new messages need not have reached it."""


class Ending:
    """The end of a session.

    Args:
        gaps_since: time in seconds before which no fault caused a gap.
        knows_beginnings: whether REST always had the first id of an id series.
        backfill_from: time from which trades are required; "": from the first start on.
        deliveries: trades delivered to processes, of symbols whose ids restart.
    """

    def __init__(
        self,
        oracle: Oracle,
        truth: Mapping[str, TrueSymbol],
        lives: Mapping[int, Life],
        *,
        gaps_since: float,
        knows_beginnings: bool,
        backfill_from: str,
        deliveries: Iterable[Delivered],
    ) -> None:
        self._oracle = oracle
        self._truth = truth
        self._lives = lives
        self._gaps_since = gaps_since
        self._knows_beginnings = knows_beginnings
        self._since_us = parse_time_us(backfill_from) if backfill_from else None
        self._deliveries = list(deliveries)
        self._last_end = max(life.ended for life in lives.values())

    def check(self, symbols: Mapping[str, tuple[float, float]], kinds: str) -> None:
        """Check every symbol of the plan."""
        for symbol in symbols:
            true, known = self._truth.get(symbol, TrueSymbol()), self._oracle.symbols[symbol]
            if "trade" in kinds:
                for series in range(true.series + 1):
                    self._check_trades(symbol, series, true, known)
                self._check_repeats(symbol, known)
                self._check_order(symbol, known)
                self._check_gaps(symbol, known)
        if self._oracle.holds is not None:
            self._oracle.holds.check_end()
        if "bookTicker" in kinds:
            self._oracle.quotes.check_end(symbols, self._has_left, self._last_end)
        self._oracle.rejections.check_end(self._has_left)

    def _has_left(self, symbol: str) -> bool:
        """Return whether a symbol was removed from the assignment: no process has to read it meanwhile."""
        return bool(self._oracle.symbols[symbol].left)

    def _check_trades(self, symbol: str, series: int, true: TrueSymbol, known: SymbolRecords) -> None:
        one = known.standing_for(series) or SeriesRecords()
        absent = [each for gap, _ in one.gaps.values() for each in gap.absent]
        missing = [each for gap, _ in one.gaps.values() for each in gap.missing]
        begins = self._first_id(series, true, known, one)
        newest = math.inf if series == true.series else self._knowable(symbol, series, known)
        for trade in true.trades:
            if trade.series != series or trade.id > newest:
                continue
            begun = begins is not None and (trade.id >= begins or (series > 0 and self._knows_beginnings))
            if trade.seconds > self._last_end - _IN_FLIGHT_SECONDS:
                break
            if not begun and trade.seconds > self._last_end - 30:
                continue
            stored = (series, trade.id) in known.stored
            what = f"{symbol} {trade.id} of series {series}"
            if stored and inside(missing, trade.id) and self._could_know(known, one, (series, trade.id)):
                self._violate("false_missing", f"{what} is in the topic")
            elif not stored and inside(absent, trade.id):
                self._violate("false_absent", f"{what}: the venue had it")
            elif not stored and begun and not one.is_reported(trade.id):
                self._violate("lost_unreported", f"{what}, made t={trade.seconds:.2f}")
            elif begins is None:
                self._violate("lost_unreported", f"{symbol}: no trade of series {series} was published")

    def _first_id(
        self, series: int, true: TrueSymbol, known: SymbolRecords, one: SeriesRecords
    ) -> int | None:
        """Return the first id of a series for the worker; None where it is unknown."""
        begins = [number for its, number in known.stored if its == series]
        begins += [] if one.begins is None else [one.begins]
        if begins and series == 0 and self._since_us is not None:
            begins += [each.id for each in true.trades if not each.series and each.time_us >= self._since_us]
        return min(begins, default=None)

    def _knowable(self, symbol: str, series: int, known: SymbolRecords) -> float:
        """Return the newest id of an ended series that a process received early enough to store it.

        Later trades, until the ids restarted, reached no process; or they were buffered behind a gap when the process
        ended, for the next one to backfill, and REST no longer has them.
        """
        hold_seconds = self._oracle.hold_seconds
        seen = [number for its, number in known.stored if its == series]
        for each in self._deliveries:
            if each.symbol == symbol and each.series == series:
                ended = self._lives[each.life].ended
                if ended - each.seconds > hold_seconds + self._oracle.known_after(each.seconds, ended):
                    seen.append(each.id)
        return max(seen, default=-1)

    def _could_know(self, known: SymbolRecords, one: SeriesRecords, trade: tuple[int, int]) -> bool:
        """Return whether an id is reported missing by a process that published it, or that could have read so.

        Trades that a killed process, or one that still runs, published in its last seconds are known to the next one
        through REST only.
        """
        for gap, record in one.gaps.values():
            if not inside(gap.missing, trade[1]):
                continue
            for stored in known.stored[trade]:
                writer, began = self._lives[stored.life], self._lives[record.life].began
                ended_well = writer.ending == "exited" and writer.code == 0 and writer.ended <= began
                until = min(began, writer.ended)
                is_old = until - stored.seconds > self._oracle.known_after(stored.seconds, until)
                if stored.life == record.life or ended_well or is_old:
                    return True
        return False

    def _check_repeats(self, symbol: str, known: SymbolRecords) -> None:
        for key, before, again in known.repeats:
            old, new = self._lives[before.life], self._lives[again.life]
            if new.began < old.ended:
                continue  # side by side: both publish
            age = old.ended - before.seconds
            if old.ending == "exited" and old.code == 0:
                self._violate(
                    "repeated_after_clean_stop", f"{symbol} {key}, by processes {old.number} and {new.number}"
                )
            elif age > self._oracle.known_after(before.seconds, old.ended):
                self._violate(
                    "repeated_too_much",
                    f"{symbol} {key}: in the topic {age:.1f} s before process {old.number} ended",
                )

    def _check_order(self, symbol: str, known: SymbolRecords) -> None:
        for (series, number), before, seconds in known.suspects:
            one = known.standing_for(series) or SeriesRecords()
            # A trade from before the symbol's first id is new, however late it arrives.
            if not inside(one.gaps_ever, number) and (one.begins is None or number >= one.begins):
                self._violate(
                    "out_of_order", f"{symbol} {number} after {before} at t={seconds:.2f}, in no gap record"
                )

    def _check_gaps(self, symbol: str, known: SymbolRecords) -> None:
        for one in known.series.values():
            for (first, last), written in one.gaps_ever.items():
                if written < self._gaps_since:
                    self._violate("gap_without_fault", f"{symbol} {first}-{last} at t={written:.2f}")

    def _violate(self, name: str, text: str) -> None:
        self._oracle.violate(name, text)


def metric(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def _size(ranges: Iterable[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def check_metrics(
    oracle: Oracle, life: Life, topics: Mapping[str, str], frames: int, *, is_last: bool
) -> None:
    """Compare the metrics of a process that exited with 0 with the topics and its connections' deliveries.

    Args:
        oracle: oracle of the session.
        life: process.
        topics: names of the topics.
        frames: number of frames delivered to the process.
        is_last: whether it is the last process.
    """
    if life.registry is None:
        return
    for topic in topics.values():
        value = metric(life.registry, "kafka_publish_success_total", topic=topic)
        written = oracle.written_by[life.number, topic]
        if value != written:
            oracle.violate(
                "wrong_metric", f"kafka_publish_success_total of {topic} is {value:.0f}, written: {written}"
            )
    read = metric(life.registry, "vendor_fetch_success_total")
    refused = metric(life.registry, "vendor_fetch_failure_total", reason="bad_frame")
    if read + refused != frames:
        oracle.violate("wrong_metric", f"{read:.0f} messages and {refused:.0f} bad frames of {frames} frames")
    for outcome in ("backfilled", "absent"):
        counted = metric(life.registry, "marketfeed_trade_gaps_total", outcome=outcome)
        value = len(oracle.gap_states[life.number, outcome])
        if counted < value:
            oracle.violate("wrong_metric", f"{counted:.0f} gaps {outcome}, and records of {value}")
    kept = metric(life.registry, "marketfeed_messages_rejected_total")
    if kept != oracle.written_by[life.number, topics["rejected"]]:
        oracle.violate("wrong_metric", f"{kept:.0f} messages rejected, but fewer kept")
    for symbol, known in oracle.symbols.items() if is_last else ():
        latest = known.latest or SeriesRecords()  # gaps of the previous series are not backfilled any more
        adopts = life.ended - life.began > ADOPT_SECONDS[0] + _IN_FLIGHT_SECONDS
        # Two processes may report an id in a record each.
        every = merged(span for gap, _ in latest.gaps.values() for span in gap.missing)
        reported = _size(every)
        # Gap records of a process that ran beside this one are closed when this one reads the records again.
        known_ids = _size(every if adopts else latest.missing_known_to(life.number, life.began))
        still_open = any(gap.state == "open" for gap, _ in latest.gaps.values())
        missing = metric(life.registry, "marketfeed_trade_ids_missing", symbol=symbol)
        unreported = oracle.made_since(symbol, life.ended - oracle.hold_seconds - _IN_FLIGHT_SECONDS)
        # Until then a record of theirs may report fewer ids of the same gap than this process has to backfill.
        overwritten = not adopts and any(
            record.life != life.number and record.seconds >= life.began for _, record in latest.gaps.values()
        )
        if (
            not (known_ids <= missing and (missing <= reported + unreported or overwritten))
            and not still_open
        ):
            oracle.violate(
                "wrong_metric",
                f"marketfeed_trade_ids_missing of {symbol} is {missing:.0f}, reported: {reported}",
            )
