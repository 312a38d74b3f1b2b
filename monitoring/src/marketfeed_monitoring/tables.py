"""The rows of a table panel from the answers to its queries, joined by their labels as Grafana joins them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marketfeed_monitoring import units
from marketfeed_monitoring.grafana import ref_id
from marketfeed_monitoring.model import Colour, Column, Panel
from marketfeed_monitoring.prometheus import Series


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell, and the colour behind it."""

    text: str
    colour: Colour | None


def rows(panel: Panel, answers: Sequence[Sequence[Series]]) -> list[Mapping[str, Cell]]:
    """Source of a column -> its cell, a row for each set of labels, in their order."""
    values: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for index, answer in enumerate(answers):
        for series in answer:
            labels = tuple(sorted((name, value) for name, value in series.labels.items() if name))
            values.setdefault(labels, {})[f"Value #{ref_id(index)}"] = series.points[-1][1]
    return [
        {column.source: _cell(column, dict(labels), row) for column in panel.columns}
        for labels, row in sorted(values.items())
    ]


def letters(panel: Panel, shown: Sequence[Mapping[str, Cell]]) -> int:
    """How many letters a line of the table is wide."""
    return sum(_longest(panel, shown))


def widths(panel: Panel, shown: Sequence[Mapping[str, Cell]]) -> list[float]:
    """Part of the table's width that each column takes, by its longest text."""
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
