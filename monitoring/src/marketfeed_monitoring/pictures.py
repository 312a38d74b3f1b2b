"""A dashboard as a picture: each panel's own queries asked of a Prometheus, drawn where Grafana would draw them.

Not Grafana's rendering, which needs Grafana and a browser, but the same data in the same places: for the
documentation, and for looking at what a change of a query does.
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
from marketfeed_monitoring.model import WIDTH, Board, Panel, Place, Row, layout
from marketfeed_monitoring.prometheus import Prometheus, Series
from marketfeed_monitoring.promql import legend, with_variables

CELL_INCHES: Final = (0.68, 0.36)
"""Width and height of a cell of the grid."""
DOTS_PER_INCH: Final = 100
SHADES: Final = 160
"""Colours in the file: enough for lines on flat panels, and a third of the bytes of true colour."""
GROUND: Final = "#111217"


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a picture shows, in seconds since the epoch, and how it is asked for.

    Attributes:
        variables: value of each variable of the dashboards, Grafana's own among them.
    """

    begin: float
    end: float
    step_seconds: float
    variables: Mapping[str, str]


def draw(board: Board, server: Prometheus, span: Span, file: Path) -> None:
    """Ask every query of `board` and write the picture (PNG) to `file`."""
    places = list(layout(board))
    height = max(place.y + place.height for _, place in places)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": TEXT}):
        figure = Figure(
            (WIDTH * CELL_INCHES[0], (height + 1.2) * CELL_INCHES[1]), DOTS_PER_INCH, facecolor=GROUND
        )
        grid = _Grid(height + 1.2)
        figure.text(0.008, 1 - 0.75 / grid.rows, board.title, fontsize=12, weight="bold", va="center")
        figure.text(
            0.992, 1 - 0.75 / grid.rows, _when(span), fontsize=8, color=FAINT, ha="right", va="center"
        )
        for each, place in places:
            if isinstance(each, Row):
                figure.text(0.008, grid.middle(place), each.title, fontsize=9, color=FAINT, va="center")
            else:
                axes = _axes(figure, each, grid.box(place))
                drawing.draw(axes, each, _ask(each, server, span), (span.begin, span.end))
        _save(figure, file)


class _Grid:
    """Grafana's grid on a figure, whose y goes up and is 1 in all; 1.2 rows at the top are the title's."""

    def __init__(self, rows: float) -> None:
        self.rows = rows

    def box(self, place: Place) -> tuple[float, float, float, float]:
        """Left, bottom, width, height."""
        gap = 0.12
        return (
            (place.x + gap) / WIDTH,
            1 - (1.2 + place.y + place.height - gap) / self.rows,
            (place.width - 2 * gap) / WIDTH,
            (place.height - 2 * gap) / self.rows,
        )

    def middle(self, place: Place) -> float:
        return 1 - (1.2 + place.y + place.height / 2) / self.rows


def _ask(panel: Panel, server: Prometheus, span: Span) -> list[list[Series]]:
    """The answer to each query, with its series' names as a label of their own."""
    answers = []
    for query in panel.queries:
        expr = with_variables(query.expr, span.variables)
        if panel.kind in ("stat", "table"):
            found = server.instant(expr, span.end)
        else:
            found = server.over_time(expr, span.begin, span.end, span.step_seconds)
        named = [
            Series({**each.labels, "": legend(query.legend, each.labels)}, each.points) for each in found
        ]
        answers.append(sorted(named, key=lambda each: each.labels[""]))
    return answers


def _axes(figure: Figure, panel: Panel, box: tuple[float, float, float, float]) -> Axes:
    """The panel's frame and title; the axes that its content goes into."""
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
