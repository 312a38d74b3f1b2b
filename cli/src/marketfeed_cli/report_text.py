"""Text output of the final report."""

import rich.box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marketfeed_cli import formatting
from marketfeed_cli.report import Report


def render(report: Report) -> RenderableType:
    """Return the report as tables and a summary."""
    return Group(_stages(report), _symbols(report), *_summary(report))


def _stages(report: Report) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", style="bold")
    for heading in ("trades", "quotes"):
        table.add_column(heading, justify="right")
    trades, quotes = report.trades, report.quotes
    if trades.sent is not None:
        table.add_row("sent by the venue", formatting.count(trades.sent), formatting.count(quotes.sent))
    table.add_row(
        "received by the worker", formatting.count(trades.received), formatting.count(quotes.received)
    )
    table.add_row(
        "acknowledged by Kafka", formatting.count(trades.acknowledged), formatting.count(quotes.acknowledged)
    )
    table.add_row(
        "committed to the database", formatting.count(trades.committed), formatting.count(quotes.committed)
    )
    if report.backfilled:
        table.add_row("  of these backfilled over REST", formatting.count(report.backfilled), "")
    table.add_row("duplicate rows", formatting.count(trades.duplicates), formatting.count(quotes.duplicates))
    skipped = (formatting.count(each.duplicates_skipped) for each in (trades, quotes))
    table.add_row("duplicates skipped", *skipped)
    for name in ("p50", "p99"):
        table.add_row(
            f"wire to commit, {name}",
            *(formatting.duration(getattr(stream.latency, f"{name}_us")) for stream in (trades, quotes)),
        )
    return table


def _symbols(report: Report) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("symbol", style="bold")
    absent = any(each.absent_at_venue for each in report.symbols.values())
    headings = ["first trade id", "last trade id", "absent at venue", "expected", "committed", "missing"]
    for heading in headings:
        if absent or heading != "absent at venue":
            table.add_column(heading, justify="right")
    for symbol, each in report.symbols.items():
        table.add_row(
            symbol,
            formatting.NO_VALUE if each.first_trade_id is None else str(each.first_trade_id),
            formatting.NO_VALUE if each.last_trade_id is None else str(each.last_trade_id),
            *([formatting.count(each.absent_at_venue)] if absent else []),
            formatting.count(each.expected),
            formatting.count(each.committed),
            Text(formatting.count(each.missing), style="bold red" if each.missing else ""),
        )
    return table


def _summary(report: Report) -> list[Text]:
    if report.result == "complete":
        ids = sum(each.expected for each in report.symbols.values())
        subject = (
            f"all {ids:,} trade ids are"
            if ids
            else f"no trades, and all {report.quotes.committed:,} quotes are"
        )
        return [Text(f"complete: {subject} in the database, without duplicates", style="bold green")]
    lines = [Text(report.result, style="bold red")]
    lines += [Text(f"  {problem}") for problem in report.problems]
    return lines
