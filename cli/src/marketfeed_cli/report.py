"""The closing report: what each stage says it has handled, and whether anything is missing.

Plain functions over facts that `evidence` collects. The proof is per symbol: the trade ids from the first to the last
that the stream had, less those that the venue itself does not have, must all be in the database.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from marketfeed_cli import ranges
from marketfeed_cli.ranges import IdRange


class Latency(msgspec.Struct, frozen=True):
    """Wire to commit, in microseconds: from the worker's socket read to the database's answer to COMMIT."""

    p50_us: int | None
    p99_us: int | None


class StreamFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of message on its way from the venue to its table."""

    sent: int | None
    """Produced by the venue, each counted once; None when the venue is not ours and does not tell."""
    received: int
    """Read from the venue's sockets by the worker."""
    acknowledged: int
    """Acknowledged by Kafka."""
    committed: int
    """Rows in the database that belong to this run."""
    duplicates: int
    """Rows beyond the first with the same key."""
    repeats: int
    """Messages that the consumer had stored already, and so passed over."""
    latency: Latency


class SymbolFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The trade ids of one symbol."""

    expected: IdRange | None
    """From the first to the last id that the stream had; None when it had none."""
    absent: list[IdRange]
    """Ids in between that the venue itself never had."""
    committed: list[IdRange]
    """Ids in the database within `expected`."""
    latency: Latency


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run has left behind."""

    trades: StreamFacts
    quotes: StreamFacts
    symbols: dict[str, SymbolFacts]
    repaired: int
    """Committed trades that the worker fetched over REST, because the stream did not bring them."""
    dead_letters: int
    failed: int
    """Messages that Kafka refused for good."""


class SymbolReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the report says of one symbol's trades."""

    first_trade_id: int | None
    last_trade_id: int | None
    expected: int
    committed: int
    missing: int
    missing_ranges: list[IdRange]
    absent_at_venue: int
    latency: Latency


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The closing report; its JSON is what ``--output json`` prints."""

    verdict: Literal["complete", "incomplete", "empty"]
    problems: list[str]
    source: str
    seconds: float
    """From the first datum to the last commit, as the clock on the wall has it."""
    trades: StreamFacts
    quotes: StreamFacts
    symbols: dict[str, SymbolReport]
    missing: int
    """Trade ids, over all symbols."""
    repaired: int
    dead_letters: int
    failed: int

    @property
    def exit_code(self) -> int:
        """0 only when nothing is missing."""
        return 0 if self.verdict == "complete" else 1


def make_report(facts: Facts, *, source: str, seconds: float) -> Report:
    """The report that `facts` justify."""
    symbols = {symbol: _symbol_report(each) for symbol, each in facts.symbols.items()}
    problems = _problems(facts, symbols)
    verdict: Literal["complete", "incomplete", "empty"] = "incomplete" if problems else "complete"
    if not problems and facts.trades.committed == 0 and facts.quotes.committed == 0:
        verdict, problems = "empty", ["the venue sent nothing, so nothing is proven"]
    return Report(
        verdict=verdict,
        problems=problems,
        source=source,
        seconds=round(seconds, 3),
        trades=facts.trades,
        quotes=facts.quotes,
        symbols=symbols,
        missing=sum(each.missing for each in symbols.values()),
        repaired=facts.repaired,
        dead_letters=facts.dead_letters,
        failed=facts.failed,
    )


def _symbol_report(facts: SymbolFacts) -> SymbolReport:
    whole = [facts.expected] if facts.expected else []
    expected = ranges.without(whole, facts.absent)
    missing = ranges.without(expected, facts.committed)
    return SymbolReport(
        first_trade_id=facts.expected.first if facts.expected else None,
        last_trade_id=facts.expected.last if facts.expected else None,
        expected=ranges.size(expected),
        committed=ranges.size(facts.committed),
        missing=ranges.size(missing),
        missing_ranges=missing,
        absent_at_venue=ranges.size(whole) - ranges.size(expected),
        latency=facts.latency,
    )


def _problems(facts: Facts, symbols: Mapping[str, SymbolReport]) -> list[str]:
    """Every reason why the data is not complete, a sentence each."""
    problems = [
        f"{symbol}: {_count(each.missing, 'trade id')} missing: {ranges.text(each.missing_ranges)}"
        for symbol, each in symbols.items()
        if each.missing
    ]
    for name, stream in (("trade", facts.trades), ("quote", facts.quotes)):
        lost = stream.acknowledged - stream.repeats - stream.committed
        if lost > 0:
            problems.append(f"{_count(lost, name)} acknowledged by Kafka and not in the database")
        if stream.duplicates:
            problems.append(f"{_count(stream.duplicates, f'duplicate {name} row')} in the database")
    unread = (facts.quotes.sent or 0) - facts.quotes.committed
    if unread > 0:
        problems.append(f"{_count(unread, 'quote')} of the venue not in the database")
    if facts.failed:
        problems.append(f"{_count(facts.failed, 'message')} refused by Kafka")
    if facts.dead_letters:
        problems.append(f"{_count(facts.dead_letters, 'message')} put into the table dead_letters")
    return problems


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
