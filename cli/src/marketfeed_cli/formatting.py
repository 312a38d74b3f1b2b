"""Formatting of numbers for tables, with units and significant digits only."""

from decimal import Decimal

NO_VALUE = "-"


def count(number: int | None) -> str:
    """Format a count: ``1,234``."""
    return NO_VALUE if number is None else f"{number:,}"


def duration(microseconds: int | None) -> str:
    """Format a duration with at most three digits: ``850 µs``, ``12 ms``, ``1.3 s``."""
    if microseconds is None:
        return NO_VALUE
    if microseconds < 1_000:
        return f"{microseconds} µs"
    if microseconds < 10_000:
        return f"{microseconds / 1e3:.1f} ms"
    if microseconds < 1_000_000:
        return f"{microseconds / 1e3:.0f} ms"
    return f"{microseconds / 1e6:.1f} s"


def price(text: str | None) -> str:
    """Format a venue's decimal string with thousands separators and at least two decimals, without trailing zeros."""
    if text is None:
        return NO_VALUE
    number = Decimal(text)
    if not number.is_finite():
        return text
    whole, _, decimals = f"{number:,f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"


def rate(per_second: float) -> str:
    """Format a rate: ``12.3/s``, ``12,345/s``."""
    return f"{per_second:,.1f}/s" if per_second < 100 else f"{per_second:,.0f}/s"
