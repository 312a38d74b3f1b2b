"""When a connection is replaced by a new one: before the venue ends it, at an hour that suits the user. Pure."""

import random
import re
from typing import NamedTuple

DAY_SECONDS = 86_400


class QuietWindow(NamedTuple):
    """Hours of the day, in seconds since midnight UTC, in which replacing connections disturbs least."""

    start: int
    end: int

    def newest_between(self, earliest: float, latest: float) -> tuple[float, float] | None:
        """The last stretch of the window between two moments; all in seconds since the epoch."""
        length = (self.end - self.start) % DAY_SECONDS
        opens = latest - (latest - self.start) % DAY_SECONDS  # the last opening at or before `latest`
        for opening in (opens, opens - DAY_SECONDS):
            stretch = max(opening, earliest), min(opening + length, latest)
            if stretch[0] <= stretch[1]:
                return stretch
        return None


def parse_window(text: str) -> QuietWindow | None:
    """``02:00-04:30`` (UTC) as a window; None for "".

    Raises:
        ValueError: the text is not of that form.
    """
    if not text:
        return None
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
    if found is None:
        raise ValueError("not a window such as 02:00-04:30")
    hours = [int(each) for each in found.groups()]
    return QuietWindow(hours[0] * 3600 + hours[1] * 60, hours[2] * 3600 + hours[3] * 60)


def rotation_age(
    connected_at: float, after_seconds: float, window: QuietWindow | None, chance: random.Random
) -> float:
    """Return the age in seconds at which a connection of `connected_at` (since the epoch) is to be replaced.

    At the age `after_seconds` at the latest, up to a tenth earlier so that a fleet started together does not rotate
    together; in the newest occurrence of the quiet window before that, if there is one in the second half of its life.
    """
    latest = connected_at + after_seconds * chance.uniform(0.9, 1.0)
    stretch = window.newest_between(connected_at + after_seconds / 2, latest) if window is not None else None
    return (latest if stretch is None else chance.uniform(*stretch)) - connected_at
