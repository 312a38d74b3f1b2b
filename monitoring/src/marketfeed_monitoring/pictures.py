"""Pictures of dashboards: the panels' queries are evaluated by Prometheus and drawn at Grafana's positions.

This is not Grafana's rendering, which needs Grafana and a browser, but the same data in the same layout, for the
documentation and for checking changes of a query.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from marketfeed_monitoring import drawing
from marketfeed_monitoring.drawing import FAINT, FRAME, PANEL, TEXT
from marketfeed_monitoring.model import WIDTH, Board, GridPosition, Panel, Row, layout
from marketfeed_monitoring.prometheus import Prometheus, Series
from marketfeed_monitoring.promql import legend, with_variables

CELL_INCHES: Final = (0.68, 0.36)
"""Width and height of a grid cell."""
DOTS_PER_INCH: Final = 100
SHADES: Final = 160
"""Size of the palette: enough for lines on flat panels, at a third of the file size of true colour."""
GROUND: Final = "#111217"


@dataclass(frozen=True, slots=True)
class Span:
    """Time range of a picture, in seconds since the epoch, and parameters of its queries.

    Attributes:
        variables: Value of each dashboard variable, including Grafana's built-in ones.
    """

    begin: float
    end: float
    step_seconds: float
    variables: Mapping[str, str]


def draw(board: Board, server: Prometheus, span: Span, file: Path) -> None:
    """Evaluate the queries of a board and write the picture as PNG.

    Args:
        board: The dashboard.
        server: Prometheus that evaluates the queries.
        span: Time range and variables.
        file: Path of the picture.
    """
    positions = list(layout(board))
    height = max(position.y + position.height for _, position in positions)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": TEXT}):
        figure = Figure(
            (WIDTH * CELL_INCHES[0], (height + 1.2) * CELL_INCHES[1]), DOTS_PER_INCH, facecolor=GROUND
        )
        grid = _Grid(height + 1.2)
        figure.text(0.008, 1 - 0.75 / grid.rows, board.title, fontsize=12, weight="bold", va="center")
        figure.text(
            0.992, 1 - 0.75 / grid.rows, _when(span), fontsize=8, color=FAINT, ha="right", va="center"
        )
        for each, position in positions:
            if isinstance(each, Row):
                figure.text(0.008, grid.middle(position), each.title, fontsize=9, color=FAINT, va="center")
            else:
                axes = _axes(figure, each, grid.box(position))
                drawing.draw(axes, each, _evaluate(each, server, span), (span.begin, span.end))
        _save(figure, file)


class _Grid:
    """Grafana's grid on a figure with y from 0 (bottom) to 1; the top 1.2 rows contain the title."""

    def __init__(self, rows: float) -> None:
        self.rows = rows

    def box(self, position: GridPosition) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height."""
        margin = 0.12
        return (
            (position.x + margin) / WIDTH,
            1 - (1.2 + position.y + position.height - margin) / self.rows,
            (position.width - 2 * margin) / WIDTH,
            (position.height - 2 * margin) / self.rows,
        )

    def middle(self, position: GridPosition) -> float:
        return 1 - (1.2 + position.y + position.height / 2) / self.rows


def _evaluate(panel: Panel, server: Prometheus, span: Span) -> list[list[Series]]:
    """Return the result of each query, with the legend of each series as the label ""."""
    results = []
    for query in panel.queries:
        expr = with_variables(query.expr, span.variables)
        if panel.kind in ("stat", "table"):
            found = server.instant(expr, span.end)
        else:
            found = server.over_time(expr, span.begin, span.end, span.step_seconds)
        named = [
            Series({**each.labels, "": legend(query.legend, each.labels)}, each.points) for each in found
        ]
        results.append(sorted(named, key=lambda each: each.labels[""]))
    return results


def _axes(figure: Figure, panel: Panel, box: tuple[float, float, float, float]) -> Axes:
    """Draw the panel's frame and title; return the axes for its content."""
    x, y, width, height = box
    frame = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.002",
        facecolor=PANEL,
        edgecolor=FRAME,
        zorder=-1,
    )
    figure.add_artist(frame)
    title_height = 0.2 / figure.get_figheight()
    figure.text(
        x + 0.005, y + height - title_height * 0.75, panel.title, fontsize=8.5, weight="bold", va="center"
    )
    axes = figure.add_axes((x, y, width, height - title_height))
    axes.set_facecolor("none")
    axes.tick_params(colors=FAINT, labelsize=6.5, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return axes


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _when(span: Span) -> str:
    return f"{_moment(span.begin):%Y-%m-%d %H:%M:%S} to {_moment(span.end):%H:%M:%S} UTC"


def _save(figure: Figure, file: Path) -> None:
    raw = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(raw, format="png", dpi=DOTS_PER_INCH)
    file.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(raw) as image:
        image.convert("RGB").quantize(SHADES, dither=Image.Dither.NONE).save(file, optimize=True)
