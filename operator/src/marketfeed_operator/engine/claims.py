"""Which operator serves a namespace, where several are installed in one cluster: a Lease in each namespace with feeds.

    holder      this installation: its feeds are served; others that came by are reported on them
    holder      another installation that renews it: nothing of the namespace is touched, and our presence is noted in
                the Lease, so that the holder can say so

Two operators that served one namespace would each take the other's changes for drift and put them back, without end.
The processes of one installation elect a leader among themselves (see `leader`); to a claim they are one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from marketfeed_chassis import logs
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.engine.leader import LEASES
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import ApiError, Conflict, Forbidden, NotFound
from marketfeed_operator.names import GROUP
from marketfeed_operator.text import printable

log = logs.get(__name__)

NAME: Final = "marketfeed-scope"
OTHER: Final = f"{GROUP}/other-operator"
"""Annotation of the Lease: the installation that does not hold it and would serve the namespace too, and when."""
DURATION_SECONDS: Final = 90.0
RENEW_SECONDS: Final = 30.0
ATTEMPTS: Final = 3
"""Looks at a Lease that others write to at the same time, before the feed is tried again later."""


@dataclass
class _Seen:
    """What a claim looked like, and our clock when it last changed.

    Attributes:
        holder: installation that serves the namespace; "" when it is this one, or when nobody can be asked.
    """

    holder: str = ""
    renewed: str = ""
    renewed_at: float = 0.0
    other: str = ""
    other_at: float = 0.0


class Claims:
    """This installation's claims on namespaces.

    Args:
        installation: what this operator is called among others: namespace and name of its own Lease.
        now: a clock in seconds that never goes back.

    Attributes:
        problems: namespace -> why its claim was not renewed the last time; an admission policy of it, for example.
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
        """The other installation that serves the namespace; "" when this one does.

        Raises:
            ApiError: the API server does not answer.
        """
        if namespace not in self._seen:
            await self._look(namespace)
        return self._seen[namespace].holder

    def other(self, namespace: str) -> str:
        """An installation that would serve a namespace of ours too, and has said so lately; "" for none."""
        seen = self._seen.get(namespace)
        if seen is None or not seen.other or self._now() - seen.other_at > DURATION_SECONDS:
            return ""
        return seen.other.partition(" ")[0]

    def others(self) -> list[str]:
        """Every other installation that is in sight. May be asked for from another thread."""
        found = {seen.holder for seen in list(self._seen.values())}
        return sorted(
            (found | {self.other(namespace) for namespace in list(self._seen)}) - {"", self._installation}
        )

    async def renew_all(self, served: set[str]) -> None:
        """Renew the claims on namespaces that have feeds, and forget the others.

        Raises:
            ApiError: the API server does not answer for any of them.
        """
        failure: ApiError | None = None
        for namespace in self._seen.keys() - served:
            del self._seen[namespace]
        before, self.problems = self.problems, {}
        for namespace in sorted(served):
            try:
                await self._look(namespace)
            except ApiError as error:
                failure = failure or error
                self.problems[namespace] = printable(f"{error}", 300)
        self._metrics.other_operators.set(len(self.others()))
        if failure is not None and len(self.problems) == len(served):
            raise failure
        for namespace in self.problems.keys() - before.keys():
            reason = self.problems[namespace]
            log.warning("claim not renewed", namespace=namespace, reason=reason)
        for namespace in (before.keys() - self.problems.keys()) & served:
            log.info("claim renewed again", namespace=namespace)

    async def _look(self, namespace: str) -> None:
        """Take or renew the claim on a namespace if we may; else note in it that we are there."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._look_once(namespace)
            except Conflict:  # somebody was faster: see who
                if attempt == ATTEMPTS:
                    raise
                continue
            except (Forbidden, NotFound):
                # Roles of an older installation, or a namespace on its way out: served as before there were claims.
                self._seen[namespace] = _Seen()
            return

    async def _look_once(self, namespace: str) -> None:
        before = self._seen.get(namespace)
        seen = replace(before) if before is not None else _Seen(renewed_at=self._now())
        lease = await self._lease(namespace)
        ours = self._follow(seen, lease)
        await self._cluster.replace(LEASES.path(namespace, NAME), self._written(lease, ours=ours))
        self._report(namespace, before, seen, ours=ours)
        self._seen[namespace] = seen

    def _follow(self, seen: _Seen, lease: dict[str, Any]) -> bool:
        """Take in what the Lease says; whether it is ours, or may be taken."""
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

    def _written(self, lease: dict[str, Any], *, ours: bool) -> dict[str, Any]:
        moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
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
            log.info("namespace taken over from another operator", namespace=namespace)
