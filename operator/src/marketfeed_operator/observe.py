"""All that a reconciliation reads, gathered in one value. Nothing here waits: what is asked outside is asked beside."""

from marketfeed_operator.api import Spec
from marketfeed_operator.engine.audit import Audit
from marketfeed_operator.engine.listings import Listings
from marketfeed_operator.engine.reports import Reports
from marketfeed_operator.observed import Key, Observed
from marketfeed_operator.store import Store


class Observer:
    """Gathers what is known of a feed's surroundings."""

    def __init__(self, store: Store, reports: Reports, listings: Listings, audit: Audit) -> None:
        self._store = store
        self._reports = reports
        self._listings = listings
        self._audit = audit

    def observe(self, key: Key, spec: Spec | None) -> Observed:
        """What is known now; without a spec also what needs none."""
        pods = self._store.pods_of(key)
        known = self._reports.by_pod
        named = spec.kafka.cluster if spec is not None else None
        cluster = (named.namespace or key[0], named.name) if named is not None else None
        return Observed(
            children=self._store.children_of(key),
            pods=pods,
            reports={pod.uid: known[pod.uid] for pod in pods if pod.uid in known},
            listing=self._listings.of(key, spec) if spec is not None else None,
            kinds=self._audit.kinds,
            kafka_listeners=self._audit.kafkas.get(cluster, ()) if cluster is not None else (),
        )
