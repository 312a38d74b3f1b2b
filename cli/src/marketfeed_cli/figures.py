"""Numbers as a reader wants them: aligned, with their unit, no digits that mean nothing."""

from decimal import Decimal

NOTHING = "-"


def count(number: int | None) -> str:
    """``1,234``."""
    return NOTHING if number is None else f"{number:,}"


def duration(microseconds: int | None) -> str:
    """``850 µs``, ``12 ms``, ``1.3 s``: three digits at most."""
    if microseconds is None:
        return NOTHING
    if microseconds < 1_000:
        return f"{microseconds} µs"
    if microseconds < 10_000:
        return f"{microseconds / 1e3:.1f} ms"
    if microseconds < 1_000_000:
        return f"{microseconds / 1e3:.0f} ms"
    return f"{microseconds / 1e6:.1f} s"


def price(text: str | None) -> str:
    """A venue's decimal string with thousands separated and without trailing zeros, but two decimals at least."""
    if text is None:
        return NOTHING
    number = Decimal(text)
    if not number.is_finite():
        return text
    whole, _, decimals = f"{number:,f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"


def rate(per_second: float) -> str:
    """``12.3/s``, ``12,345/s``."""
    return f"{per_second:,.1f}/s" if per_second < 100 else f"{per_second:,.0f}/s"
