"""What the user sees of a run: steps, a live table or plain lines, and how to reach what was left running.

On a terminal the table is redrawn in place; elsewhere a plain line is printed every few seconds. With ``--output
json`` all of this goes to stderr, so that stdout holds the report and nothing else.
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

from marketfeed_cli import figures
from marketfeed_cli.observe import Price
from marketfeed_cli.report import Latency

PLAIN_SECONDS: Final = 5.0
"""From one plain line to the next."""
_LABEL_WIDTH: Final = 11

Output = Literal["text", "json"]


@dataclass(frozen=True)
class SymbolLine:
    """A symbol now. `trades` are rows in the database."""

    symbol: str
    price: Price
    trades: int
    trades_per_second: float
    latency: Latency


@dataclass(frozen=True)
class Flow:
    """How many messages of one kind have passed each stage."""

    received: int
    acknowledged: int
    committed: int


@dataclass(frozen=True)
class Snapshot:
    """The pipeline at one moment; `total_seconds` None runs until the recording ends."""

    seconds: float
    total_seconds: float | None
    trades: Flow
    quotes: Flow
    missing: int
    symbols: Sequence[SymbolLine]
    note: str = ""


class Screen:
    """See the module."""

    def __init__(self, output: Output) -> None:
        self.console = Console(stderr=output == "json", highlight=False)

    def line(self, text: RenderableType = "") -> None:
        """Print a line; a table or another renderable works, too."""
        self.console.print(text, soft_wrap=isinstance(text, str | Text))

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[str], None]]:
        """Print ``label``, and behind it what the block tells, once it does; the line ends with the block."""
        self.console.print(f"  {label:<{_LABEL_WIDTH}}", end="", markup=False)
        try:
            yield lambda text: self.console.print(text, end="", markup=False, soft_wrap=True)
        finally:
            self.console.print()

    @contextmanager
    def live(self) -> Iterator[Callable[[Snapshot], None]]:
        """Show what is handed to the yielded function: in place, or as a line now and then."""
        if self.console.is_terminal:
            # Without a thread of its own: the table is drawn when there is something new.
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
        """A bar for a known number of frames; the yielded function takes those done and the seconds passed."""
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
                rate = figures.rate(done / seconds) if seconds > 0.5 else ""
                bar.update(task, completed=done, rate=rate, refresh=True)

            yield advance

    def reach(self, places: Mapping[str, str]) -> None:
        """Print how to reach what was left running."""
        self.console.print("\nStill running; Ctrl-C stops and removes it all.")
        width = max(map(len, places))
        for label, place in places.items():
            self.console.print(f"  {label:<{width}}  {place}", markup=False, soft_wrap=True)


def _table(now: Snapshot) -> RenderableType:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("symbol", style="bold")
    for heading in ("last price", "bid", "ask", "trades", "rate", "latency p50", "p99"):
        table.add_column(heading, justify="right")
    for line in now.symbols:
        table.add_row(
            line.symbol,
            figures.price(line.price.last),
            figures.price(line.price.bid),
            figures.price(line.price.ask),
            figures.count(line.trades),
            figures.rate(line.trades_per_second),
            figures.duration(line.latency.p50_us),
            figures.duration(line.latency.p99_us),
        )
    flow = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("", "received", "acknowledged", "committed"):
        flow.add_column(heading, justify="right" if heading else "left", header_style="dim")
    for name, each in (("trades", now.trades), ("quotes", now.quotes)):
        flow.add_row(name, *(figures.count(n) for n in (each.received, each.acknowledged, each.committed)))
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
        f"missing {now.missing:,}; latency p99 {figures.duration(worst or None)}"
    )
