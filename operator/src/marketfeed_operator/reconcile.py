"""Reconciliation: parse → policy → observe → plan → apply → decide → write status. The same for every trigger."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from marketfeed_operator.api import Spec, Status, parse
from marketfeed_operator.apply import Applier
from marketfeed_operator.decide import Situation, decide
from marketfeed_operator.desired import Defaults, Feed
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.namespace_leases import NamespaceLeases
from marketfeed_operator.errors import ApiError, Forbidden, Invalid, NameConflict, NotFound
from marketfeed_operator.executor import Execution, Executor
from marketfeed_operator.observe import Observer
from marketfeed_operator.observed import FeedFacts, Key, Observed
from marketfeed_operator.plan import plan
from marketfeed_operator.policy import Policy
from marketfeed_operator.status_writer import StatusWriter
from marketfeed_operator.store import Store
from marketfeed_operator.text import printable
from marketfeed_service import logs

log = logs.get(__name__)

REPORTED_FAILURES: Final = 5
"""Consecutive failed passes, about 5 to 15 s, after which a transient failure of the API server is reported."""
LARGE: Final = 400
"""Number of symbols, children and pods above which plan and status are computed in a thread: about 20 ms."""


@dataclass(frozen=True)
class Done:
    """Result of a reconciliation.

    Attributes:
        failure: refusal, for the log; "" for none.
        retry_after_seconds: minimum delay of the next attempt, from the API server.
        more: the limit of changes per pass was reached; the feed is queued again behind the others.
    """

    failure: str = ""
    retry_after_seconds: float = 0
    more: bool = False


@dataclass(frozen=True)
class _Pass:
    """Result of a pass: the input of the status, and what must be retried."""

    situation: Situation
    refusal: ApiError | None
    more: bool = False


class Reconciler:
    """Reconciles feeds.

    Args:
        now: wall clock, for transition times.
    """

    def __init__(
        self,
        store: Store,
        observer: Observer,
        applier: Applier,
        writer: StatusWriter,
        metrics: Metrics,
        defaults: Defaults,
        policy: Policy,
        namespace_leases: NamespaceLeases,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._observer = observer
        self._applier = applier
        self._executor = Executor(applier)
        self._writer = writer
        self._metrics = metrics
        self._defaults = defaults
        self._policy = policy
        self._namespace_leases = namespace_leases
        self._now = now
        self._failures: dict[Key, int] = {}
        """Feed -> consecutive passes with a refusal of the API server."""

    async def reconcile(self, key: Key) -> Done | None:
        """Reconcile a feed; return None when it is deleted or being deleted.

        Any failure, including unexpected ones, becomes a condition of this feed and of no other.
        """
        facts = self._store.feeds.get(key)
        # A feed that is being deleted waits for its children to be deleted: they must not be created again.
        if facts is None or facts.deleting:
            self._forget(key)
            return None
        try:
            if await self._namespace_leases.holder(key[0]):
                return Done()  # served by another operator, which also writes the status
            outcome = await self._pass(key, facts)
        except ApiError as error:  # the lease of the namespace is unknown: nothing is applied
            at = Situation(facts, None, [], Observed(), None, failure=self._reportable(key, error))
            outcome = _Pass(at, error)
        except Exception as error:
            log.exception("reconciliation crashed", feed="/".join(key))
            outcome = _Pass(Situation(facts, None, [], Observed(), None, fault=_fault(error)), None)
        if outcome.refusal is not None and outcome.situation.plan is None and not outcome.situation.failure:
            # The last status is kept until the refusal has persisted: without a plan nothing is known about the
            # children.
            return Done(f"{outcome.refusal}", outcome.refusal.retry_after_seconds or 0)
        try:
            await self._writer.write(facts, await self._status(outcome.situation))
        except NotFound:  # deleted meanwhile
            return None
        except ApiError as error:
            return Done(f"{outcome.refusal or error}", error.retry_after_seconds or 0)
        if outcome.situation.fault:
            return Done(outcome.situation.fault)
        if outcome.refusal is not None:
            return Done(f"{outcome.refusal}", outcome.refusal.retry_after_seconds or 0)
        self._metrics.last_success.labels(*key).set(self._now().timestamp())
        return Done(more=outcome.more)

    async def _pass(self, key: Key, facts: FeedFacts) -> "_Pass":
        parsed = parse(facts.spec)
        spec, problems = (parsed, []) if isinstance(parsed, Spec) else (None, parsed)
        if spec is not None:
            problems = self._policy.refusals(facts.namespace, spec)
        observed = Observed()
        try:
            observed = await self._observer.observe(key, facts.uid, spec)
        except ApiError as error:
            at = Situation(facts, spec, problems, observed, None, failure=self._reportable(key, error))
            return _Pass(at, error)
        done = Execution()
        planned = None
        if spec is not None and not problems:
            feed = self._feed(facts, spec, observed)
            # A feed of thousands of symbols must not block the event loop.
            large = len(spec.symbols or ()) + _size(observed) > LARGE
            planned = await asyncio.to_thread(plan, feed, observed) if large else plan(feed, observed)
            if planned is not None and not spec.paused:
                done = await self._executor.execute(facts, planned, observed)
            observed = replace(observed, children=self._observer.children(key, facts.uid))
        at = Situation(
            facts, spec, problems, observed, planned,
            conflicts=tuple(done.conflicts),
            applied=planned is not None
            and spec is not None
            and not spec.paused
            and done.complete
            and not planned.pending,
            failure=self._reportable(key, done.refusal),
            failure_reason="NameConflict" if isinstance(done.refusal, NameConflict) else "ApplyFailed",
        )  # fmt: skip
        return _Pass(at, done.refusal, more=done.cut_short)

    async def _status(self, at: Situation) -> Status:
        """Return the status of a situation; if that fails, one that reports the failure."""
        try:
            if _size(at.observed) > LARGE:
                return await asyncio.to_thread(decide, at, self._now())
            return decide(at, self._now())
        except Exception as error:
            log.exception("status failed", feed="/".join(at.feed.key))
            bare = replace(at.feed, status={})
            return decide(Situation(bare, None, [], Observed(), None, fault=_fault(error)), self._now())

    def _forget(self, key: Key) -> None:
        # The API server's garbage collector deletes its children by their owner reference.
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

    def _reportable(self, key: Key, failure: ApiError | None) -> str:
        """Return a failure for the status: permanent ones at once, transient ones when they persist."""
        if failure is None:
            self._failures.pop(key, None)
            return ""
        self._failures[key] = self._failures.get(key, 0) + 1
        lasting = isinstance(failure, Invalid | Forbidden | NameConflict) or (
            self._failures[key] >= REPORTED_FAILURES
        )
        return f"{failure}" if lasting else ""


def _size(observed: Observed) -> int:
    return len(observed.children) + len(observed.pods)


def _fault(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}", 300)
