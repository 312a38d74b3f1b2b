"""The closing report for a reader."""

import rich.box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marketfeed_cli import figures
from marketfeed_cli.report import Report


def render(report: Report) -> RenderableType:
    """The report as tables and a verdict."""
    return Group(_stages(report), _symbols(report), *_verdict(report))


def _stages(report: Report) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", style="bold")
    for heading in ("trades", "quotes"):
        table.add_column(heading, justify="right")
    trades, quotes = report.trades, report.quotes
    if trades.sent is not None:
        table.add_row("sent by the venue", figures.count(trades.sent), figures.count(quotes.sent))
    table.add_row("received by the worker", figures.count(trades.received), figures.count(quotes.received))
    table.add_row(
        "acknowledged by Kafka", figures.count(trades.acknowledged), figures.count(quotes.acknowledged)
    )
    table.add_row(
        "committed to the database", figures.count(trades.committed), figures.count(quotes.committed)
    )
    if report.repaired:
        table.add_row("  of these repaired over REST", figures.count(report.repaired), "")
    table.add_row("duplicate rows", figures.count(trades.duplicates), figures.count(quotes.duplicates))
    table.add_row("repeats passed over", figures.count(trades.repeats), figures.count(quotes.repeats))
    for name in ("p50", "p99"):
        table.add_row(
            f"wire to commit, {name}",
            *(figures.duration(getattr(stream.latency, f"{name}_us")) for stream in (trades, quotes)),
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
            figures.NOTHING if each.first_trade_id is None else str(each.first_trade_id),
            figures.NOTHING if each.last_trade_id is None else str(each.last_trade_id),
            *([figures.count(each.absent_at_venue)] if absent else []),
            figures.count(each.expected),
            figures.count(each.committed),
            Text(figures.count(each.missing), style="bold red" if each.missing else ""),
        )
    return table


def _verdict(report: Report) -> list[Text]:
    if report.verdict == "complete":
        ids = sum(each.expected for each in report.symbols.values())
        what = (
            f"all {ids:,} trade ids are"
            if ids
            else f"no trades, and all {report.quotes.committed:,} quotes are"
        )
        return [Text(f"complete: {what} in the database, each once", style="bold green")]
    lines = [Text(report.verdict, style="bold red")]
    lines += [Text(f"  {problem}") for problem in report.problems]
    return lines
