"""Leader election by a Lease: one process acts, the others wait; one that ends hands over at once.

The rules are those of client-go's leaderelection: a Lease belongs to its holder until nobody has seen it change for
its duration, by the observer's own clock; the holder stops acting before that.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from marketfeed_chassis import logs
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.errors import ApiError, Conflict, NotFound
from marketfeed_operator.kinds import Kind
from marketfeed_operator.names import GROUP
from marketfeed_operator.text import printable

log = logs.get(__name__)

LEASES: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")


SERVES: Final = f"{GROUP}/serves"
"""Annotation of the Lease: the namespaces that its holder serves."""


class LeaderElection:
    """A candidate for a Lease.

    Args:
        lease_seconds: how long a silent holder keeps the Lease.
        retry_seconds: how often the Lease is looked at, or renewed.
        serves: what a leader of this installation serves; a leader that serves something else is another installation
            in the same namespace, and one of the two serves nobody.
        now: a clock in seconds that never goes back.

    Attributes:
        misplaced: what the leader serves, where that is something else than this process would; "" else.
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
        """The Lease's version when it last changed, and our clock then."""
        self.leading = False
        self.last_contact = now()
        """Our clock when the API server last answered."""

    async def acquire(self) -> None:
        """Return once the Lease is ours."""
        told = ""
        while not self.leading:
            holder = await self._try()
            if holder not in ("", self._identity, told):
                log.info("another operator leads", leader=holder)
                told = holder
                if self.misplaced:
                    log.warning(
                        "another installation leads in this namespace, and nobody serves what this one would",
                        leader=holder, serves=self.misplaced, would_serve=self._serves,
                    )  # fmt: skip
            if not self.leading:
                await asyncio.sleep(self._retry_seconds)
        log.info("leading", identity=self._identity)

    async def hold(self) -> None:
        """Renew the Lease; return when it is lost: then nothing may be changed any more."""
        renewed = self._now()
        # Whoever waits starts when it has seen no change for the whole duration; we stop well before.
        deadline = self._lease_seconds * 2 / 3
        while self._now() - renewed < deadline:
            await asyncio.sleep(self._retry_seconds)
            try:
                async with asyncio.timeout(max(0.1, deadline - (self._now() - renewed))):
                    holder = await self._try()
            except TimeoutError:
                continue
            if holder == self._identity:
                renewed = self._now()
            elif holder:
                log.error("the lease went to another operator", leader=holder)
                break
        self.leading = False

    async def release(self) -> None:
        """Give the Lease up, so that another may lead at once."""
        self.leading = False
        try:
            lease = await self._cluster.get(self._path)
            if _spec(lease).get("holderIdentity") != self._identity:
                return
            # A duration of a second, as client-go does, for those that look at nothing but times.
            lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _moment()}
            await self._cluster.replace(self._path, lease)
        except ApiError as error:
            log.warning("the lease could not be released; it runs out by itself", reason=str(error))
        else:
            log.info("lease released")

    async def _try(self) -> str:
        """Take or renew the Lease if we may; its holder then, "" when that is not known."""
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
                self._path, self._ours(lease, changed=holder != self._identity)
            )
        except Conflict:  # somebody was faster; the next look says who
            return ""
        except ApiError as error:
            log.warning("the lease cannot be read or renewed", reason=str(error))
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

    def _ours(self, lease: dict[str, Any], *, changed: bool) -> dict[str, Any]:
        spec = _spec(lease)
        moment = _moment()
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
    """What a Lease says; one that somebody has made may have no spec."""
    return lease.get("spec") or {}


def _moment() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
