"""Scopes: the namespaces that are served, each with its own lists and watches, and which of them cannot be read.

A namespace that is gone, or whose rights were taken away, is unavailable by itself: it is named in the log, in a
metric, in /status and in the condition of its feeds that are still known, and the others are served.
"""

from collections.abc import Sequence
from typing import Final

from marketfeed_chassis import logs
from marketfeed_operator.engine.metrics import Metrics

log = logs.get(__name__)

Scope = str | None
"""A namespace; None for all of them, by one list and one watch of each kind."""
ALL: Final = "all namespaces"


class Scopes:
    """Which scopes there are, and why some of them are unavailable.

    Attributes:
        problems: scope, by its name -> why it cannot be read.
    """

    def __init__(self, namespaces: Sequence[str], metrics: Metrics) -> None:
        self.every: tuple[Scope, ...] = tuple(namespaces) or (None,)
        self._metrics = metrics
        self.problems: dict[str, str] = {}
        self._ready: set[Scope] = set()

    def available(self) -> list[Scope]:
        """The scopes that were read whole and are watched."""
        return [scope for scope in self.every if scope in self._ready]

    def read(self, scope: Scope) -> None:
        """A scope was listed whole."""
        self._ready.add(scope)
        self._metrics.namespace_available.labels(name_of(scope)).set(1)
        if self.problems.pop(name_of(scope), None) is not None:
            log.info("namespace available", namespace=name_of(scope))

    def failed(self, scope: Scope, reason: str) -> None:
        """A scope cannot be listed or watched; whoever follows it tries again."""
        self._ready.discard(scope)
        self.refused(scope, reason)

    def refused(self, scope: Scope, reason: str) -> None:
        """A scope that is watched cannot be listed; the next audit tries again."""
        self._metrics.namespace_available.labels(name_of(scope)).set(0)
        if name_of(scope) not in self.problems:
            log.warning("namespace unavailable", namespace=name_of(scope), reason=reason)
        self.problems[name_of(scope)] = reason[:300]

    def problem_of(self, namespace: str) -> str:
        """Why feeds of a namespace are not watched; "" when they are."""
        return self.problems.get(namespace, self.problems.get(ALL, ""))


def name_of(scope: Scope) -> str:
    """A scope as logs and metrics name it."""
    return ALL if scope is None else scope
