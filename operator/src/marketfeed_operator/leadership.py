"""What only a leader runs: the watches, the work, the audit, and what is asked beside; until one of them ends."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from marketfeed_operator import handlers
from marketfeed_operator.apply import Applier
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.desired import Defaults
from marketfeed_operator.engine.audit import Audit
from marketfeed_operator.engine.canary import Canary
from marketfeed_operator.engine.listings import Listings
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.queue import WorkQueue
from marketfeed_operator.engine.reports import Reports
from marketfeed_operator.engine.secrets import SecretVersions
from marketfeed_operator.engine.work import Workers
from marketfeed_operator.observe import Observer
from marketfeed_operator.observed import Key
from marketfeed_operator.reconcile import Reconciler
from marketfeed_operator.settings import OperatorSettings
from marketfeed_operator.store import Store

LISTING_RETRY_SECONDS: Final = 10.0

Task = tuple[str, Coroutine[Any, Any, object]]
"""What is to run, and what it is called in the log when it was the first to end."""


class Leadership:
    """The parts that serve feeds, from the queue to what fills it.

    Attributes:
        audit: to be done once before `tasks` run: everything is known before anything is changed.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        store: Store,
        metrics: Metrics,
        canary: Canary,
        *,
        identity: str,
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._store = store
        self._canary = canary
        self._queue: WorkQueue[Key] = WorkQueue(now=time.monotonic, chance=chance)
        changed = self._queue.add
        self.audit = Audit(cluster, store, metrics, settings.watch_namespaces, changed)
        self._reports = Reports(store, port=settings.pod_metrics_port, changed=changed)
        self._listings = Listings(changed)
        self._secrets = SecretVersions(cluster, changed) if settings.watch_secrets else None
        reconciler = Reconciler(
            cluster,
            store,
            Observer(store, self._reports, self._listings, self.audit, self._secrets),
            Applier(cluster, store, metrics),
            metrics,
            _defaults(settings),
            identity=identity,
            now=lambda: datetime.now(UTC),
        )
        self._workers = Workers(
            self._queue,
            reconciler,
            store,
            canary,
            metrics,
            resync_seconds=settings.resync_seconds,
            chance=chance,
        )

    def tasks(self, *, spawned: Callable[[], None], stop_watching: asyncio.Event) -> list[Task]:
        """All that is to run, at the same time and for as long as this process leads."""
        settings = self._settings
        handling = handlers.registry(self._store, self._queue.add, self._cluster.credentials)
        watching = handlers.watch(handling, settings.watch_namespaces, spawned=spawned, stop=stop_watching)
        tasks: list[Task] = [
            ("watch", watching),
            ("work", self._workers.run(settings.concurrency)),
            ("audit", self.audit.run(settings.audit_seconds)),
            ("reports", self._reports.run(settings.report_seconds)),
            ("listings", self._listings.run(settings.listing_seconds, LISTING_RETRY_SECONDS)),
        ]
        if self._secrets is not None:
            tasks.append(("secrets", self._secrets.run(settings.secrets_seconds)))
        if settings.canary_seconds:
            tasks.append(("canary", self._canary.run(settings.canary_seconds)))
        return tasks


def _defaults(settings: OperatorSettings) -> Defaults:
    return Defaults(
        worker_image=settings.worker_image,
        consumer_image=settings.consumer_image,
        image_pull_policy=settings.image_pull_policy,
        metrics_port=settings.pod_metrics_port,
        drain_seconds=settings.pod_drain_seconds,
    )
