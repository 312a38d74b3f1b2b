"""Gather everything that a reconciliation reads. Other requests run in the background, in the engine.

Only a Secret that was never read is requested here: without its version pods would be started and then restarted.
"""

from marketfeed_operator.api import Spec
from marketfeed_operator.engine.audit import Audit
from marketfeed_operator.engine.listings import Listings
from marketfeed_operator.engine.loops import LoopRunner
from marketfeed_operator.engine.namespace_leases import NamespaceLeases
from marketfeed_operator.engine.refusals import Refusals
from marketfeed_operator.engine.reports import Reports
from marketfeed_operator.engine.scopes import Scopes
from marketfeed_operator.engine.secrets import SecretVersions
from marketfeed_operator.kinds import CRON_JOB, JOB
from marketfeed_operator.observed import ChildFacts, ChildKey, Key, Observed
from marketfeed_operator.store import Store


class Observer:
    """Gathers the observed state of a feed.

    Args:
        secrets: None when Secrets are not watched.
    """

    def __init__(
        self,
        store: Store,
        reports: Reports,
        listings: Listings,
        audit: Audit,
        secrets: SecretVersions | None,
        refusals: Refusals,
        loops: LoopRunner,
        scopes: Scopes,
        namespace_leases: NamespaceLeases,
    ) -> None:
        self._store = store
        self._reports = reports
        self._listings = listings
        self._audit = audit
        self._secrets = secrets
        self._refusals = refusals
        self._loops = loops
        self._scopes = scopes
        self._namespace_leases = namespace_leases

    def children(self, key: Key, uid: str) -> dict[ChildKey, ChildFacts]:
        """Return the children of the feed with that uid. Labels prove nothing: objects that it did not create are not
        included.

        Retention runs belong to their CronJob.
        """
        named = self._store.children_of(key)
        made = {name: facts for name, facts in named.items() if facts.belongs_to(uid)}
        crons = {facts.uid for (kind, _, _), facts in made.items() if kind == CRON_JOB.kind}
        runs = {name: facts for name, facts in named.items() if name[0] == JOB.kind and facts.owner in crons}
        return made | runs

    async def observe(self, key: Key, uid: str, spec: Spec | None) -> Observed:
        """Return the observed state; without a spec only the parts that need none.

        Args:
            key: namespace and name of the feed.
            uid: its uid.
            spec: its spec; None when it is invalid.

        Raises:
            ApiError: a Secret is new, and the API server did not respond.
        """
        versions = {}
        if self._secrets is not None and spec is not None:
            versions = await self._secrets.of(key, spec.secret_names())
        pods = self._store.pods_of(key)
        known = self._reports.by_pod
        named = spec.kafka.cluster if spec is not None else None
        cluster = (named.namespace or key[0], named.name) if named is not None else None
        return Observed(
            children=self.children(key, uid),
            pods=pods,
            reports={pod.uid: known[pod.uid] for pod in pods if pod.uid in known},
            listing=self._listings.of(key, spec) if spec is not None else None,
            kinds=self._audit.kinds,
            kafka_listeners=self._audit.kafkas.get(cluster, ()) if cluster is not None else (),
            secret_versions=versions,
            refusals=dict(self._refusals.by_uid),
            report_problems={
                pod.uid: self._reports.problems[pod.uid] for pod in pods if pod.uid in self._reports.problems
            },
            scope_problem=self._scopes.problem_of(key[0]),
            other_operator=self._namespace_leases.other(key[0]),
            unreadable_kinds=self._audit.unreadable_kinds(key[0]),
            operator_problems=dict(self._loops.problems),
            lease_problem=self._namespace_leases.problems.get(key[0], ""),
        )

    def forget(self, key: Key) -> None:
        """Drop the state of a deleted feed."""
        self._listings.forget(key)
        if self._secrets is not None:
            self._secrets.forget(key)
