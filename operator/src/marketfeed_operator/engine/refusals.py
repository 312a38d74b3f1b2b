"""Refused pod creations of StatefulSets and Jobs, which their controllers report only as Events.

A Deployment has a condition for it (ReplicaFailure). The latest Event is requested only while pods are missing.
"""

from collections.abc import Awaitable, Callable, Iterable

from marketfeed_operator.api_requests import Object
from marketfeed_operator.cluster import EVENTS, Cluster
from marketfeed_operator.errors import ApiError, Forbidden, NotFound
from marketfeed_operator.kinds import CRON_JOB, JOB, STATEFUL_SET
from marketfeed_operator.observed import ChildFacts, Key
from marketfeed_operator.store import Store
from marketfeed_operator.trouble import Trouble, refusal
from marketfeed_service import logs

log = logs.get(__name__)

FAILED_CREATE = "FailedCreate"
NEWEST = 20


class Refusals:
    """Latest refusal for each workload with missing pods.

    Args:
        changed: called for a feed when a refusal is new or resolved.

    Attributes:
        by_uid: uid of a StatefulSet or Job -> reason of the refusal.
    """

    def __init__(self, cluster: Cluster, store: Store, changed: Callable[[Key], Awaitable[None]]) -> None:
        self._cluster = cluster
        self._store = store
        self._changed = changed
        self.by_uid: dict[str, Trouble] = {}

    async def refresh(self) -> None:
        """Read the latest Event of each workload with missing pods.

        Raises:
            ApiError: the API server did not respond for some; the others were read.
        """
        failure: ApiError | None = None
        missing = {facts.uid: facts for facts in _missing(self._store.all_children())}
        for uid in self.by_uid.keys() - missing.keys():
            del self.by_uid[uid]  # its status changed, which triggers the feed
        for facts in missing.values():
            try:
                found = await self._newest(facts)
            except ApiError as error:
                failure = failure or error
                continue
            if found != self.by_uid.get(facts.uid):
                if found is None:
                    del self.by_uid[facts.uid]
                else:
                    self.by_uid[facts.uid] = found
                await self._changed(facts.feed)
        if failure is not None:
            raise failure

    async def _newest(self, facts: ChildFacts) -> Trouble | None:
        selector = f"involvedObject.uid={facts.uid},reason={FAILED_CREATE}"
        try:
            page = await self._cluster.page(
                EVENTS.path(facts.key[1]), _time_and_message, limit=NEWEST, field_selector=selector
            )
        except (Forbidden, NotFound):  # roles of an older release, or the namespace is being deleted
            return None
        if not page.items:
            return None
        _, message = max(page.items, key=lambda event: event[0])
        return refusal(message)


def _time_and_message(event: Object) -> tuple[str, str]:
    """Return the time of an Event and its message."""
    return event.get("lastTimestamp") or event.get("eventTime") or "", str(event.get("message", ""))


def _missing(children: Iterable[ChildFacts]) -> list[ChildFacts]:
    """Return the workloads with fewer pods than desired; of Jobs those that have none.

    Retention Jobs are created by Kubernetes from a CronJob of ours.
    """
    known = list(children)
    crons = {facts.uid for facts in known if facts.key[0] == CRON_JOB.kind and facts.ours}
    return [
        facts
        for facts in known
        if (facts.ours or facts.owner in crons)
        and (
            (facts.key[0] == STATEFUL_SET.kind and facts.current < facts.desired)
            or (facts.key[0] == JOB.kind and facts.job == "Running" and not facts.current)
        )
    ]
