"""Formatting of numbers."""

import pytest

from marketfeed_cli import formatting


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, "-"),
        (0, "0 µs"),
        (999, "999 µs"),
        (1_000, "1.0 ms"),
        (9_960, "10.0 ms"),
        (10_000, "10 ms"),
        (999_000, "999 ms"),
        (1_000_000, "1.0 s"),
        (61_500_000, "61.5 s"),
    ],
)
def test_formatting_of_durations(microseconds: int | None, text: str) -> None:
    assert formatting.duration(microseconds) == text


@pytest.mark.parametrize(
    ("decimal", "text"),
    [
        (None, "-"),
        ("61685.99000000", "61,685.99"),
        ("0.00001367", "0.00001367"),
        ("100", "100.00"),
        ("2682.50000000", "2,682.50"),
        ("1E-8", "0.00000001"),
        ("NaN", "NaN"),
    ],
)
def test_formatting_of_prices(decimal: str | None, text: str) -> None:
    assert formatting.price(decimal) == text


def test_formatting_of_counts_and_rates() -> None:
    assert formatting.count(1234567) == "1,234,567"
    assert formatting.rate(3.14159) == "3.1/s"
    assert formatting.rate(12345.6) == "12,346/s"
