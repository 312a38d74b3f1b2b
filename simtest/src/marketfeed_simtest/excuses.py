"""Exemptions for outages, slow brokers and frozen processes, limited to their duration."""

from typing import Final

_CATCH_UP_SECONDS: Final = 5.0
"""Time after an exemption within which delayed events may still complete."""


class Excuses:
    """Time spans in which no progress was possible.

    Attributes:
        slow_seconds: longest time so far from sending a record to its delivery report.
    """

    def __init__(self) -> None:
        self.slow_seconds = 0.0
        self._spans: list[tuple[float, float]] = []

    def add(self, begins: float, seconds: float) -> None:
        """Add a span of `seconds` from `begins`, which is not before the last added one."""
        ends = begins + seconds
        if self._spans and begins <= self._spans[-1][1]:
            begins, ends = self._spans[-1][0], max(ends, self._spans[-1][1])
            del self._spans[-1]
        self._spans.append((begins, ends))

    def slow_down(self, delay_seconds: float) -> None:
        """Add a delay of `delay_seconds` for writes from now on, and the same for delivery reports."""
        self.slow_seconds = max(self.slow_seconds, 6 * delay_seconds)

    def between(self, since: float, until: float) -> float:
        """Return the extra time allowed for an event that began at `since` and was not complete at `until`."""
        stood = 0.0
        for begins, ends in self._spans:
            if begins < until and ends + _CATCH_UP_SECONDS > since:
                stood += max(0.0, min(until, ends) - max(since, begins)) + _CATCH_UP_SECONDS
        return stood + self.slow_seconds
