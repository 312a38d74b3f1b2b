"""What outages, slow brokers and frozen processes excuse: the times at which they held, and for nothing beyond them."""

from typing import Final

_CATCH_UP_SECONDS: Final = 5.0
"""How long after such a time what had to wait may still take."""


class Excuses:
    """Spans of time in which nothing could go on.

    Attributes:
        slow_seconds: the longest that a record has taken so far from its sending to its report.
    """

    def __init__(self) -> None:
        self.slow_seconds = 0.0
        self._spans: list[tuple[float, float]] = []

    def add(self, begins: float, seconds: float) -> None:
        """Nothing can go on for `seconds` from `begins`, which is not before the one that was added last."""
        ends = begins + seconds
        if self._spans and begins <= self._spans[-1][1]:
            begins, ends = self._spans[-1][0], max(ends, self._spans[-1][1])
            del self._spans[-1]
        self._spans.append((begins, ends))

    def slow_down(self, delay_seconds: float) -> None:
        """Writes take about `delay_seconds` from now on, and reports as long again."""
        self.slow_seconds = max(self.slow_seconds, 6 * delay_seconds)

    def between(self, since: float, until: float) -> float:
        """By how much more than usual anything may have taken that began at `since` and was not over at `until`."""
        stood = 0.0
        for begins, ends in self._spans:
            if begins < until and ends + _CATCH_UP_SECONDS > since:
                stood += max(0.0, min(until, ends) - max(since, begins)) + _CATCH_UP_SECONDS
        return stood + self.slow_seconds
