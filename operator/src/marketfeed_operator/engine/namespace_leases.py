"""Ownership of namespaces when several operators are installed in a cluster: a Lease in each namespace with feeds.

    holder is this installation       its feeds are served; competing installations are reported on them
    holder is another installation    nothing in the namespace is changed, and this installation is recorded in an
                                      annotation of the Lease, so that the holder can report it

Two operators serving one namespace would each correct the other's changes as drift, endlessly. The processes of one
installation elect a leader among themselves (see `leader`); for the namespace lease they are one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from marketfeed_operator.cluster import Cluster
from marketfeed_operator.engine.leader import LEASES
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import ApiError, Conflict, Forbidden, NotFound
from marketfeed_operator.names import GROUP
from marketfeed_operator.text import api_time_now, printable
from marketfeed_service import logs

log = logs.get(__name__)

NAME: Final = "marketfeed-scope"
OTHER: Final = f"{GROUP}/other-operator"
"""Annotation of the Lease: the installation that competes with the holder, and the time of its last attempt."""
DURATION_SECONDS: Final = 90.0
RENEW_SECONDS: Final = 30.0
ATTEMPTS: Final = 3
"""Attempts on a conflict before the feed is retried later."""


@dataclass
class _Seen:
    """Last seen state of a namespace lease, and the local time of its last change.

    Attributes:
        holder: the other installation that serves the namespace; "" when it is this one or unknown.
    """

    holder: str = ""
    renewed: str = ""
    renewed_at: float = 0.0
    other: str = ""
    other_at: float = 0.0


class NamespaceLeases:
    """Namespace leases of this installation.

    Args:
        installation: identity of this installation: namespace and name of its leader lease.
        now: monotonic clock, in seconds.

    Attributes:
        problems: namespace -> why it was not renewed the last time, for example an admission policy.
    """

    def __init__(
        self, cluster: Cluster, metrics: Metrics, installation: str, *, now: Callable[[], float]
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._installation = installation
        self._now = now
        self._seen: dict[str, _Seen] = {}
        self.problems: dict[str, str] = {}

    async def holder(self, namespace: str) -> str:
        """Return the other installation that serves the namespace; "" when this one does.

        Raises:
            ApiError: the API server did not respond.
        """
        if namespace not in self._seen:
            await self._acquire(namespace)
        return self._seen[namespace].holder

    def other(self, namespace: str) -> str:
        """Return an installation that recently competed for a namespace of ours; "" for none."""
        seen = self._seen.get(namespace)
        if seen is None or not seen.other or self._now() - seen.other_at > DURATION_SECONDS:
            return ""
        return seen.other.partition(" ")[0]

    def others(self) -> list[str]:
        """Return all other known installations. Thread-safe."""
        found = {seen.holder for seen in list(self._seen.values())}
        return sorted(
            (found | {self.other(namespace) for namespace in list(self._seen)}) - {"", self._installation}
        )

    async def renew_all(self, served: set[str]) -> None:
        """Renew the leases of namespaces that have feeds, and drop the state of the others.

        Raises:
            ApiError: the API server did not respond for any of them.
        """
        failure: ApiError | None = None
        for namespace in self._seen.keys() - served:
            del self._seen[namespace]
        before, self.problems = self.problems, {}
        for namespace in sorted(served):
            try:
                await self._acquire(namespace)
            except ApiError as error:
                failure = failure or error
                self.problems[namespace] = printable(f"{error}", 300)
        self._metrics.other_operators.set(len(self.others()))
        if failure is not None and len(self.problems) == len(served):
            raise failure
        for namespace in self.problems.keys() - before.keys():
            reason = self.problems[namespace]
            log.warning("namespace lease not renewed", namespace=namespace, reason=reason)
        for namespace in (before.keys() - self.problems.keys()) & served:
            log.info("namespace lease renewed again", namespace=namespace)

    async def _acquire(self, namespace: str) -> None:
        """Acquire or renew the lease of a namespace if possible; otherwise record this installation in it."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._try_acquire(namespace)
            except Conflict:  # changed in between: read it again
                if attempt == ATTEMPTS:
                    raise
                continue
            except (Forbidden, NotFound):
                # Roles of an older release, or a namespace being deleted: served without a lease, as by older
                # releases.
                self._seen[namespace] = _Seen()
            return

    async def _try_acquire(self, namespace: str) -> None:
        before = self._seen.get(namespace)
        seen = replace(before) if before is not None else _Seen(renewed_at=self._now())
        lease = await self._lease(namespace)
        ours = self._update(seen, lease)
        await self._cluster.replace(LEASES.path(namespace, NAME), self._renewed(lease, ours=ours))
        self._report(namespace, before, seen, ours=ours)
        self._seen[namespace] = seen

    def _update(self, seen: _Seen, lease: dict[str, Any]) -> bool:
        """Update `seen` from the Lease. Return whether it is held by this installation, or may be acquired."""
        spec = lease.get("spec") or {}
        holder, renewed = spec.get("holderIdentity") or "", f"{spec.get('renewTime')}"
        other = str((lease["metadata"].get("annotations") or {}).get(OTHER, ""))
        now = self._now()
        if renewed != seen.renewed:
            seen.renewed, seen.renewed_at = renewed, now
        if other != seen.other:
            seen.other, seen.other_at = printable(other, 300), now
        ours = holder in ("", self._installation) or now - seen.renewed_at > DURATION_SECONDS
        seen.holder = "" if ours else printable(holder, 200)
        return ours

    def _renewed(self, lease: dict[str, Any], *, ours: bool) -> dict[str, Any]:
        moment = api_time_now()
        if ours:
            spec = {
                **(lease.get("spec") or {}),
                "holderIdentity": self._installation,
                "leaseDurationSeconds": round(DURATION_SECONDS),
                "renewTime": moment,
            }
            return {**lease, "spec": spec}
        metadata = lease["metadata"]
        annotations = {**(metadata.get("annotations") or {}), OTHER: f"{self._installation} {moment}"}
        return {**lease, "metadata": {**metadata, "annotations": annotations}}

    async def _lease(self, namespace: str) -> dict[str, Any]:
        try:
            return await self._cluster.get(LEASES.path(namespace, NAME))
        except NotFound:
            body = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": NAME, "namespace": namespace},
                "spec": {"leaseTransitions": 0},
            }
            return await self._cluster.create(LEASES.path(namespace), body)

    def _report(self, namespace: str, before: _Seen | None, seen: _Seen, *, ours: bool) -> None:
        held_before = before.holder if before is not None else ""
        if seen.holder and seen.holder != held_before:
            log.warning("namespace served by another operator", namespace=namespace, operator=seen.holder)
        elif ours and held_before:
            log.info("namespace acquired from another operator", namespace=namespace)
