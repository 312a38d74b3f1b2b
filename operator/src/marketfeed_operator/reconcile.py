"""One reconciliation: parse → observe → plan → apply → decide → status. The same for every reason to do it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from marketfeed_chassis import logs
from marketfeed_operator.api import Spec, Status, parse
from marketfeed_operator.apply import Applier
from marketfeed_operator.cluster import FEEDS, Cluster
from marketfeed_operator.decide import Situation, decide
from marketfeed_operator.desired import Defaults, Feed
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import ApiError, Conflict, Forbidden, Invalid, NotFound
from marketfeed_operator.observe import Observer
from marketfeed_operator.observed import FeedFacts, Key, Observed
from marketfeed_operator.plan import Plan, obsolete, plan
from marketfeed_operator.store import Store

log = logs.get(__name__)

PATIENCE_PASSES: Final = 5
"""Failed passes in a row, some 5 to 15 seconds, after which an overload or a fault of the API server is told too."""


@dataclass(frozen=True)
class Done:
    """How a reconciliation ended.

    Attributes:
        failure: what was refused, for the log; "" when nothing was.
        retry_after_seconds: at least this long until the next try, where the API server asked for it.
    """

    failure: str = ""
    retry_after_seconds: float = 0


class Reconciler:
    """Brings feeds to what they declare.

    Args:
        now: the wall clock, for the times in conditions.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        observer: Observer,
        applier: Applier,
        metrics: Metrics,
        defaults: Defaults,
        *,
        identity: str,
        now: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._observer = observer
        self._applier = applier
        self._metrics = metrics
        self._defaults = defaults
        self._identity = identity
        self._now = now
        self._failures: dict[Key, int] = {}
        """Feed -> passes in a row in which the API server has refused something."""

    async def reconcile(self, key: Key) -> Done | None:
        """Bring a feed to what it declares; None when there is none any more, or it is going."""
        facts = self._store.feeds.get(key)
        # One that goes waits for its children to have gone: they must not be put back.
        if facts is None or facts.deleting:
            self._forget(key)
            return None
        parsed = parse(facts.spec)
        spec, problems = (parsed, []) if isinstance(parsed, Spec) else (None, parsed)
        try:
            observed = await self._observer.observe(key, spec)
        except ApiError as error:
            return Done(f"{error}", error.retry_after_seconds or 0)
        planned, failure = None, None
        if spec is not None:
            planned = plan(self._feed(facts, spec, observed), observed)
            if planned is not None and not spec.paused:
                failure = await self._carry_out(facts, planned, observed)
            observed = replace(observed, children=self._store.children_of(key))
        told = self._worth_telling(key, failure)
        status = decide(Situation(facts, spec, problems, observed, planned, told), self._now())
        try:
            await self._tell(facts, status)
        except NotFound:  # deleted meanwhile
            return None
        except ApiError as error:
            failure = failure or error
        if failure is None:
            self._metrics.last_success.labels(*key).set(self._now().timestamp())
            return Done()
        return Done(f"{failure}", failure.retry_after_seconds or 0)

    def _forget(self, key: Key) -> None:
        # Its children have it as their owner: the API server's garbage collector takes them.
        self._applier.forget(list(self._store.children_of(key)))
        self._failures.pop(key, None)
        self._metrics.forget_feed(*key)
        self._observer.forget(key)

    def _feed(self, facts: FeedFacts, spec: Spec, observed: Observed) -> Feed:
        return Feed(
            facts.namespace,
            facts.name,
            facts.uid,
            facts.generation,
            spec,
            self._defaults,
            kafka_listeners=tuple(observed.kafka_listeners),
            secret_versions=observed.secret_versions,
            stored_secret_versions={
                (kind, name): child.secret_versions
                for (kind, _, name), child in observed.children.items()
                if child.secret_versions
            },
        )

    async def _carry_out(self, facts: FeedFacts, planned: Plan, observed: Observed) -> ApiError | None:
        """Apply every child, then remove what is not wanted; the first refusal, after all that could be done was."""
        failure: ApiError | None = None
        for child in planned.children:
            try:
                outcome = await self._applier.apply(child, observed)
            except NotFound as error:
                if child.kind.optional:  # its kind was taken away; the next audit knows
                    continue
                return failure or error  # the namespace is going
            except (Invalid, Forbidden) as error:
                failure = failure or _about(error, f"{child.kind.kind} {child.name}")
                continue
            except ApiError as error:
                return failure or _about(error, f"{child.kind.kind} {child.name}")
            if outcome.result not in ("noop", "held"):
                log.info(
                    "child changed",
                    result=outcome.result,
                    feed=f"{facts.namespace}/{facts.name}",
                    kind=child.kind.kind,
                    name=child.name,
                )
        for key in obsolete(planned.children, observed):
            try:
                await self._applier.delete(key, observed.children[key])
            except ApiError as error:
                failure = failure or error
            else:
                log.info("child deleted", feed=f"{facts.namespace}/{facts.name}", kind=key[0], name=key[2])
        return failure

    def _worth_telling(self, key: Key, failure: ApiError | None) -> str:
        """A failure as the status tells it: at once what will not pass by itself, the rest when it has stayed."""
        if failure is None:
            self._failures.pop(key, None)
            return ""
        self._failures[key] = self._failures.get(key, 0) + 1
        lasting = isinstance(failure, Invalid | Forbidden) or self._failures[key] >= PATIENCE_PASSES
        return f"{failure}" if lasting else ""

    async def _tell(self, facts: FeedFacts, status: Status) -> None:
        """Write the status if it is new, and an Event for each condition that turned or has another reason."""
        ready, paused = status.conditions[0], status.conditions[3]
        self._metrics.feed_ready.labels(*facts.key).set(ready.status == "True")
        self._metrics.feed_paused.labels(*facts.key).set(paused.status == "True")
        wanted = status.model_dump(by_alias=True, exclude_none=True, mode="json")
        if wanted == dict(facts.status):
            return
        path = FEEDS.path(facts.namespace, facts.name)
        body = {"metadata": {"uid": facts.uid}, "status": _with_removals(wanted, facts.status)}
        stored = await self._cluster.merge(f"{path}/status", body)
        self._store.feeds[facts.key] = replace(
            self._store.feeds.get(facts.key, facts),
            status=stored.get("status", {}),
            resource_version=stored["metadata"]["resourceVersion"],
        )
        for condition in transitions(facts.status, wanted):
            bad = condition["type"] == "Degraded" and condition["status"] == "True"
            await self._tell_event(facts, condition, warning=bad)

    async def _tell_event(self, facts: FeedFacts, condition: dict[str, Any], *, warning: bool) -> None:
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
        except (Conflict, NotFound, Forbidden) as error:  # the namespace is going; the status has it all
            log.warning("event not told", feed=f"{facts.namespace}/{facts.name}", reason=str(error))


def transitions(before: Any, after: Any) -> list[dict[str, Any]]:
    """The conditions whose status or reason is another than before; a first Progressing or "all is well" is none."""
    known = {found["type"]: found for found in before.get("conditions", [])}
    return [
        condition
        for condition in after["conditions"]
        if (old := known.get(condition["type"], {})).get("status", "False") != condition["status"]
        or (condition["status"] == "True" and old.get("reason") != condition["reason"])
    ]


def _about(error: ApiError, what: str) -> ApiError:
    return type(error)(error.status, f"{what}: {error}", error.retry_after_seconds)


def _with_removals(wanted: dict[str, Any], stored: Any) -> dict[str, Any]:
    """A merge patch that also removes the fields which are stored and not wanted."""
    patch: dict[str, Any] = dict.fromkeys(stored.keys() - wanted.keys())
    for key, value in wanted.items():
        before = stored.get(key)
        patch[key] = (
            _with_removals(value, before) if isinstance(value, dict) and isinstance(before, dict) else value
        )
    return patch
