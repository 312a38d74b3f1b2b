"""What a dashboard is to us: plain values, from which Grafana's JSON, the proof and the pictures are made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["stat", "timeseries", "table", "timeline"]
Colour = Literal["green", "yellow", "red", "blue", "text"]

WIDTH: Final = 24
"""Columns of Grafana's grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL, with the dashboard's variables.
        legend: how a series is called: text with ``{{label}}``.
        may_be_empty: why there may be nothing to show although all is well; "" where there must be something.
    """

    expr: str
    legend: str = ""
    may_be_empty: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the label or, as "Value #A", the query that it shows."""

    source: str
    title: str
    unit: str = ""
    thresholds: tuple[tuple[float, Colour], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        unit: Grafana's id of the unit, such as "s" or "percentunit".
        thresholds: from which value on a colour holds; below the first one it is the first colour's opposite number,
            so give one for minus infinity by `float("-inf")`.
        words: value -> word (and colour) that stands in its place.
        columns: of a table.
        stacked: areas upon each other, for parts of a whole.
        no_value: what stands there when a query has no answer and may have none.
    """

    title: str
    description: str
    kind: Kind
    unit: str
    queries: tuple[Query, ...]
    width: int
    height: int
    thresholds: tuple[tuple[float, Colour], ...] = ()
    words: Mapping[float, tuple[str, Colour]] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    decimals: int | None = None
    stacked: bool = False
    no_value: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right, wrapped at the grid's width."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice at the top of a dashboard, with "All" chosen at first.

    Attributes:
        query: Prometheus' `label_values(metric, label)`.
    """

    name: str
    label: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard.

    Attributes:
        uid: stays the same for ever, for links to it.
        variables: beside the data source.
    """

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def file_name(self) -> str:
        """Name of the JSON file and, with another suffix, of the picture."""
        return f"{self.uid}.json"

    @property
    def panels(self) -> Iterator[Panel]:
        """Every panel, row by row."""
        for row in self.rows:
            yield from row.panels


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands on the grid, in its columns and rows."""

    x: int
    y: int
    width: int
    height: int


def layout(board: Board) -> Iterator[tuple[Row | Panel, Place]]:
    """Every heading and panel with its place, from the top."""
    y = 0
    for row in board.rows:
        yield row, Place(0, y, WIDTH, 1)
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            yield panel, Place(x, y, panel.width, panel.height)
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
