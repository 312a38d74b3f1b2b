"""Scopes: the served namespaces, each with its own lists and watches, and which of them are unavailable.

A namespace that is deleted, or whose permissions were revoked, is unavailable by itself: it is reported in the log, a
metric, /status and the conditions of its known feeds, and the others are served.
"""

from collections.abc import Sequence
from typing import Final

from marketfeed_operator.engine.metrics import Metrics
from marketfeed_service import logs

log = logs.get(__name__)

Scope = str | None
"""Namespace; None for all namespaces, with one list and one watch per kind."""
ALL: Final = "all namespaces"


class Scopes:
    """Served scopes, and why some of them are unavailable.

    Attributes:
        problems: scope name -> why it cannot be read.
    """

    def __init__(self, namespaces: Sequence[str], metrics: Metrics) -> None:
        self.every: tuple[Scope, ...] = tuple(namespaces) or (None,)
        self._metrics = metrics
        self.problems: dict[str, str] = {}
        self._ready: set[Scope] = set()

    def available(self) -> list[Scope]:
        """Return the scopes that were listed completely and are watched."""
        return [scope for scope in self.every if scope in self._ready]

    def read(self, scope: Scope) -> None:
        """Mark a scope as listed completely."""
        self._ready.add(scope)
        self._metrics.namespace_available.labels(name_of(scope)).set(1)
        if self.problems.pop(name_of(scope), None) is not None:
            log.info("namespace available", namespace=name_of(scope))

    def failed(self, scope: Scope, reason: str) -> None:
        """Mark a scope as failed: it cannot be listed or watched; its follower retries."""
        self._ready.discard(scope)
        self.refused(scope, reason)

    def refused(self, scope: Scope, reason: str) -> None:
        """Record that a watched scope cannot be listed; the next audit retries."""
        self._metrics.namespace_available.labels(name_of(scope)).set(0)
        if name_of(scope) not in self.problems:
            log.warning("namespace unavailable", namespace=name_of(scope), reason=reason)
        self.problems[name_of(scope)] = reason[:300]

    def problem_of(self, namespace: str) -> str:
        """Return why feeds of a namespace are not watched; "" when they are."""
        return self.problems.get(namespace, self.problems.get(ALL, ""))


def name_of(scope: Scope) -> str:
    """Return the name of a scope in logs and metrics."""
    return ALL if scope is None else scope
