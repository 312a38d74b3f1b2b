"""Drawing of a panel's content on its axes, by panel kind."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from marketfeed_monitoring import tables, units
from marketfeed_monitoring.model import Colour, Kind, Panel
from marketfeed_monitoring.prometheus import Series

PANEL, FRAME, TEXT, FAINT = "#181b1f", "#2c3036", "#d8d9da", "#8e9097"
COLOURS: Final[dict[Colour, str]] = {
    "green": "#2f9e54", "yellow": "#c9920e", "red": "#d33b4b", "blue": "#3a6fc4", "text": TEXT,
}  # fmt: skip
LINES: Final = (
    "#73bf69", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#37a8b5", "#f2e05a", "#c4162a", "#8e9097",
)  # fmt: skip
FEW: Final = 6
"""Maximum number of lines with a tinted area below them."""
LETTER_INCHES: Final = 0.056

Results = Sequence[Sequence[Series]]
"""Result of each query; the label "" contains a series' legend."""
TimeRange = tuple[float, float]
"""Begin and end in seconds since the epoch."""


def draw(axes: Axes, panel: Panel, results: Results, times: TimeRange) -> None:
    """Draw the content of a panel for a time range.

    Args:
        axes: Axes at the position of the panel.
        panel: The panel.
        results: Result of each of its queries.
        times: Time range.
    """
    _DRAWERS[panel.kind](axes, panel, results, times)


def _inner(axes: Axes, *, left: float, bottom: float, right: float = 0.012, top: float = 0.06) -> None:
    """Reserve space for ticks and legend within the panel, in inches; `top` is a fraction of the height."""
    box = axes.get_position()
    wide, high = _figure(axes).get_size_inches()
    axes.set_position((
        box.x0 + left / wide, box.y0 + bottom / high,
        box.width - left / wide - right, box.height * (1 - top) - bottom / high,
    ))  # fmt: skip


def _draw_stat(axes: Axes, panel: Panel, results: Results, _: TimeRange) -> None:
    series = results[0]
    value = series[0].points[-1][1] if series else float("nan")
    mapping = panel.value_mappings.get(value)
    axes.set_axis_off()
    colour = mapping[1] if mapping else _step(panel.thresholds, value) if series else "text"
    shown = (
        mapping[0] if mapping else units.text(value, panel.unit, panel.decimals) if series else panel.no_value
    )
    if colour != "text":
        box = axes.get_position()
        axes.set_position((box.x0 + 0.003, box.y0 + box.height * 0.05, box.width - 0.006, box.height * 0.85))
        axes.add_patch(
            FancyBboxPatch(
                (0, 0), 1, 1, boxstyle="round,pad=0,rounding_size=0.03", facecolor=COLOURS[colour], lw=0,
                transform=axes.transAxes, mutation_aspect=2.5,
            )
        )  # fmt: skip
    size = 17 if len(shown) < 10 else 13
    axes.text(0.5, 0.5, shown, fontsize=size, weight="bold", color="white", ha="center", va="center")


def _draw_lines(axes: Axes, panel: Panel, results: Results, times: TimeRange) -> None:
    entries = [series for result in results for series in result]
    below = [0.0] * len(entries[0].points) if entries else []
    for number, series in enumerate(entries):
        colour = LINES[number % len(LINES)]
        moments = [at for at, _ in series.points]
        values = [value for _, value in series.points]
        if panel.stacked and len(values) == len(below):
            above = [base + value for base, value in zip(below, values, strict=True)]
            axes.fill_between(moments, below, above, color=colour, alpha=0.35, lw=0)
            below = values = above
        axes.plot(moments, values, color=colour, lw=1.1, label=series.labels[""] or "value")
        if not panel.stacked and len(entries) <= FEW:
            axes.fill_between(moments, values, color=colour, alpha=0.07, lw=0)
    _decorate(axes, panel, entries, times)


def _decorate(axes: Axes, panel: Panel, entries: Sequence[Series], times: TimeRange) -> None:
    _clock(axes, times)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=panel.unit == "short"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.text(value, panel.unit)))
    axes.grid(axis="y", color=FRAME, lw=0.6)
    values = [
        value for series in entries for _, value in series.points if value == value
    ]  # NaN is not itself
    lowest, highest = min([0.0, *values]), max([0.0, *values])
    room = (highest - lowest) * 0.12 or 1.0
    axes.set_ylim(lowest - room * 0.3 if lowest < 0 else 0, highest + room)
    for value, colour in panel.thresholds:
        if value <= highest + room:
            axes.axhline(value, color=COLOURS[colour], lw=0.9, ls=(0, (4, 3)))
    if not entries:
        axes.text(0.5, 0.5, "no data", color=FAINT, transform=axes.transAxes, ha="center", va="center")
    columns, rows = _legend_shape(axes, [series.labels[""] for series in entries])
    _inner(axes, left=0.62, bottom=0.26 + 0.135 * rows)
    if rows:
        handles, names = _legend_entries(axes, columns * rows)
        axes.legend(
            handles, names, loc="upper left", bbox_to_anchor=(-0.1, -0.11), ncols=columns,
            frameon=False, fontsize=6.5, labelcolor=TEXT, handlelength=1.2, columnspacing=1.2, borderaxespad=0,
            labelspacing=0.25, handletextpad=0.5,
        )  # fmt: skip


def _legend_shape(axes: Axes, names: Sequence[str]) -> tuple[int, int]:
    """Return the columns and rows that a legend of `names` takes below a panel of this width."""
    if not names:
        return 1, 0
    inches = axes.get_position().width * _figure(axes).get_figwidth() - 0.4
    longest = max(map(len, names)) * LETTER_INCHES + 0.45
    columns = max(1, min(len(names), int(inches / longest)))
    return columns, min(2 if columns > 1 else 3, -(-len(names) // columns))


def _legend_entries(axes: Axes, most: int) -> tuple[list[Artist], list[str]]:
    """Return the legend entries with the highest values; the space is limited."""
    handles, names = axes.get_legend_handles_labels()
    values = [np.nan_to_num(np.asarray(line.get_ydata(), float)) for line in axes.get_lines()[: len(names)]]
    tops = [float(each.max(initial=0.0)) for each in values]
    chosen = sorted(sorted(range(len(names)), key=lambda index: -tops[index])[:most])
    return [handles[index] for index in chosen], [names[index] for index in chosen]


def _draw_timeline(axes: Axes, panel: Panel, results: Results, times: TimeRange) -> None:
    entries = [series for result in results for series in result]
    shown: dict[str, str] = {}
    step = _shortest_step(entries)
    for number, series in enumerate(reversed(entries)):
        for at, value in series.points:
            text, colour = panel.value_mappings.get(value, (f"{value:g}", _step(panel.thresholds, value)))
            shown[text] = COLOURS[colour]
            axes.barh(number, step, left=at, height=0.72, color=COLOURS[colour])
    axes.set_ylim(-0.6, max(len(entries), 2) - 0.4)
    axes.set_yticks(range(len(entries)), [series.labels[""] for series in reversed(entries)])
    _clock(axes, times)
    _inner(
        axes,
        left=0.15 + LETTER_INCHES * max((len(series.labels[""]) for series in entries), default=0),
        bottom=0.4,
    )
    for text, shade in shown.items():
        axes.plot([], [], "s", color=shade, label=text, ms=5)
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.13), ncols=4, frameon=False, fontsize=6.5, labelcolor=TEXT,
        borderaxespad=0, handletextpad=0.2,
    )  # fmt: skip


def _draw_table(axes: Axes, panel: Panel, results: Results, _: TimeRange) -> None:
    axes.set_axis_off()
    step = 0.19 / (axes.get_position().height * _figure(axes).get_figheight())
    rows = tables.rows(panel, results)
    widths = tables.widths(panel, rows)
    points = axes.get_position().width * _figure(axes).get_figwidth() * 72
    size = min(7.0, points / tables.letters(panel, rows) / 0.62)
    if not rows:
        axes.text(0.5, 0.5, panel.no_value or "no data", color=FAINT, ha="center", va="center")
        return
    for number, row in enumerate([None, *rows[: int(0.95 / step) - 1]]):
        y, x = 1 - (number + 0.6) * step, 0.015
        for column, width in zip(panel.columns, widths, strict=True):
            cell = tables.Cell(column.title, None) if row is None else row[column.source]
            if cell.colour is not None:
                axes.add_patch(
                    FancyBboxPatch(
                        (x - 0.005, y - step * 0.42), width * 0.96, step * 0.84, boxstyle="square,pad=0", lw=0,
                        facecolor=COLOURS[cell.colour],
                    )
                )  # fmt: skip
            weight, colour = ("bold", FAINT) if row is None else ("normal", TEXT)
            axes.text(x, y, cell.text, fontsize=size, va="center", weight=weight, color=colour)
            x += width
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _step(thresholds: Sequence[tuple[float, Colour]], value: float) -> Colour:
    """Return the colour of the highest threshold that `value` reaches."""
    reached = [colour for least, colour in thresholds if value >= least]
    return reached[-1] if reached else "text"


def _shortest_step(entries: Sequence[Series]) -> float:
    """Return the shortest distance between consecutive points in seconds."""
    distances = [
        b[0] - a[0] for series in entries for a, b in zip(series.points, series.points[1:], strict=False)
    ]
    return min(distances, default=1.0)


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes are on no figure")
    return figure


def _clock(axes: Axes, times: TimeRange) -> None:
    """Format the time axis as time of day in UTC."""
    axes.set_xlim(*times)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 1.5, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"))


_DRAWERS: Final[dict[Kind, Callable[[Axes, Panel, Results, TimeRange], None]]] = {
    "stat": _draw_stat,
    "timeseries": _draw_lines,
    "table": _draw_table,
    "timeline": _draw_timeline,
}
