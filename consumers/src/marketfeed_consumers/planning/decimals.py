"""Exact arithmetic on decimal strings by integers of a common scale, several times faster than Decimal.

Never rounds: integers have arbitrary precision, unlike Decimal's context.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

_BINANCE_POINT: Final = itemgetter(-9)
"""The character at the position of the point in a number with eight decimals."""


def scaled(texts: Sequence[str]) -> tuple[list[int], int]:
    """Return the numbers in `texts` as multiples of 10^-scale, and that scale: ["1.5", "2"] -> ([15, 20], 1)."""
    try:
        if set(map(_BINANCE_POINT, texts)) == {"."}:
            # One replace and one split for all: every number has its point at the same position.
            return list(map(int, "\n".join(texts).replace(".", "").split("\n"))), 8
    except IndexError:  # one is shorter
        pass
    parts = [text.partition(".") for text in texts]
    scale = max(len(fraction) for _, _, fraction in parts)
    return [int((whole + fraction.ljust(scale, "0")) or "0") for whole, _, fraction in parts], scale


def text(value: int, scale: int) -> str:
    """Return a non-negative multiple of 10^-scale as a decimal string: (15, 1) -> "1.5"."""
    if scale == 0:
        return str(value)
    digits = str(value).rjust(scale + 1, "0")
    return f"{digits[:-scale]}.{digits[-scale:]}"
