"""Leader election by a Lease: one process leads, the others are standbys; on shutdown the lease is released at once.

The rules are those of client-go's leaderelection: a Lease belongs to its holder until it is unchanged for its
duration by the observer's clock; the holder stops before that.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from marketfeed_operator.cluster import Cluster
from marketfeed_operator.errors import ApiError, Conflict, NotFound
from marketfeed_operator.kinds import Kind
from marketfeed_operator.names import GROUP
from marketfeed_operator.text import api_time_now, printable
from marketfeed_service import logs

log = logs.get(__name__)

LEASES: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")


SERVES: Final = f"{GROUP}/serves"
"""Annotation of the Lease: namespaces that its holder serves."""


class LeaderElection:
    """Candidate for a Lease.

    Args:
        lease_seconds: time after which the lease of an unresponsive holder expires.
        retry_seconds: interval at which the lease is renewed or acquired.
        serves: scope of this installation; a leader with another scope belongs to another installation in the same
            namespace, and one of the two is never active.
        now: monotonic clock, in seconds.

    Attributes:
        misplaced: scope of the leader when it differs from this one's; otherwise "".
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        lease_seconds: float,
        retry_seconds: float,
        serves: str = "",
        now: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._path = LEASES.path(namespace, name)
        self._collection = LEASES.path(namespace)
        self._metadata = {"name": name, "namespace": namespace}
        self._identity = identity
        self._lease_seconds = lease_seconds
        self._retry_seconds = retry_seconds
        self._serves = serves
        self._now = now
        self.misplaced = ""
        self._seen: tuple[str, float] = ("", now())
        """Resource version of the Lease at its last change, and the local time of that."""
        self.leading = False
        self.last_contact = now()
        """Local time of the last response of the API server."""

    async def acquire(self) -> None:
        """Return when the lease is acquired."""
        reported = ""
        while not self.leading:
            holder = await self._try_acquire_or_renew()
            if holder not in ("", self._identity, reported):
                log.info("another operator is the leader", leader=holder)
                reported = holder
                if self.misplaced:
                    log.warning(
                        "another installation leads in this namespace, and the scope of this one is not "
                        "served",
                        leader=holder, serves=self.misplaced, would_serve=self._serves,
                    )  # fmt: skip
            if not self.leading:
                await asyncio.sleep(self._retry_seconds)
        log.info("leading", identity=self._identity)

    async def hold(self) -> None:
        """Renew the lease; return when it is lost: nothing may be changed after that."""
        renewed = self._now()
        # A standby acquires it after a full duration without change; stop well before.
        deadline = self._lease_seconds * 2 / 3
        while self._now() - renewed < deadline:
            await asyncio.sleep(self._retry_seconds)
            try:
                async with asyncio.timeout(max(0.1, deadline - (self._now() - renewed))):
                    holder = await self._try_acquire_or_renew()
            except TimeoutError:
                continue
            if holder == self._identity:
                renewed = self._now()
            elif holder:
                log.error("leader lease lost to another operator", leader=holder)
                break
        self.leading = False

    async def release(self) -> None:
        """Release the lease, so that a standby leads at once."""
        self.leading = False
        try:
            lease = await self._cluster.get(self._path)
            if _spec(lease).get("holderIdentity") != self._identity:
                return
            # A duration of one second, as client-go does, for observers that check only times.
            lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": api_time_now()}
            await self._cluster.replace(self._path, lease)
        except ApiError as error:
            log.warning("leader lease not released; it expires by itself", reason=str(error))
        else:
            log.info("leader lease released")

    async def _try_acquire_or_renew(self) -> str:
        """Acquire or renew the lease if possible. Return its holder, or "" when it is unknown."""
        try:
            lease = await self._read()
            self.last_contact = self._now()
            spec = _spec(lease)
            holder = spec.get("holderIdentity") or ""
            version = lease["metadata"]["resourceVersion"]
            if version != self._seen[0]:
                self._seen = (version, self._now())
            served = (lease["metadata"].get("annotations") or {}).get(SERVES, self._serves)
            led = holder not in ("", self._identity)
            self.misplaced = printable(served, 200) if led and served != self._serves else ""
            ran_out = self._now() - self._seen[1] >= (spec.get("leaseDurationSeconds") or self._lease_seconds)
            if holder and holder != self._identity and not ran_out:
                self.leading = False
                return holder
            taken = await self._cluster.replace(
                self._path, self._renewed(lease, changed=holder != self._identity)
            )
        except Conflict:  # changed in between; the next attempt reads the holder
            return ""
        except ApiError as error:
            log.warning("leader lease not renewed", reason=str(error))
            return ""
        self._seen = (taken["metadata"]["resourceVersion"], self._now())
        self.leading, self.misplaced = True, ""
        return self._identity

    async def _read(self) -> dict[str, Any]:
        try:
            return await self._cluster.get(self._path)
        except NotFound:
            return await self._cluster.create(
                self._collection,
                {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": self._metadata,
                    "spec": {"leaseTransitions": 0},
                },
            )

    def _renewed(self, lease: dict[str, Any], *, changed: bool) -> dict[str, Any]:
        spec = _spec(lease)
        moment = api_time_now()
        metadata = lease["metadata"]
        return {
            **lease,
            "metadata": {
                **metadata,
                "annotations": {**(metadata.get("annotations") or {}), SERVES: self._serves},
            },
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._lease_seconds)),
                "acquireTime": moment if changed else spec.get("acquireTime", moment),
                "renewTime": moment,
                "leaseTransitions": (spec.get("leaseTransitions") or 0) + int(changed),
            },
        }


def _spec(lease: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of a Lease; one that was created by a user may have none."""
    return lease.get("spec") or {}
