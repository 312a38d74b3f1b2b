"""When each watch last showed life, from which liveness follows.

The age of a watch is the time since the API server last answered on it: with an event, a bookmark (about once a minute,
kopf asks for them), the end of the stream by the server's own timeout, or the first line of a new one. It is taken
where the bytes arrive, in the HTTP session that kopf is given (see `watch_session`), so it needs no object to be
changed for it. kopf gives a stream up after `INACTIVITY_SECONDS` without any of these and opens another; only when
that brings nothing either does the age pass the deadline, which therefore lies well above it.

A refusal (401, 403, 404) is an answer: the API server is there, and a restart of ours would change nothing.
"""

from collections.abc import Callable, Iterable
from typing import Final

from marketfeed_chassis.health import Verdict
from marketfeed_operator.engine.scopes import Scope

INACTIVITY_SECONDS: Final = 70.0
"""kopf's own, a little above the minute after which the API server sends a bookmark."""


def inactivity_seconds(deadline_seconds: float) -> float:
    """Silence after which a stream is opened anew; well before the deadline, however short that is."""
    return min(INACTIVITY_SECONDS, deadline_seconds / 2)


class Watches:
    """The age of every watch.

    Args:
        deadline_seconds: age above which a watch counts as dead.
        now: a clock in seconds that never goes back.
    """

    def __init__(self, deadline_seconds: float, now: Callable[[], float]) -> None:
        self._deadline_seconds = deadline_seconds
        self.inactivity_seconds = inactivity_seconds(deadline_seconds)
        self._now = now
        self._last: dict[tuple[Scope, str], float] = {}

    def started(self, scope: Scope, paths: Iterable[str]) -> None:
        """From now on each of the paths has to show life within the deadline."""
        for path in paths:
            self._last[scope, path] = self._now()

    def stopped(self, scope: Scope) -> None:
        """The scope is not watched for now; whoever stopped says why."""
        self._last = {key: seen for key, seen in self._last.items() if key[0] != scope}

    def seen(self, scope: Scope, path: str) -> None:
        """The API server has answered on a watch."""
        if (scope, path) in self._last:
            self._last[scope, path] = self._now()

    def oldest_seconds(self) -> float:
        """The age of the watch that was silent longest; 0 while none runs. May be asked for from another thread."""
        return self._now() - min(dict(self._last).values(), default=self._now())

    def verdict(self) -> Verdict:
        """Whether every watch has shown life in time; always, while none runs."""
        known = dict(self._last)
        if not known:
            return Verdict(True)
        (_, path), seen = min(known.items(), key=lambda each: each[1])
        age = self._now() - seen
        if age <= self._deadline_seconds:
            return Verdict(True)
        return Verdict(False, f"the watch of {path} has received nothing for {age:.0f} s")
