"""Plausible times: an impossible time must not decide whether a row, or the rows around it, have expired.

A wrong unit, a reset clock or a bad row of the venue gives 1970 or the far future.

A module of its own, as planning and administration share it.
"""

from typing import Final

EARLIEST_US: Final = 1_230_768_000_000_000
"""The beginning of 2009: before that there was no cryptocurrency."""
AHEAD_US: Final = 86_400_000_000
"""How far a time may be ahead of now: a day, so that a clock in the wrong time zone is plausible."""


def is_plausible(time_us: int, now_us: int) -> bool:
    """Return whether an event recorded at `now_us` can have happened at `time_us`."""
    return EARLIEST_US <= time_us <= now_us + AHEAD_US
