"""Formatting of values, and rows of table panels."""

import math

import pytest

from marketfeed_monitoring import tables, units
from marketfeed_monitoring.model import Column, Panel, Query
from marketfeed_monitoring.prometheus import Series


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "expected"),
    [
        (0.0, "s", None, "0 s"),
        (0.25, "s", None, "250 ms"),
        (0.000_31, "s", None, "310 µs"),
        (61.0, "s", 1, "1.0 min"),
        (90_000.0, "s", None, "1.04 d"),
        (1.0, "percentunit", None, "100 %"),
        (0.999_999_9, "percentunit", None, "99.99 %"),
        (0.5, "percentunit", 0, "50 %"),
        (12_345.0, "mps", None, "12.3K msg/s"),
        (7.0, "suffix: missing", None, "7 missing"),
        (1_234_567.0, "short", None, "1.23M"),
        (12.0, "none", None, "12"),
        (math.nan, "s", None, "-"),
        (math.inf, "short", None, "∞"),
    ],
)
def test_units_format_a_value(value: float, unit: str, decimals: int | None, expected: str) -> None:
    assert units.text(value, unit, decimals) == expected


def test_tables_join_results_by_labels_and_leave_missing_values_empty() -> None:
    panel = Panel(
        title="t", description="d.", kind="table", unit="none", width=8, height=7,
        queries=(Query(expr="a"), Query(expr="b")),
        columns=(
            Column("symbol", "Symbol"),
            Column("Value #A", "Complete", "percentunit", ((float("-inf"), "red"), (1, "green"))),
            Column("Value #B", "Age", "s"),
        ),
    )  # fmt: skip

    def series(symbol: str, value: float) -> Series:
        return Series({"symbol": symbol, "": "legend"}, ((1.0, value),))

    rows = tables.rows(panel, [[series("ETH", 0.5), series("BTC", 1.0)], [series("BTC", 2.0)]])
    assert [{source: (cell.text, cell.colour) for source, cell in row.items()} for row in rows] == [
        {"symbol": ("BTC", None), "Value #A": ("100 %", "green"), "Value #B": ("2 s", None)},
        {"symbol": ("ETH", None), "Value #A": ("50.00 %", "red"), "Value #B": ("", None)},
    ]
    assert sum(tables.widths(panel, rows)) <= 1
