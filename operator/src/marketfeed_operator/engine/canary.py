"""The canary: a MarketFeed without children that is changed now and then, to see the change come through.

That an HTTP port answers proves nothing of watches and queue; a beat that went through the API server, the watch
and the queue proves all of them. ``/livez`` fails when it is late.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from marketfeed_chassis import logs
from marketfeed_chassis.health import Verdict
from marketfeed_operator.api import Condition, Status
from marketfeed_operator.cluster import FEEDS, Cluster
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import ApiError
from marketfeed_operator.names import API_VERSION, CANARY, CANARY_BEAT, KIND
from marketfeed_operator.observed import FeedFacts

log = logs.get(__name__)

NAME: Final = "marketfeed-canary"
FIELD_MANAGER: Final = "marketfeed-canary"


class Canary:
    """Sends beats and sees them come back.

    Args:
        now: a clock in seconds that never goes back.
    """

    def __init__(
        self,
        cluster: Cluster,
        metrics: Metrics,
        *,
        namespace: str,
        identity: str,
        deadline_seconds: float,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._namespace = namespace
        self._identity = identity
        self._deadline_seconds = deadline_seconds
        self._now = now
        self._wall = wall
        self._number = 0
        self._last_seen: float | None = None

    def start(self) -> None:
        """From now on a beat has to come back within the deadline."""
        self._last_seen = self._now()

    def stop(self) -> None:
        """No beat is expected any more."""
        self._last_seen = None

    def is_ours(self, feed: FeedFacts) -> bool:
        """Whether a MarketFeed is this operator's canary, and so has no children."""
        return feed.canary_beat is not None and feed.key == (self._namespace, NAME)

    def seen(self, feed: FeedFacts) -> None:
        """A canary came out of the queue."""
        if (feed.canary_beat or "").startswith(f"{self._identity}/") and self._last_seen is not None:
            self._last_seen = self._now()
            self._metrics.canary_beat.set(self._wall())

    def verdict(self) -> Verdict:
        """Whether the last beat came back in time; always, while none is expected."""
        if self._last_seen is None:
            return Verdict(True)
        late = self._now() - self._last_seen
        if late <= self._deadline_seconds:
            return Verdict(True)
        return Verdict(
            False, f"the canary MarketFeed was last reconciled {late:.0f} s ago: watch or queue stand still"
        )

    async def run(self, interval_seconds: float) -> None:
        """Send a beat, again and again."""
        while True:
            self._number += 1
            try:
                stored = await self._cluster.apply(FEEDS, self._body(), manager=FIELD_MANAGER)
                if not (stored.get("status") or {}).get("conditions"):
                    await self._introduce()
            except ApiError as error:
                log.warning("the canary cannot be changed", reason=str(error))
            await asyncio.sleep(interval_seconds)

    async def _introduce(self) -> None:
        """Say once what it is, to whoever lists MarketFeeds and wonders."""
        ready = Condition(
            type="Ready",
            status="True",
            reason="Canary",
            message="the operator's own: changed now and then, to see that changes come through; it has no children",
            last_transition_time=datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            observed_generation=1,
        )
        status = Status(conditions=(ready,)).model_dump(by_alias=True, exclude_none=True, mode="json")
        await self._cluster.merge(f"{FEEDS.path(self._namespace, NAME)}/status", {"status": status})

    def _body(self) -> dict[str, object]:
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": NAME,
                "namespace": self._namespace,
                "labels": {CANARY: "true"},
                "annotations": {CANARY_BEAT: f"{self._identity}/{self._number}"},
            },
            # As small a feed as the schema takes; paused, should an operator without canaries ever see it.
            "spec": {
                "venue": "binance_us",
                "symbols": ["CANARY"],
                "kafka": {"bootstrapServers": "canary:9092"},
                "paused": True,
            },
        }
