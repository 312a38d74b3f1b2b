"""Exact arithmetic on decimal strings: as whole numbers of one scale, which costs a fraction of Decimal's.

No value is ever rounded: sums and products of whole numbers have no precision to run out of, as Decimal's
context has.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

_BINANCE_POINT: Final = itemgetter(-9)
"""The character where the point stands in a number with eight decimals."""


def scaled(texts: Sequence[str]) -> tuple[list[int], int]:
    """The numbers in `texts` as whole multiples of 10^-scale, and that scale: ["1.5", "2"] -> ([15, 20], 1)."""
    try:
        if set(map(_BINANCE_POINT, texts)) == {"."}:
            # One replace and one split for them all; every number has its point at the same place.
            return list(map(int, "\n".join(texts).replace(".", "").split("\n"))), 8
    except IndexError:  # one is shorter
        pass
    parts = [text.partition(".") for text in texts]
    scale = max(len(fraction) for _, _, fraction in parts)
    return [int((whole + fraction.ljust(scale, "0")) or "0") for whole, _, fraction in parts], scale


def text(value: int, scale: int) -> str:
    """A whole multiple of 10^-scale (0 or more) as a decimal string: (15, 1) -> "1.5"."""
    if scale == 0:
        return str(value)
    digits = str(value).rjust(scale + 1, "0")
    return f"{digits[:-scale]}.{digits[-scale:]}"
