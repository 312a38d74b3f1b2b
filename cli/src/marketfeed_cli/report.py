"""Final report: message counts of each stage, and completeness of the data.

Pure functions over the facts that `facts` collects. Completeness is verified per symbol: all trade ids from the first
to the last one of the stream, without absent ids, must be in the database.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from marketfeed_service.id_ranges import IdRange, difference, total


class Latency(msgspec.Struct, frozen=True):
    """Wire to commit in microseconds: from the worker's socket read to the database's response to COMMIT."""

    p50_us: int | None
    p99_us: int | None


class StreamFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Message counts of a stream, trades or quotes, by stage."""

    sent: int | None
    """Distinct messages in the simulator's ledger; None for a live venue."""
    received: int
    """Received by the worker."""
    acknowledged: int
    """Acknowledged by Kafka."""
    committed: int
    """Rows of this run in the database."""
    duplicates: int
    """Rows beyond the first with the same key."""
    duplicates_skipped: int
    """Messages that were already stored and that the consumer skipped."""
    latency: Latency


class SymbolFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Trade ids of a symbol."""

    expected: IdRange | None
    """From the first to the last id of the stream; None if it had none."""
    absent: list[IdRange]
    """Absent ids within `expected`."""
    committed: list[IdRange]
    """Ids in the database within `expected`."""
    latency: Latency


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All facts of a run."""

    trades: StreamFacts
    quotes: StreamFacts
    symbols: dict[str, SymbolFacts]
    backfilled: int
    """Committed trades that the worker backfilled over REST."""
    dead_letters: int
    failed: int
    """Messages that Kafka rejected permanently."""


class SymbolReport(msgspec.Struct, frozen=True, kw_only=True):
    """Trades of a symbol in the report."""

    first_trade_id: int | None
    last_trade_id: int | None
    expected: int
    committed: int
    missing: int
    missing_ranges: list[IdRange]
    absent_at_venue: int
    latency: Latency


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Final report, and schema of ``--output json``."""

    result: Literal["complete", "incomplete", "empty"]
    problems: list[str]
    source: str
    seconds: float
    """Elapsed time from the start of the worker to the last commit."""
    trades: StreamFacts
    quotes: StreamFacts
    symbols: dict[str, SymbolReport]
    missing: int
    """Missing trade ids of all symbols."""
    backfilled: int
    dead_letters: int
    failed: int

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 0 only if the data is complete."""
        return 0 if self.result == "complete" else 1


def make_report(facts: Facts, *, source: str, seconds: float) -> Report:
    """Return the report of `facts`.

    Args:
        facts: Facts of the run.
        source: Name of the market.
        seconds: Elapsed time.
    """
    symbols = {symbol: _symbol_report(each) for symbol, each in facts.symbols.items()}
    problems = _problems(facts, symbols)
    result: Literal["complete", "incomplete", "empty"] = "incomplete" if problems else "complete"
    if not problems and facts.trades.committed == 0 and facts.quotes.committed == 0:
        result, problems = "empty", ["the venue sent no messages, so completeness cannot be verified"]
    return Report(
        result=result,
        problems=problems,
        source=source,
        seconds=round(seconds, 3),
        trades=facts.trades,
        quotes=facts.quotes,
        symbols=symbols,
        missing=sum(each.missing for each in symbols.values()),
        backfilled=facts.backfilled,
        dead_letters=facts.dead_letters,
        failed=facts.failed,
    )


def _symbol_report(facts: SymbolFacts) -> SymbolReport:
    whole = [facts.expected] if facts.expected else []
    expected = difference(whole, facts.absent)
    missing = difference(expected, facts.committed)
    return SymbolReport(
        first_trade_id=facts.expected.first if facts.expected else None,
        last_trade_id=facts.expected.last if facts.expected else None,
        expected=total(expected),
        committed=total(facts.committed),
        missing=total(missing),
        missing_ranges=missing,
        absent_at_venue=total(whole) - total(expected),
        latency=facts.latency,
    )


def ranges_text(ranges: Sequence[IdRange], limit: int = 5) -> str:
    """Format the first `limit` ranges and the number of further ones."""
    shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:limit])
    more = len(ranges) - limit
    if more <= 0:
        return shown
    return f"{shown} and {more:,} more {'range' if more == 1 else 'ranges'}"


def _problems(facts: Facts, symbols: Mapping[str, SymbolReport]) -> list[str]:
    """Return every reason why the data is not complete."""
    problems = [
        f"{symbol}: {_count(each.missing, 'trade id')} missing: {ranges_text(each.missing_ranges)}"
        for symbol, each in symbols.items()
        if each.missing
    ]
    for name, stream in (("trade", facts.trades), ("quote", facts.quotes)):
        lost = stream.acknowledged - stream.duplicates_skipped - stream.committed
        if lost > 0:
            problems.append(f"{_count(lost, name)} acknowledged by Kafka and not in the database")
        if stream.duplicates:
            problems.append(f"{_count(stream.duplicates, f'duplicate {name} row')} in the database")
    missing_quotes = (facts.quotes.sent or 0) - facts.quotes.committed
    if missing_quotes > 0:
        problems.append(f"{_count(missing_quotes, 'quote')} of the venue not in the database")
    if facts.failed:
        problems.append(f"{_count(facts.failed, 'message')} rejected by Kafka")
    if facts.dead_letters:
        problems.append(f"{_count(facts.dead_letters, 'message')} written to the table dead_letters")
    return problems


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
