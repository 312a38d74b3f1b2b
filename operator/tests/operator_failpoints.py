"""API server client with failpoints, so that a race is the same in every run."""

from collections.abc import Awaitable, Callable
from typing import Any

from marketfeed_operator.cluster import Cluster
from marketfeed_operator.errors import NotFound


class Failpoints(Cluster):
    """Runs a callback right after a read of a missing object, or before an apply."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster._client, cluster._metrics)
        self.before_get: Callable[[], None] | None = None
        self.after_not_found: Callable[[str], Awaitable[None]] | None = None
        self.before_apply: Callable[[], None] | None = None

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        if self.before_get is not None:
            self.before_get()
        try:
            return await super().get(path, **query)
        except NotFound:
            if self.after_not_found is not None:
                await self.after_not_found(path)
            raise

    async def apply(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        if self.before_apply is not None:
            self.before_apply()
        return await super().apply(*arguments, **named)
