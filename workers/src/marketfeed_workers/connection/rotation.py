"""Rotation time of a connection: before the venue closes it, in the configured window. Pure."""

import random
import re
from typing import NamedTuple

DAY_SECONDS = 86_400


class QuietWindow(NamedTuple):
    """Preferred time of day for rotations, in seconds since midnight UTC."""

    start: int
    end: int

    def newest_between(self, earliest: float, latest: float) -> tuple[float, float] | None:
        """Return the last occurrence of the window between two times in seconds since the epoch; None if none."""
        length = (self.end - self.start) % DAY_SECONDS
        opens = latest - (latest - self.start) % DAY_SECONDS  # the last opening at or before `latest`
        for opening in (opens, opens - DAY_SECONDS):
            stretch = max(opening, earliest), min(opening + length, latest)
            if stretch[0] <= stretch[1]:
                return stretch
        return None


def parse_window(text: str) -> QuietWindow | None:
    """Parse ``02:00-04:30`` (UTC); return None for "".

    Raises:
        ValueError: the text has another format.
    """
    if not text:
        return None
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
    if found is None:
        raise ValueError("not a window such as 02:00-04:30")
    hours = [int(each) for each in found.groups()]
    return QuietWindow(hours[0] * 3600 + hours[1] * 60, hours[2] * 3600 + hours[3] * 60)


def rotation_age(
    connected_at: float, after_seconds: float, window: QuietWindow | None, rng: random.Random
) -> float:
    """Return the age in seconds at which a connection is rotated.

    That is the last occurrence of the window in the second half of the connection's life, otherwise 90 to 100 % of
    `after_seconds`: connections that were opened together are not rotated together.

    Args:
        connected_at: when it was opened, in seconds since the epoch.
        after_seconds: maximum age.
        window: preferred time of day; None for any.
        rng: source of the jitter.
    """
    latest = connected_at + after_seconds * rng.uniform(0.9, 1.0)
    stretch = window.newest_between(connected_at + after_seconds / 2, latest) if window is not None else None
    return (latest if stretch is None else rng.uniform(*stretch)) - connected_at
