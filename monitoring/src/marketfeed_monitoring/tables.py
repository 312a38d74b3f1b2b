"""Rows of a table panel: the results of its queries joined by labels, as Grafana joins them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marketfeed_monitoring import units
from marketfeed_monitoring.grafana import ref_id
from marketfeed_monitoring.model import Colour, Column, Panel
from marketfeed_monitoring.prometheus import Series


@dataclass(frozen=True, slots=True)
class Cell:
    """Text and background colour of a table cell."""

    text: str
    colour: Colour | None


def rows(panel: Panel, results: Sequence[Sequence[Series]]) -> list[Mapping[str, Cell]]:
    """Return one row per label set, in order; a row maps a column's source to its cell."""
    values: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for index, result in enumerate(results):
        for series in result:
            labels = tuple(sorted((name, value) for name, value in series.labels.items() if name))
            values.setdefault(labels, {})[f"Value #{ref_id(index)}"] = series.points[-1][1]
    return [
        {column.source: _cell(column, dict(labels), row) for column in panel.columns}
        for labels, row in sorted(values.items())
    ]


def letters(panel: Panel, shown: Sequence[Mapping[str, Cell]]) -> int:
    """Return the width of a row in characters."""
    return sum(_longest(panel, shown))


def widths(panel: Panel, shown: Sequence[Mapping[str, Cell]]) -> list[float]:
    """Return the fraction of the table's width of each column, by its longest text."""
    longest = _longest(panel, shown)
    return [length / sum(longest) * 0.97 for length in longest]


def _longest(panel: Panel, shown: Sequence[Mapping[str, Cell]]) -> list[int]:
    return [
        max([len(column.title), *(len(row[column.source].text) for row in shown)]) + 2
        for column in panel.columns
    ]


def _cell(column: Column, labels: Mapping[str, str], values: Mapping[str, float]) -> Cell:
    if not column.source.startswith("Value"):
        return Cell(labels.get(column.source, ""), None)
    value = values.get(column.source)
    if value is None:
        return Cell("", None)
    reached = [colour for least, colour in column.thresholds if value >= least]
    return Cell(units.text(value, column.unit), reached[-1] if reached else None)
