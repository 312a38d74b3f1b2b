"""Which times can be: a time that no trade can have decides nothing for the rows around it.

A unit taken for another, a clock that was reset or a bad row of the venue's gives 1970 or the far future. Such a time
says neither that a row is old nor that it is young.
"""

from typing import Final

EARLIEST_US: Final = 1_230_768_000_000_000
"""2009 begins: before that there was no cryptocurrency, so no trade in one."""
AHEAD_US: Final = 86_400_000_000
"""How far a time may be ahead of now: a day, so that a clock in the wrong time zone passes for what it is."""


def is_plausible(time_us: int, now_us: int) -> bool:
    """Whether something that is known at `now_us` can have happened at `time_us`."""
    return EARLIEST_US <= time_us <= now_us + AHEAD_US
