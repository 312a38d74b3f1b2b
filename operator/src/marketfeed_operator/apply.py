"""Make it so: what is planned by server-side apply, what is not wanted away, and no write that changes nothing.

Nothing that the feed has not made is ever changed (see `ownership`):

    not known      GET: 404 → POST, which the API server refuses when another has created the object in between; then as
                   one that is known
    known, ours    apply with force and the object's uid: a conflict if another has taken the name since
    not ours       NameConflict, a condition that names the object and its owner

A server-side apply cannot create: it has no way to say that nothing must be there, and merges with what is. A POST owns
its fields by an entry of its own in `managedFields`, which is released once an apply owns them.
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
GONE_SECONDS: Final = 5.0
"""How long a pass waits for an object that is being deleted, before the feed is tried again later."""
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Outcome:
    """What was done about one child."""

    key: ChildKey
    result: Result


class Applier:
    """Applies children and remembers what they were when it had, to know later whether they still are.

    Args:
        now: a clock in seconds that never goes back.
    """

    def __init__(self, cluster: Cluster, store: Store, metrics: Metrics, *, now: Callable[[], float]) -> None:
        self._now = now
        self._cluster = cluster
        self._store = store
        self._metrics = metrics
        self._applied: dict[ChildKey, tuple[str, str]] = {}
        """Child -> (hash of what we wanted, digest of what was then stored)."""

    async def apply(self, child: Child, observed: Observed, uid: str) -> Outcome:
        """Bring one child of the feed of that uid to what is wanted.

        Raises:
            NameConflict: the name belongs to an object that the feed has not made.
            ApiError: the API server refused or did not answer.
        """
        if child.body is None:
            return Outcome(child.key, "held")
        found = observed.children.get(child.key)
        wanted = child.body["metadata"]["annotations"][DESIRED_HASH]
        known = self._applied.get(child.key)
        if found is not None and known == (wanted, found.digest):
            return Outcome(child.key, "noop")
        stored, there = None, found.uid if found is not None else ""
        if found is None or child.shared or not found.belongs_to(uid):
            # The watch may be behind, and its facts hold no names of owners.
            stored = await self._stored(child)
            if stored is not None and (outcome := self._of_another(child, stored, uid)) is not None:
                return outcome
            # Without its labels, which somebody may have taken away, an object of ours has no facts; but it has its
            # uid.
            found = child_facts(child.kind.kind, stored) if stored is not None else None
            there = stored["metadata"]["uid"] if stored is not None else ""
        if found is not None and found.replicas_ours and _leaves_replicas(child):
            await self._hand_over_replicas(child, found)
        result: Result
        after_body, result = await self._apply(child, there)
        after = child_facts(child.kind.kind, after_body)
        if after is not None:
            self._store.put_child(after)
            self._applied[child.key] = (wanted, after.digest)
            # Not by their versions: whoever counts pods writes a status meanwhile, which is no change of ours.
            if found is not None and after.digest == found.digest:
                result = "noop"
        self._count(child, result, drifted=known is not None and known[0] == wanted and result != "noop")
        return Outcome(child.key, result)

    async def delete(self, key: ChildKey, facts: ChildFacts) -> Outcome:
        """Remove a child that is not wanted any more.

        Raises:
            ApiError: the API server refused or did not answer.
        """
        kind, namespace, name = key
        with contextlib.suppress(
            NotFound, Conflict
        ):  # gone already, or another has its name: the watch will say
            await self._cluster.delete(BY_NAME[kind], namespace, name, uid=facts.uid)
        self._store.remove_child(key, facts.uid)
        self._applied.pop(key, None)
        self._metrics.children.labels(kind, "deleted").inc()
        return Outcome(key, "deleted")

    def forget(self, keys: Sequence[ChildKey]) -> None:
        """Their feed is gone."""
        for key in keys:
            self._applied.pop(key, None)

    async def _stored(self, child: Child) -> Object | None:
        try:
            return await self._cluster.get(child.kind.path(child.namespace, child.name))
        except NotFound:
            return None

    def _of_another(self, child: Child, stored: Object, uid: str) -> Outcome | None:
        """None when the object may be changed; an outcome when it is shared, and another feed keeps it.

        Raises:
            NameConflict: somebody else has made it.
        """
        metadata = stored["metadata"]
        if child.shared and is_ours(metadata):
            return Outcome(child.key, "foreign") if self._other_feed_keeps(child, stored) else None
        if not child.shared and belongs_to(metadata, uid, (child.body or {})["metadata"]["labels"]):
            return None
        raise NameConflict(
            409,
            f"{child.kind.kind} {child.namespace}/{child.name} is there and not this feed's: it belongs to "
            f"{owner_text(metadata)}. It is left as it is: rename the feed, or delete that object",
        )

    def _other_feed_keeps(self, child: Child, stored: Object) -> bool:
        labels = stored["metadata"].get("labels") or {}
        owner = (labels.get(FEED_NAMESPACE), labels.get(FEED))
        ours = (child.body or {})["metadata"]["labels"]
        if None not in owner and owner not in self._store.feeds and owner[0] == ours[FEED_NAMESPACE]:
            return False  # whoever declared it is gone
        return owner != (ours[FEED_NAMESPACE], ours[FEED])

    async def _apply(self, child: Child, there: str) -> tuple[Object, Result]:
        """Apply to the object of the uid `there`; create one when that is ""."""
        if not there:
            return await self._create(child), "created"
        try:
            stored = await self._cluster.apply(child.kind, _only(child.body or {}, there))
        except Immutable:
            if child.kind.group != "apps":
                raise
            # Anything else is a mistake in the feed, or a policy's refusal: to delete the workload for it would leave
            # pods that nobody replaces.
            await self._could_be_made(child)
            # Its pods go on, as orphans, and the new one takes them in.
            await self._cluster.delete(child.kind, child.namespace, child.name, uid=there, orphan=True)
            await self._gone(child, there)
            return await self._create(child), "recreated"
        return await self._released(child, stored), "patched"

    async def _create(self, child: Child) -> Object:
        """Create an object that is not there.

        Raises:
            Conflict: by now it is; it was not changed.
        """
        created = await self._cluster.create(
            child.kind.path(child.namespace), child.body or {}, manager=CREATION_MANAGER
        )
        stored = await self._cluster.apply(child.kind, _only(child.body or {}, created["metadata"]["uid"]))
        return await self._released(child, stored)

    async def _released(self, child: Child, stored: Object) -> Object:
        """Release what is owned by a creation, for good: what is applied is owned by that."""
        uid = stored["metadata"]["uid"]
        for _ in range(RELEASE_ATTEMPTS):
            if (entry := creation_entry(stored["metadata"])) is None:
                return stored
            try:
                return await self._cluster.release_fields(
                    child.kind, child.namespace, child.name, uid=uid, entry=entry
                )
            except (Invalid, Conflict):  # its controller has written in between, and moved the entry
                stored = await self._cluster.get(child.kind.path(child.namespace, child.name))
        raise Conflict(409, f"{child.kind.kind} {child.name} changes faster than its fields can be released")

    async def _could_be_made(self, child: Child) -> None:
        """Ask the API server whether it would take the object if it were new; nothing is stored.

        Raises:
            Invalid: it would not.
        """
        body = child.body or {}
        unused = {**body, "metadata": {**body["metadata"], "name": f"{child.name}-new"}}
        await self._cluster.apply(child.kind, unused, dry_run=True)

    async def _gone(self, child: Child, uid: str) -> None:
        """Wait until the garbage collector has let the children go and the object with them."""
        deadline = self._now() + GONE_SECONDS
        while self._now() < deadline:
            stored = await self._stored(child)
            if stored is None or stored["metadata"]["uid"] != uid:
                return
            await asyncio.sleep(POLL_SECONDS)
        raise Unavailable(
            0, f"{child.kind.kind} {child.name} is being deleted and still there: it is made anew later"
        )

    async def _hand_over_replicas(self, child: Child, found: ChildFacts) -> None:
        """Keep the number of pods when it stops being ours: a field that nobody owns falls back to its default, 1."""
        await self._cluster.apply(
            child.kind,
            {
                "apiVersion": child.kind.api_version,
                "kind": child.kind.kind,
                "metadata": {"name": child.name, "namespace": child.namespace, "uid": found.uid},
                "spec": {"replicas": found.wanted},
            },
            manager=HANDOVER_MANAGER,
        )

    def _count(self, child: Child, result: Result, *, drifted: bool) -> None:
        self._metrics.children.labels(child.kind.kind, result).inc()
        if drifted:
            self._metrics.drift_repaired.labels(child.kind.kind).inc()


def _only(body: Object, uid: str) -> Object:
    """`body` for the object of that uid, and for no other that may have its name by now."""
    return {**body, "metadata": {**body["metadata"], "uid": uid}}


def _leaves_replicas(child: Child) -> bool:
    return child.kind is STATEFUL_SET and "replicas" not in (child.body or {})["spec"]
