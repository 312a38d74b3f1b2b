"""Apply the planned children by server-side apply and delete obsolete ones, without no-op writes.

Objects that the feed did not create are never changed (see `ownership`):

    not known      GET: 404 → POST, which the API server refuses if the object exists by then; otherwise as known
    known, ours    apply with force and the object's uid: a conflict if another object has taken the name since
    not ours       NameConflict, a condition that names the object and its owner

Server-side apply cannot be limited to creation: it merges into an existing object. A POST owns its fields by a
separate entry in `managedFields`, which is released once an apply owns them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from marketfeed_operator.cluster import Cluster
from marketfeed_operator.desired import Child, Object
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import Conflict, Immutable, Invalid, NameConflict, NotFound, Unavailable
from marketfeed_operator.facts import child_facts, creation_entry, is_ours
from marketfeed_operator.kinds import BY_NAME, STATEFUL_SET
from marketfeed_operator.names import CREATION_MANAGER, DESIRED_HASH, FEED, FEED_NAMESPACE, HANDOVER_MANAGER
from marketfeed_operator.observed import ChildFacts, ChildKey, Observed
from marketfeed_operator.ownership import belongs_to, owner_text
from marketfeed_operator.store import Store

Result = Literal["noop", "held", "created", "patched", "deleted", "recreated", "foreign"]


RELEASE_ATTEMPTS: Final = 5
DELETION_SECONDS: Final = 5.0
"""Maximum wait of a pass for the deletion of an object before the feed is retried."""
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Outcome:
    """Result for one child."""

    key: ChildKey
    result: Result


class Applier:
    """Applies children and caches their applied state, to skip no-op writes and to detect drift.

    Args:
        now: monotonic clock, in seconds.
    """

    def __init__(self, cluster: Cluster, store: Store, metrics: Metrics, *, now: Callable[[], float]) -> None:
        self._now = now
        self._cluster = cluster
        self._store = store
        self._metrics = metrics
        self._applied: dict[ChildKey, tuple[str, str]] = {}
        """Child -> (hash of the desired object, digest of the object stored then)."""

    async def apply(self, child: Child, observed: Observed, uid: str) -> Outcome:
        """Reconcile one child of the feed with that uid.

        Args:
            child: desired object.
            observed: observed state of the feed.
            uid: uid of the feed.

        Raises:
            NameConflict: the name belongs to an object that the feed did not create.
            ApiError: the API server refused or did not respond.
        """
        if child.body is None:
            return Outcome(child.key, "held")
        found = observed.children.get(child.key)
        desired_hash = child.body["metadata"]["annotations"][DESIRED_HASH]
        known = self._applied.get(child.key)
        if found is not None and known == (desired_hash, found.digest):
            return Outcome(child.key, "noop")
        stored, stored_uid = None, found.uid if found is not None else ""
        if found is None or child.shared or not found.belongs_to(uid):
            # The watch may lag, and facts do not contain the names of owners.
            stored = await self._stored(child)
            if stored is not None and (outcome := self._check_owner(child, stored, uid)) is not None:
                return outcome
            # An object of ours whose labels were removed has no facts, but it has its uid.
            found = child_facts(child.kind.kind, stored) if stored is not None else None
            stored_uid = stored["metadata"]["uid"] if stored is not None else ""
        if found is not None and found.replicas_ours and _omits_replicas(child):
            await self._transfer_replicas(child, found)
        result: Result
        after_body, result = await self._apply(child, stored_uid)
        after = child_facts(child.kind.kind, after_body)
        if after is not None:
            self._store.put_child(after)
            self._applied[child.key] = (desired_hash, after.digest)
            # Digests are compared, not resource versions: controllers update the status meanwhile.
            if found is not None and after.digest == found.digest:
                result = "noop"
        self._count(
            child, result, drifted=known is not None and known[0] == desired_hash and result != "noop"
        )
        return Outcome(child.key, result)

    async def delete(self, key: ChildKey, facts: ChildFacts) -> Outcome:
        """Delete a child that is no longer desired.

        Raises:
            ApiError: the API server refused or did not respond.
        """
        kind, namespace, name = key
        # Already deleted, or replaced under the same name: the watch reports it.
        with contextlib.suppress(NotFound, Conflict):
            await self._cluster.delete(BY_NAME[kind], namespace, name, uid=facts.uid)
        self._store.remove_child(key, facts.uid)
        self._applied.pop(key, None)
        self._metrics.children.labels(kind, "deleted").inc()
        return Outcome(key, "deleted")

    def forget(self, keys: Sequence[ChildKey]) -> None:
        """Drop the state of a deleted feed's children."""
        for key in keys:
            self._applied.pop(key, None)

    async def _stored(self, child: Child) -> Object | None:
        try:
            return await self._cluster.get(child.kind.path(child.namespace, child.name))
        except NotFound:
            return None

    def _check_owner(self, child: Child, stored: Object, uid: str) -> Outcome | None:
        """Return None when the object may be changed, or an outcome when it is shared and owned by another feed.

        Raises:
            NameConflict: the object was created by something else.
        """
        metadata = stored["metadata"]
        if child.shared and is_ours(metadata):
            return Outcome(child.key, "foreign") if self._owned_by_other_feed(child, stored) else None
        if not child.shared and belongs_to(metadata, uid, (child.body or {})["metadata"]["labels"]):
            return None
        raise NameConflict(
            409,
            f"{child.kind.kind} {child.namespace}/{child.name} exists and does not belong to this feed: it "
            f"belongs to {owner_text(metadata)}. It is not changed: rename the feed, or delete that object",
        )

    def _owned_by_other_feed(self, child: Child, stored: Object) -> bool:
        labels = stored["metadata"].get("labels") or {}
        owner = (labels.get(FEED_NAMESPACE), labels.get(FEED))
        ours = (child.body or {})["metadata"]["labels"]
        if None not in owner and owner not in self._store.feeds and owner[0] == ours[FEED_NAMESPACE]:
            return False  # the feed that declared it is deleted
        return owner != (ours[FEED_NAMESPACE], ours[FEED])

    async def _apply(self, child: Child, stored_uid: str) -> tuple[Object, Result]:
        """Apply to the object with uid `stored_uid`; create one when it is ""."""
        if not stored_uid:
            return await self._create(child), "created"
        try:
            stored = await self._cluster.apply(child.kind, _only(child.body or {}, stored_uid))
        except Immutable:
            if child.kind.group != "apps":
                raise
            # Anything else is an invalid spec or a policy's refusal: deleting the workload for it would leave pods
            # that nothing replaces.
            await self._validate_new(child)
            # Its pods keep running as orphans, and the new workload adopts them.
            await self._cluster.delete(child.kind, child.namespace, child.name, uid=stored_uid, orphan=True)
            await self._wait_deleted(child, stored_uid)
            return await self._create(child), "recreated"
        return await self._released(child, stored), "patched"

    async def _create(self, child: Child) -> Object:
        """Create an object.

        Raises:
            Conflict: it exists by now and was not changed.
        """
        created = await self._cluster.create(
            child.kind.path(child.namespace), child.body or {}, manager=CREATION_MANAGER
        )
        stored = await self._cluster.apply(child.kind, _only(child.body or {}, created["metadata"]["uid"]))
        return await self._released(child, stored)

    async def _released(self, child: Child, stored: Object) -> Object:
        """Release the fields owned by the creation entry; from then on they are owned by the apply entry only."""
        uid = stored["metadata"]["uid"]
        for _ in range(RELEASE_ATTEMPTS):
            if (entry := creation_entry(stored["metadata"])) is None:
                return stored
            try:
                return await self._cluster.release_fields(
                    child.kind, child.namespace, child.name, uid=uid, entry=entry
                )
            except (Invalid, Conflict):  # its controller has written in between and moved the entry
                stored = await self._cluster.get(child.kind.path(child.namespace, child.name))
        raise Conflict(409, f"{child.kind.kind} {child.name} changes faster than its fields can be released")

    async def _validate_new(self, child: Child) -> None:
        """Check by a dry run that the API server would accept the object if it were new.

        Raises:
            Invalid: it would not.
        """
        body = child.body or {}
        unused = {**body, "metadata": {**body["metadata"], "name": f"{child.name}-new"}}
        await self._cluster.apply(child.kind, unused, dry_run=True)

    async def _wait_deleted(self, child: Child, uid: str) -> None:
        """Wait until the garbage collector has orphaned the children and the object is deleted."""
        deadline = self._now() + DELETION_SECONDS
        while self._now() < deadline:
            stored = await self._stored(child)
            if stored is None or stored["metadata"]["uid"] != uid:
                return
            await asyncio.sleep(POLL_SECONDS)
        raise Unavailable(
            0, f"{child.kind.kind} {child.name} is still being deleted: it is created again on a later retry"
        )

    async def _transfer_replicas(self, child: Child, found: ChildFacts) -> None:
        """Keep the replica count when the operator stops owning it: a field without owner is reset to 1."""
        await self._cluster.apply(
            child.kind,
            {
                "apiVersion": child.kind.api_version,
                "kind": child.kind.kind,
                "metadata": {"name": child.name, "namespace": child.namespace, "uid": found.uid},
                "spec": {"replicas": found.desired},
            },
            manager=HANDOVER_MANAGER,
        )

    def _count(self, child: Child, result: Result, *, drifted: bool) -> None:
        self._metrics.children.labels(child.kind.kind, result).inc()
        if drifted:
            self._metrics.drift_corrected.labels(child.kind.kind).inc()


def _only(body: Object, uid: str) -> Object:
    """Return `body` restricted to the object with that uid."""
    return {**body, "metadata": {**body["metadata"], "uid": uid}}


def _omits_replicas(child: Child) -> bool:
    return child.kind is STATEFUL_SET and "replicas" not in (child.body or {})["spec"]
