"""Resource versions of the Secrets that pods read at startup, so that a change rolls them. Never their content.

They are requested individually by name: ``get`` on named Secrets is the least permission in Kubernetes; ``list`` and
``watch`` would grant all Secrets of a namespace.
"""

from collections.abc import Awaitable, Callable, Set

from marketfeed_operator.cluster import Cluster
from marketfeed_operator.errors import ApiError, Forbidden, NotFound
from marketfeed_operator.kinds import SECRET
from marketfeed_operator.observed import Key
from marketfeed_service import logs

log = logs.get(__name__)

SecretKey = tuple[str, str]
"""Namespace and name of a Secret."""


class SecretVersions:
    """Latest version of each Secret that a feed's pods use.

    Args:
        changed: called for each feed when a Secret of it has a new version.
    """

    def __init__(self, cluster: Cluster, changed: Callable[[Key], Awaitable[None]]) -> None:
        self._cluster = cluster
        self._changed = changed
        self._needed: dict[Key, frozenset[SecretKey]] = {}
        self._known: dict[SecretKey, str | None] = {}
        self._unreadable: set[SecretKey] = set()

    async def of(self, feed: Key, names: Set[str]) -> dict[str, str]:
        """Return name -> version of the Secrets that exist and may be read; those not read before are requested now.

        Raises:
            ApiError: the API server did not respond.
        """
        self._needed[feed] = frozenset((feed[0], name) for name in names)
        for secret in sorted(self._needed[feed] - self._known.keys()):
            self._known[secret] = await self._request(secret)
        return {
            name: version
            for namespace, name in self._needed[feed]
            if (version := self._known[namespace, name]) is not None
        }

    def forget(self, feed: Key) -> None:
        """Drop the Secrets of a deleted feed."""
        self._needed.pop(feed, None)

    async def refresh(self) -> None:
        """Request all versions once; a Secret that is missing or not readable counts as unchanged.

        Raises:
            ApiError: the API server did not respond for some; the others were requested.
        """
        failure: ApiError | None = None
        needed = frozenset[SecretKey]().union(*self._needed.values())
        self._known = {secret: version for secret, version in self._known.items() if secret in needed}
        for secret in sorted(needed):
            try:
                version = await self._request(secret)
            except ApiError as error:
                failure = failure or error
                continue
            if version is None or version == self._known.get(secret):
                continue
            self._known[secret] = version
            log.info("Secret changed", secret="/".join(secret))
            for feed in [feed for feed, secrets in self._needed.items() if secret in secrets]:
                await self._changed(feed)
        if failure is not None:
            raise failure

    async def _request(self, secret: SecretKey) -> str | None:
        try:
            metadata = await self._cluster.metadata(SECRET, *secret)
        except NotFound:  # reported by its pods, which wait for it
            return None
        except Forbidden as error:
            if secret not in self._unreadable:
                log.warning(
                    "Secret not readable: its changes restart no pods",
                    secret="/".join(secret),
                    reason=str(error),
                )
            self._unreadable.add(secret)
            return None
        self._unreadable.discard(secret)
        return str(metadata["resourceVersion"])
