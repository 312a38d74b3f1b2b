"""Age of each watch, for the liveness probe.

The age of a watch is the time since the API server last responded on it: with an event, a bookmark (about once a
minute on kopf's request), the end of the stream by the server's timeout, or the first line of a new one. It is taken
where the bytes arrive, in kopf's HTTP session (see `watch_session`), so it does not depend on changes of objects.
kopf reconnects a stream after `INACTIVITY_SECONDS` without any of these; the age passes the deadline, which is well
above, only when that fails too.

A refusal (401, 403, 404) is a response: the API server is reachable, and a restart of the operator would not help.
"""

from collections.abc import Callable, Iterable
from typing import Final

from marketfeed_operator.engine.scopes import Scope
from marketfeed_service.health import ProbeResult

INACTIVITY_SECONDS: Final = 70.0
"""kopf's inactivity timeout, slightly above the one-minute interval of bookmarks."""


def inactivity_seconds(deadline_seconds: float) -> float:
    """Return the inactivity after which a stream is reconnected; well below the deadline."""
    return min(INACTIVITY_SECONDS, deadline_seconds / 2)


class Watches:
    """Ages of all watches.

    Args:
        deadline_seconds: age above which a watch counts as dead.
        now: monotonic clock, in seconds.
    """

    def __init__(self, deadline_seconds: float, now: Callable[[], float]) -> None:
        self._deadline_seconds = deadline_seconds
        self.inactivity_seconds = inactivity_seconds(deadline_seconds)
        self._now = now
        self._last: dict[tuple[Scope, str], float] = {}

    def started(self, scope: Scope, paths: Iterable[str]) -> None:
        """Start the age of each path at 0."""
        for path in paths:
            self._last[scope, path] = self._now()

    def stopped(self, scope: Scope) -> None:
        """Drop the paths of a scope that is not watched for now."""
        self._last = {key: seen for key, seen in self._last.items() if key[0] != scope}

    def seen(self, scope: Scope, path: str) -> None:
        """Record a response of the API server on a watch."""
        if (scope, path) in self._last:
            self._last[scope, path] = self._now()

    def oldest_seconds(self) -> float:
        """Return the age of the oldest watch; 0 when none runs. Thread-safe."""
        return self._now() - min(dict(self._last).values(), default=self._now())

    def verdict(self) -> ProbeResult:
        """Return whether all watches are within the deadline; true when none runs."""
        known = dict(self._last)
        if not known:
            return ProbeResult(True)
        (_, path), seen = min(known.items(), key=lambda each: each[1])
        age = self._now() - seen
        if age <= self._deadline_seconds:
            return ProbeResult(True)
        return ProbeResult(False, f"the watch of {path} has received nothing for {age:.0f} s")
