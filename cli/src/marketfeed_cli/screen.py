"""Output of a run: start-up steps, a live table or plain lines, and endpoints of kept components.

The table is redrawn in place on a terminal; otherwise a plain line is printed every few seconds. With ``--output json``
all of it goes to stderr, so that stdout contains only the report.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import rich.box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from marketfeed_cli import formatting
from marketfeed_cli.observe import Price
from marketfeed_cli.report import Latency

PLAIN_SECONDS: Final = 5.0
"""Interval of plain lines."""
_LABEL_WIDTH: Final = 11

Output = Literal["text", "json"]


@dataclass(frozen=True)
class SymbolLine:
    """Current values of a symbol; `trades` is the number of rows in the database."""

    symbol: str
    price: Price
    trades: int
    trades_per_second: float
    latency: Latency


@dataclass(frozen=True)
class Flow:
    """Message counts of a stream by stage."""

    received: int
    acknowledged: int
    committed: int


@dataclass(frozen=True)
class Snapshot:
    """State of the pipeline at a point in time; `total_seconds` is None for a replay."""

    seconds: float
    total_seconds: float | None
    trades: Flow
    quotes: Flow
    missing: int
    symbols: Sequence[SymbolLine]
    note: str = ""


class Screen:
    """Printer of a run's output; see the module."""

    def __init__(self, output: Output) -> None:
        self.console = Console(stderr=output == "json", highlight=False)

    def line(self, text: RenderableType = "") -> None:
        """Print a line, a table or another renderable."""
        self.console.print(text, soft_wrap=isinstance(text, str | Text))

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[str], None]]:
        """Print ``label``, then the texts of the block on the same line, and end the line after the block."""
        self.console.print(f"  {label:<{_LABEL_WIDTH}}", end="", markup=False)
        try:
            yield lambda text: self.console.print(text, end="", markup=False, soft_wrap=True)
        finally:
            self.console.print()

    @contextmanager
    def live(self) -> Iterator[Callable[[Snapshot], None]]:
        """Yield a function that shows a snapshot: in place, or as a line at intervals."""
        if self.console.is_terminal:
            # Without a refresh thread: the table is drawn on each update.
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                yield lambda snapshot: live.update(_table(snapshot), refresh=True)
        else:
            printed = -PLAIN_SECONDS

            def show(snapshot: Snapshot) -> None:
                nonlocal printed
                if snapshot.seconds - printed >= PLAIN_SECONDS:
                    printed = snapshot.seconds
                    self.console.print(_plain(snapshot), markup=False, soft_wrap=True)

            yield show

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[int, float], None]]:
        """Show a progress bar; the yielded function takes the number of stored frames and the elapsed seconds."""
        if not self.console.is_terminal:
            printed = -PLAIN_SECONDS

            def show(done: int, seconds: float) -> None:
                nonlocal printed
                if seconds - printed >= PLAIN_SECONDS or done == total:
                    printed = seconds
                    self.console.print(
                        f"  {done:,} of {total:,} frames stored after {seconds:.0f} s", soft_wrap=True
                    )

            yield show
            return
        bar = Progress(
            TextColumn("  stored"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.completed:,} of {task.total:,} frames, {task.fields[rate]}"),
            TimeElapsedColumn(),
            console=self.console,
            auto_refresh=False,
            transient=True,
        )
        with bar:
            task = bar.add_task("", total=total, rate="")

            def advance(done: int, seconds: float) -> None:
                rate = formatting.rate(done / seconds) if seconds > 0.5 else ""
                bar.update(task, completed=done, rate=rate, refresh=True)

            yield advance

    def endpoints(self, endpoints: Mapping[str, str]) -> None:
        """Print the endpoints of components that keep running."""
        self.console.print("\nStill running; Ctrl-C stops and removes it all.")
        width = max(map(len, endpoints))
        for label, endpoint in endpoints.items():
            self.console.print(f"  {label:<{width}}  {endpoint}", markup=False, soft_wrap=True)


def _table(now: Snapshot) -> RenderableType:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("symbol", style="bold")
    for heading in ("last price", "bid", "ask", "trades", "rate", "latency p50", "p99"):
        table.add_column(heading, justify="right")
    for line in now.symbols:
        table.add_row(
            line.symbol,
            formatting.price(line.price.last),
            formatting.price(line.price.bid),
            formatting.price(line.price.ask),
            formatting.count(line.trades),
            formatting.rate(line.trades_per_second),
            formatting.duration(line.latency.p50_us),
            formatting.duration(line.latency.p99_us),
        )
    flow = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("", "received", "acknowledged", "committed"):
        flow.add_column(heading, justify="right" if heading else "left", header_style="dim")
    for name, each in (("trades", now.trades), ("quotes", now.quotes)):
        flow.add_row(name, *(formatting.count(n) for n in (each.received, each.acknowledged, each.committed)))
    missing = Text(f"missing trade ids: {now.missing:,}", style="bold red" if now.missing else "green")
    return Group(Text(_clock(now), style="bold"), table, flow, Text(), missing, Text(now.note, style="dim"))


def _clock(now: Snapshot) -> str:
    if now.total_seconds is None:
        return f"{now.seconds:.0f} s"
    return f"{min(now.seconds, now.total_seconds):.0f} of {now.total_seconds:g} s"


def _plain(now: Snapshot) -> str:
    def flow(name: str, each: Flow) -> str:
        return f"{name} {each.received:,} received {each.acknowledged:,} acknowledged {each.committed:,} committed"

    worst = max((line.latency.p99_us or 0 for line in now.symbols), default=0)
    return (
        f"{now.seconds:4.0f} s  {flow('trades', now.trades)}; {flow('quotes', now.quotes)}; "
        f"missing {now.missing:,}; latency p99 {formatting.duration(worst or None)}"
    )
