"""Write the status, metrics and Events of a feed when they have changed."""

from dataclasses import replace
from typing import Any

from marketfeed_operator.api import Status
from marketfeed_operator.cluster import FEEDS, Cluster
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import Conflict, Forbidden, Invalid, NotFound
from marketfeed_operator.observed import FeedFacts
from marketfeed_operator.store import Store
from marketfeed_service import logs

log = logs.get(__name__)


class StatusWriter:
    """Writes statuses.

    Args:
        identity: name of this process in Events.
    """

    def __init__(self, cluster: Cluster, store: Store, metrics: Metrics, identity: str) -> None:
        self._cluster = cluster
        self._store = store
        self._metrics = metrics
        self._identity = identity

    async def write(self, facts: FeedFacts, status: Status) -> None:
        """Write the status if it has changed, and an Event for each condition with a new status or reason.

        Raises:
            ApiError: the API server refused or did not respond.
        """
        ready, paused = status.conditions[0], status.conditions[3]
        self._metrics.feed_ready.labels(*facts.key).set(ready.status == "True")
        self._metrics.feed_paused.labels(*facts.key).set(paused.status == "True")
        new_status = status.model_dump(by_alias=True, exclude_none=True, mode="json")
        if new_status == dict(facts.status):
            return
        path = FEEDS.path(facts.namespace, facts.name)
        body = {"metadata": {"uid": facts.uid}, "status": _with_removals(new_status, facts.status)}
        stored = await self._cluster.merge(f"{path}/status", body)
        self._store.feeds[facts.key] = replace(
            self._store.feeds.get(facts.key, facts),
            status=stored.get("status", {}),
            resource_version=stored["metadata"]["resourceVersion"],
        )
        for condition in transitions(facts.status, new_status):
            bad = condition["type"] == "Degraded" and condition["status"] == "True"
            await self._post_event(facts, condition, warning=bad)

    async def _post_event(self, facts: FeedFacts, condition: dict[str, Any], *, warning: bool) -> None:
        feed = {
            "namespace": facts.namespace,
            "name": facts.name,
            "uid": facts.uid,
            "resourceVersion": facts.resource_version,
        }
        try:
            await self._cluster.event(
                feed,
                warning=warning,
                reason=condition["reason"],
                message=f"{condition['type']} is {condition['status']}: {condition['message']}",
                instance=self._identity,
            )
        except (
            Conflict,
            NotFound,
            Forbidden,
            Invalid,
        ) as error:  # the namespace is being deleted; the status has the same information
            log.warning("event not created", feed=f"{facts.namespace}/{facts.name}", reason=str(error))


def transitions(before: Any, after: Any) -> list[dict[str, Any]]:
    """Return the conditions with a new status or reason; an initial Progressing or healthy state is left out."""
    known = {found["type"]: found for found in before.get("conditions", [])}
    return [
        condition
        for condition in after["conditions"]
        if (old := known.get(condition["type"], {})).get("status", "False") != condition["status"]
        or (condition["status"] == "True" and old.get("reason") != condition["reason"])
    ]


def _with_removals(new_status: dict[str, Any], stored: Any) -> dict[str, Any]:
    """Return a merge patch that also removes the stored fields that are not desired."""
    patch: dict[str, Any] = dict.fromkeys(stored.keys() - new_status.keys())
    for key, value in new_status.items():
        before = stored.get(key)
        patch[key] = (
            _with_removals(value, before) if isinstance(value, dict) and isinstance(before, dict) else value
        )
    return patch
