"""Dashboard model: plain values, the source of Grafana's JSON, of the query tests and of the pictures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["stat", "timeseries", "table", "timeline"]
Colour = Literal["green", "yellow", "red", "blue", "text"]

WIDTH: Final = 24
"""Number of columns of Grafana's grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query of a panel.

    Attributes:
        expr: PromQL with the dashboard's variables.
        legend: Name of a series: text with ``{{label}}``.
        may_be_empty: Reason why the result may be empty without a fault; "" where it must not be empty.
    """

    expr: str
    legend: str = ""
    may_be_empty: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; `source` is a label, or "Value #A" for the first query."""

    source: str
    title: str
    unit: str = ""
    thresholds: tuple[tuple[float, Colour], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel.

    Attributes:
        unit: Grafana's unit id, such as "s" or "percentunit".
        thresholds: Lower bounds of colours, in ascending order. The first bound should be `float("-inf")`.
        value_mappings: Value -> text and colour shown instead.
        columns: Columns of a table.
        stacked: Whether the areas are stacked, for parts of a whole.
        no_value: Text for an empty result.
    """

    title: str
    description: str
    kind: Kind
    unit: str
    queries: tuple[Query, ...]
    width: int
    height: int
    thresholds: tuple[tuple[float, Colour], ...] = ()
    value_mappings: Mapping[float, tuple[str, Colour]] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    decimals: int | None = None
    stacked: bool = False
    no_value: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, from left to right, wrapped at the grid's width."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A dashboard variable with the default "All".

    Attributes:
        query: `label_values(metric, label)`.
    """

    name: str
    label: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A dashboard.

    Attributes:
        uid: Grafana's uid; never changed, because links contain it.
        variables: Variables other than the data source.
    """

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def file_name(self) -> str:
        """Return the name of the JSON file; the picture has the same stem."""
        return f"{self.uid}.json"

    @property
    def panels(self) -> Iterator[Panel]:
        """Yield every panel, row by row."""
        for row in self.rows:
            yield from row.panels


@dataclass(frozen=True, slots=True)
class GridPosition:
    """Position and size on the grid, in columns and rows."""

    x: int
    y: int
    width: int
    height: int


def layout(board: Board) -> Iterator[tuple[Row | Panel, GridPosition]]:
    """Yield every heading and panel with its position, from the top."""
    y = 0
    for row in board.rows:
        yield row, GridPosition(0, y, WIDTH, 1)
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            yield panel, GridPosition(x, y, panel.width, panel.height)
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
