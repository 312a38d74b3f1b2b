"""List and watch each scope, and start again when its watches end. Scopes are independent."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from marketfeed_operator import handlers
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.engine.audit import Audit
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.scopes import Scope, Scopes, name_of
from marketfeed_operator.engine.watches import Watches
from marketfeed_operator.errors import ApiError
from marketfeed_operator.handlers import Changed
from marketfeed_operator.store import Store
from marketfeed_service import logs
from marketfeed_service.backoff import delays

log = logs.get(__name__)

RETRY_SECONDS: Final = (1.0, 60.0)


class Follower:
    """Keeps the store in sync with the cluster.

    Args:
        spawned: called after each start of kopf, which replaces the process's signal handlers.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        audit: Audit,
        scopes: Scopes,
        watches: Watches,
        metrics: Metrics,
        changed: Changed,
        *,
        spawned: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._audit = audit
        self._scopes = scopes
        self._watches = watches
        self._metrics = metrics
        self._changed = changed
        self._spawned = spawned
        self._rng = rng
        metrics.watch_age.set_function(watches.oldest_seconds)

    async def run(self) -> None:
        """Follow all scopes until cancelled."""
        async with asyncio.TaskGroup() as following:
            for scope in self._scopes.every:
                following.create_task(self._follow(scope), name=f"watch {name_of(scope)}")

    async def _follow(self, scope: Scope) -> None:
        backoff = delays(*RETRY_SECONDS, self._rng)
        while True:
            try:
                # List first: a feed is reconciled only when its children are known, and deletions before the watch
                # are visible in a list only.
                await self._audit.audit_scope(scope)
                self._scopes.read(scope)
                backoff = delays(*RETRY_SECONDS, self._rng)
                await self._watch(scope)
                reason = "its watches ended"
            except ApiError as error:
                reason = f"{error}"
            except Exception as error:  # kopf raises many types of errors
                reason = f"{type(error).__name__}: {error}"
                log.exception("watches failed", namespace=name_of(scope))
            self._scopes.failed(scope, reason)
            await asyncio.sleep(next(backoff))

    async def _watch(self, scope: Scope) -> None:
        handling = handlers.registry(
            self._store,
            self._changed,
            self._cluster.credentials,
            lambda path: self._watches.seen(scope, path),
        )
        self._watches.started(scope, handlers.paths(scope))
        try:
            await handlers.watch(
                handling, scope, inactivity_seconds=self._watches.inactivity_seconds, spawned=self._spawned
            )
        finally:
            self._watches.stopped(scope)
            self._metrics.watch_restarts.labels(name_of(scope)).inc()
