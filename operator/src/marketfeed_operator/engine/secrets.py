"""Versions of the Secrets that pods read at their start, so that a new one restarts them. Never their content.

They are asked for one by one and by name, because the right to ``get`` a Secret by name is the least that Kubernetes
can give: ``list`` and ``watch`` would hand over all of a namespace.
"""

from collections.abc import Awaitable, Callable, Set

from marketfeed_chassis import logs
from marketfeed_operator.cluster import Cluster
from marketfeed_operator.errors import ApiError, Forbidden, NotFound
from marketfeed_operator.kinds import SECRET
from marketfeed_operator.observed import Key

log = logs.get(__name__)

SecretKey = tuple[str, str]
"""Namespace and name of a Secret."""


class SecretVersions:
    """The newest version of each Secret that a feed's pods read.

    Args:
        changed: is told of each feed whose Secret has another version than before.
    """

    def __init__(self, cluster: Cluster, changed: Callable[[Key], Awaitable[None]]) -> None:
        self._cluster = cluster
        self._changed = changed
        self._needed: dict[Key, frozenset[SecretKey]] = {}
        self._known: dict[SecretKey, str | None] = {}
        self._refused: set[SecretKey] = set()

    async def of(self, feed: Key, names: Set[str]) -> dict[str, str]:
        """Name -> version, of those that are there and may be looked at; asked now where that was never done.

        Raises:
            ApiError: the API server does not answer.
        """
        self._needed[feed] = frozenset((feed[0], name) for name in names)
        for secret in sorted(self._needed[feed] - self._known.keys()):
            self._known[secret] = await self._ask(secret)
        return {
            name: version
            for namespace, name in self._needed[feed]
            if (version := self._known[namespace, name]) is not None
        }

    def forget(self, feed: Key) -> None:
        """The feed is gone."""
        self._needed.pop(feed, None)

    async def ask_all(self) -> None:
        """Ask for all of them once; one that is gone for a while, or not told, has not changed.

        Raises:
            ApiError: the API server does not answer; the others were asked for.
        """
        failure: ApiError | None = None
        needed = frozenset[SecretKey]().union(*self._needed.values())
        self._known = {secret: version for secret, version in self._known.items() if secret in needed}
        for secret in sorted(needed):
            try:
                version = await self._ask(secret)
            except ApiError as error:
                failure = failure or error
                continue
            if version is None or version == self._known.get(secret):
                continue
            self._known[secret] = version
            log.info("a Secret has another version", secret="/".join(secret))
            for feed in [feed for feed, wanted in self._needed.items() if secret in wanted]:
                await self._changed(feed)
        if failure is not None:
            raise failure

    async def _ask(self, secret: SecretKey) -> str | None:
        try:
            metadata = await self._cluster.metadata(SECRET, *secret)
        except NotFound:  # its pods wait for it, and say so
            return None
        except Forbidden as error:
            if secret not in self._refused:
                log.warning(
                    "a change of this Secret will restart nothing", secret="/".join(secret), reason=str(error)
                )
            self._refused.add(secret)
            return None
        self._refused.discard(secret)
        return str(metadata["resourceVersion"])
