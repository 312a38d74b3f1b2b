"""Tasks of the leader: watches, workers, audit and polling; they run until one of them ends."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from marketfeed_operator.apply import Applier
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.desired import Defaults
from marketfeed_operator.engine.audit import Audit
from marketfeed_operator.engine.follow import Follower
from marketfeed_operator.engine.listings import Listings
from marketfeed_operator.engine.loops import LoopRunner
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.namespace_leases import NamespaceLeases
from marketfeed_operator.engine.queue import WorkQueue
from marketfeed_operator.engine.refusals import Refusals
from marketfeed_operator.engine.reports import Reports
from marketfeed_operator.engine.scopes import Scopes
from marketfeed_operator.engine.secrets import SecretVersions
from marketfeed_operator.engine.watches import Watches
from marketfeed_operator.engine.work import Workers
from marketfeed_operator.observe import Observer
from marketfeed_operator.observed import Key
from marketfeed_operator.policy import Policy
from marketfeed_operator.reconcile import Reconciler
from marketfeed_operator.settings import OperatorSettings
from marketfeed_operator.status_writer import StatusWriter
from marketfeed_operator.store import Store

LISTING_RETRY_SECONDS: Final = 10.0

Task = tuple[str, Coroutine[Any, Any, object]]
"""Name for the log, and what to run."""


class Leadership:
    """Components that serve feeds, from the watches to the workers.

    Args:
        installation: identity of this installation, the same for all of its processes.
        spawned: called after each start of kopf, which replaces the process's signal handlers.

    Attributes:
        audit: its `learn_kinds` must be called once before `tasks`.
        scopes, watches, workers, namespace_leases: for the probes.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        store: Store,
        metrics: Metrics,
        *,
        identity: str,
        installation: str,
        rng: random.Random,
        spawned: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._queue: WorkQueue[Key] = WorkQueue(now=time.monotonic, chance=rng)
        changed = self._queue.add
        self.scopes = Scopes(settings.watch_namespaces, metrics)
        self.watches = Watches(settings.watch_deadline_seconds, time.monotonic)
        self._loops = LoopRunner(metrics)
        self.namespace_leases = NamespaceLeases(cluster, metrics, installation, now=time.monotonic)
        self._store = store
        self.audit = Audit(cluster, store, metrics, self.scopes, changed)
        self._reports = Reports(store, metrics, port=settings.pod_metrics_port, changed=changed)
        self._listings = Listings(changed, metrics)
        self._refusals = Refusals(cluster, store, changed)
        self._secrets = SecretVersions(cluster, changed) if settings.watch_secrets else None
        self._follower = Follower(
            cluster, store, self.audit, self.scopes, self.watches, metrics, changed, spawned=spawned, rng=rng
        )
        reconciler = Reconciler(
            store,
            Observer(
                store,
                self._reports,
                self._listings,
                self.audit,
                self._secrets,
                self._refusals,
                self._loops,
                self.scopes,
                self.namespace_leases,
            ),
            Applier(cluster, store, metrics, now=time.monotonic),
            StatusWriter(cluster, store, metrics, identity),
            metrics,
            _defaults(settings),
            _policy(settings),
            self.namespace_leases,
            now=lambda: datetime.now(UTC),
        )
        self.workers = Workers(
            self._queue,
            reconciler,
            metrics,
            resync_seconds=settings.resync_seconds,
            rng=rng,
            now=time.monotonic,
        )

    def tasks(self) -> list[Task]:
        """Return all tasks that run while this process leads."""
        settings = self._settings
        tasks: list[Task] = [
            ("watch", self._follower.run()),
            ("work", self.workers.run(settings.concurrency)),
            ("audit", self._loops.repeat("audit", self.audit.audit, settings.audit_seconds)),
            ("reports", self._poll_pods()),
            (
                "namespace leases",
                self._loops.repeat(
                    "namespace leases", self._renew_namespace_leases, settings.namespace_lease_seconds
                ),
            ),
            ("refusals", self._loops.repeat("refusals", self._refusals.refresh, settings.report_seconds)),
            ("listings", self._listings.run(settings.listing_seconds, LISTING_RETRY_SECONDS)),
        ]
        if self._secrets is not None:
            asking = self._loops.repeat("secrets", self._secrets.refresh, settings.secrets_seconds)
            tasks.append(("secrets", asking))
        return tasks

    async def _renew_namespace_leases(self) -> None:
        await self.namespace_leases.renew_all({namespace for namespace, _ in self._store.feeds})

    async def _poll_pods(self) -> None:
        async with self._reports.session() as session:
            try:
                while True:
                    await self._loops.run_once("reports", lambda: self._reports.poll_all(session))
                    await asyncio.sleep(self._settings.report_seconds)
            finally:
                await self._reports.end()


def _defaults(settings: OperatorSettings) -> Defaults:
    return Defaults(
        worker_image=settings.worker_image,
        consumer_image=settings.consumer_image,
        image_pull_policy=settings.image_pull_policy,
        metrics_port=settings.pod_metrics_port,
        drain_seconds=settings.pod_drain_seconds,
        run_as_user=settings.pod_run_as_user or None,
        run_as_group=settings.pod_run_as_group or None,
        fs_group=settings.pod_fs_group or None,
    )


def _policy(settings: OperatorSettings) -> Policy:
    return Policy(
        images=settings.allowed_images,
        priority_classes=settings.allowed_priority_classes,
        topic_namespaces=settings.topic_namespaces,
        own_endpoints=settings.allow_own_endpoints,
    )
