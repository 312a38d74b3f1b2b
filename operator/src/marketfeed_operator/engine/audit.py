"""Audit: all objects of the operator are relisted periodically and compared with the store.

A watch that reconnects after a long outage does not report deletions in between, and the custom resources of other
operators are not watched. Namespaces are audited independently: one that cannot be read does not affect the others.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from marketfeed_operator.cluster import FEEDS, Cluster
from marketfeed_operator.engine.loops import REPORTED_FAILURES
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.scopes import Scope, Scopes, name_of
from marketfeed_operator.errors import ApiError, Forbidden, NotFound
from marketfeed_operator.facts import child_facts, feed_facts, kafka_listeners, pod_facts
from marketfeed_operator.kinds import KAFKA, OPTIONAL, POD, WATCHED, Kind
from marketfeed_operator.names import FEED, FIELD_MANAGER, MANAGED_BY
from marketfeed_operator.observed import ChildFacts, KafkaListener, Key
from marketfeed_operator.store import Store
from marketfeed_operator.text import printable
from marketfeed_service import logs

log = logs.get(__name__)

OURS = f"{MANAGED_BY}={FIELD_MANAGER},{FEED}"


class Audit:
    """Compares the store with the cluster.

    Args:
        scopes: namespaces that are served, `None` for all of them at once.

    Attributes:
        kinds: optional kinds that the cluster served at the last audit.
        kafkas: (namespace, name) of each Strimzi Kafka -> listeners in its last known status.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        metrics: Metrics,
        scopes: Scopes,
        changed: Callable[[Key], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._metrics = metrics
        self._scopes = scopes
        self._changed = changed
        self._seen: set[Scope] = set()
        """Scopes whose last audit completed."""
        self._unreadable: dict[tuple[str, Scope], tuple[int, str]] = {}
        """Kind and scope -> number of consecutive failed lists, and the last reason."""
        self.kinds: frozenset[str] = frozenset()
        self.kafkas: dict[tuple[str, str], tuple[KafkaListener, ...]] = {}

    async def audit(self) -> None:
        """Compare all scopes once, except unavailable ones: their followers retry them.

        Raises:
            ApiError: the API server did not respond; the other scopes were audited.
        """
        await self.learn_kinds()
        failure: Exception | None = None
        for scope in self._scopes.available():
            try:
                await self.audit_scope(scope)
            except (Forbidden, NotFound) as error:
                # Its permissions were revoked; its watches continue until they reconnect. This concerns the scope
                # only, not the feeds of others.
                self._scopes.refused(scope, f"{error}")
            except Exception as error:  # noqa: BLE001 - raised below: first the other scopes
                failure = failure or error
            else:
                self._scopes.read(scope)
        if failure is not None:
            raise failure

    async def learn_kinds(self) -> None:
        """Discover which optional kinds the cluster serves now.

        Raises:
            ApiError: the API server refused or did not respond.
        """
        kinds = await self._cluster.optional_kinds()
        if kinds != self.kinds:
            log.info("optional kinds discovered", kinds=sorted(kinds))
            self.kinds = kinds
            for feed in list(self._store.feeds):
                await self._changed(feed)

    async def audit_scope(self, scope: Scope) -> None:
        """Compare one scope once.

        Raises:
            ApiError: the API server refused or did not respond.
        """
        after_failure = scope not in self._seen
        self._seen.discard(scope)
        touched = await self._feeds(scope) | await self._optional(KAFKA, scope, self._kafkas(scope))
        for kind in WATCHED:
            touched |= await self._children(kind, scope)
        for kind in OPTIONAL:
            if kind.kind in self.kinds:
                touched |= await self._optional(kind, scope, self._children(kind, scope))
        touched |= await self._pods(scope)
        self._seen.add(scope)
        if after_failure:  # the failed attempt has added feeds; and others are waiting in backoff
            touched |= {feed for feed in self._store.feeds if _inside(feed[0], scope)}
        for feed in touched:
            await self._changed(feed)

    def unreadable_kinds(self, namespace: str) -> dict[str, str]:
        """Return optional kind -> why its objects in a namespace cannot be listed, for repeated failures."""
        return {
            kind: reason
            for (kind, scope), (failures, reason) in self._unreadable.items()
            if _inside(namespace, scope) and failures >= REPORTED_FAILURES
        }

    async def _optional(self, kind: Kind, scope: Scope, comparing: Awaitable[set[Key]]) -> set[Key]:
        """Compare an optional kind; a failed list does not prevent the other comparisons."""
        at = (kind.kind, scope)
        try:
            touched = await comparing
        except ApiError as error:
            touched = set()
            failures = self._unreadable[at][0] + 1 if at in self._unreadable else 1
            self._unreadable[at] = (failures, printable(f"{error}", 300))
            self._metrics.loop_failures.labels(f"list {kind.plural}").inc()
            if failures == REPORTED_FAILURES:
                log.warning(
                    "kind not listed",
                    kind=kind.kind,
                    namespace=name_of(scope),
                    reason=self._unreadable[at][1],
                )
        else:
            if self._unreadable.pop(at, (0, ""))[0] >= REPORTED_FAILURES:
                log.info("kind listed again", kind=kind.kind, namespace=name_of(scope))
        failing = any(kind.kind == unreadable for unreadable, _ in self._unreadable)
        self._metrics.loop_failing.labels(f"list {kind.plural}").set(failing)
        return touched

    async def _feeds(self, scope: Scope) -> set[Key]:
        before = {key for key in self._store.feeds if _inside(key[0], scope)}
        found = [facts async for facts in self._cluster.each(FEEDS, scope, "", feed_facts)]
        touched = {key for feed in found if (key := self._store.put_feed(feed)) is not None}
        for key in before - {feed.key for feed in found}:
            touched.add(self._store.remove_feed(key))
        self._metrics.audit_found.inc(len(touched))
        return touched

    async def _kafkas(self, scope: Scope) -> set[Key]:
        before = {
            cluster: listeners for cluster, listeners in self.kafkas.items() if _inside(cluster[0], scope)
        }
        found = dict[tuple[str, str], tuple[KafkaListener, ...]]()
        with contextlib.suppress(NotFound):  # the CRD was removed since discovery
            if KAFKA.kind in self.kinds:
                async for cluster, listeners in self._cluster.each(KAFKA, scope, "", _kafka):
                    # A Kafka without listeners in its status has not moved: dropping its address would restart every
                    # pod.
                    found[cluster] = listeners or before.get(cluster, ())
        for cluster in before.keys() - found.keys():
            del self.kafkas[cluster]
        self.kafkas |= found
        changed = {cluster for cluster in {*before, *found} if before.get(cluster) != found.get(cluster)}
        return {feed for feed, facts in self._store.feeds.items() if _kafka_of(feed, facts.spec) in changed}

    async def _children(self, kind: Kind, scope: Scope) -> set[Key]:
        before = {
            child.key: child.uid
            for child in self._store.all_children()
            if child.key[0] == kind.kind and _inside(child.key[1], scope)
        }
        found: list[ChildFacts] = []
        with contextlib.suppress(NotFound):  # the CRD was removed since discovery
            found += [
                facts
                async for facts in self._cluster.each(
                    kind, scope, OURS, lambda body: child_facts(kind.kind, body)
                )
                if facts is not None
            ]
        touched = {key for facts in found if (key := self._store.put_child(facts)) is not None}
        missed = set(touched)
        for gone in set(before) - {facts.key for facts in found}:
            # Only objects known before the list request: later ones are not in the list.
            feed = self._store.remove_child(gone, before[gone])
            missed |= {feed} if feed is not None else set()
        if not kind.optional:
            self._metrics.audit_found.inc(len(missed))
        return missed

    async def _pods(self, scope: Scope) -> set[Key]:
        before = {uid for uid, feed in self._store.pods().items() if _inside(feed[0], scope)}
        found = [
            facts async for facts in self._cluster.each(POD, scope, OURS, pod_facts) if facts is not None
        ]
        touched = {key for facts in found if (key := self._store.put_pod(facts)) is not None}
        for uid in before - {facts.uid for facts in found}:
            feed = self._store.remove_pod(uid)
            touched |= {feed} if feed is not None else set()
        return touched


def _kafka(body: Mapping[str, Any]) -> tuple[tuple[str, str], tuple[KafkaListener, ...]]:
    return (body["metadata"]["namespace"], body["metadata"]["name"]), kafka_listeners(body)


def _inside(namespace: str, scope: Scope) -> bool:
    return scope is None or namespace == scope


def _kafka_of(feed: Key, spec: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the Strimzi Kafka of a stored spec, valid or not."""
    kafka = spec.get("kafka")
    named = kafka.get("cluster") if isinstance(kafka, Mapping) else None
    return (named.get("namespace") or feed[0], named.get("name", "")) if isinstance(named, Mapping) else None
