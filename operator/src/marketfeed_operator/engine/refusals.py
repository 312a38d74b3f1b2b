"""Why the pods of a StatefulSet or a Job are not even created: its controller says so in Events, and nowhere else.

A Deployment has a condition for it (ReplicaFailure); these two kinds have none. Their newest Event is asked for only
while pods are missing.
"""

from collections.abc import Awaitable, Callable, Iterable

from marketfeed_chassis import logs
from marketfeed_operator.cluster import EVENTS, Cluster, Object
from marketfeed_operator.errors import ApiError, Forbidden, NotFound
from marketfeed_operator.kinds import CRON_JOB, JOB, STATEFUL_SET
from marketfeed_operator.observed import ChildFacts, Key
from marketfeed_operator.store import Store
from marketfeed_operator.trouble import Trouble, refusal

log = logs.get(__name__)

FAILED_CREATE = "FailedCreate"
NEWEST = 20


class Refusals:
    """The newest refusal for each workload whose pods are missing.

    Args:
        changed: is told of a feed when a refusal is new or over.

    Attributes:
        by_uid: uid of a StatefulSet or a Job -> why its pods are refused.
    """

    def __init__(self, cluster: Cluster, store: Store, changed: Callable[[Key], Awaitable[None]]) -> None:
        self._cluster = cluster
        self._store = store
        self._changed = changed
        self.by_uid: dict[str, Trouble] = {}

    async def ask_all(self) -> None:
        """Ask once for every workload that misses pods.

        Raises:
            ApiError: the API server does not answer; the others were asked for.
        """
        failure: ApiError | None = None
        missing = {facts.uid: facts for facts in _missing(self._store.all_children())}
        for uid in self.by_uid.keys() - missing.keys():
            del self.by_uid[uid]  # its status has changed, and with it its feed was told
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
                EVENTS.path(facts.key[1]), _told, limit=NEWEST, field_selector=selector
            )
        except (Forbidden, NotFound):  # roles of an older installation; the namespace is going
            return None
        if not page.items:
            return None
        _, message = max(page.items, key=lambda event: event[0])
        return refusal(message)


def _told(event: Object) -> tuple[str, str]:
    """When an Event was last told, and what it says."""
    return event.get("lastTimestamp") or event.get("eventTime") or "", str(event.get("message", ""))


def _missing(children: Iterable[ChildFacts]) -> list[ChildFacts]:
    """The workloads that have fewer pods than they want: of a Job that runs none.

    Runs of retention are not ours: Kubernetes makes them of a CronJob that is.
    """
    known = list(children)
    crons = {facts.uid for facts in known if facts.key[0] == CRON_JOB.kind and facts.ours}
    return [
        facts
        for facts in known
        if (facts.ours or facts.owner in crons)
        and (
            (facts.key[0] == STATEFUL_SET.kind and facts.there < facts.wanted)
            or (facts.key[0] == JOB.kind and facts.job == "Running" and not facts.there)
        )
    ]
