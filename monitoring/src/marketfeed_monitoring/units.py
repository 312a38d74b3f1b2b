"""Formatting of values by Grafana's unit ids, for pictures and their axes."""

import math
from typing import Final

_TIMES: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_COUNTS: Final = ((1e9, "B"), (1e6, "M"), (1e3, "K"))
_RATES: Final = {"mps": "msg/s", "rowsps": "rows/s", "recps": "rec/s", "ops": "ops/s", "reqps": "req/s"}
_SUFFIX: Final = "suffix:"


def text(value: float, unit: str, decimals: int | None = None) -> str:
    """Format a value: ``text(0.25, "s")`` is "250 ms". Without `decimals` about three digits are significant.

    Args:
        value: The value.
        unit: Grafana's unit id.
        decimals: Number of decimals.
    """
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if unit == "percentunit":
        # Round down: 99.996 % must not be shown as 100 %, which would look complete.
        shown = f"{math.floor(value * 1e4) / 100:.{2 if decimals is None and value != 1 else decimals or 0}f}"
        return f"{shown} %"
    if unit == "s":
        return _time(value, decimals)
    if unit.startswith(_SUFFIX):
        return f"{_count(value, decimals)} {unit.removeprefix(_SUFFIX).strip()}"
    return f"{_count(value, decimals)} {_RATES[unit]}" if unit in _RATES else _count(value, decimals)


def _time(seconds: float, decimals: int | None) -> str:
    if seconds == 0:
        return "0 s"
    scale, name = next((each for each in _TIMES if abs(seconds) >= each[0]), _TIMES[-1])
    return f"{_digits(seconds / scale, decimals)} {name}"


def _count(value: float, decimals: int | None) -> str:
    scale, name = next((each for each in _COUNTS if abs(value) >= each[0]), (1.0, ""))
    shown = _digits(value / scale, decimals)
    return f"{shown}{name}"


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == int(value):
        return f"{value:.0f}"
    places = max(0, 2 - int(math.log10(max(abs(value), 1e-9)))) if abs(value) >= 1 else 2
    return f"{value:.{places}f}"
