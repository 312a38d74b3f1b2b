"""Every metric of the operator: name, labels, help."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The operator's metrics, registered with `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reconciles = Counter(
            "marketfeed_operator_reconciles",
            "Reconciliations that ended, by result.",
            ["result"],
            registry=registry,
        )
        self.duration = Histogram(
            "marketfeed_operator_reconcile_duration_seconds",
            "Time of one reconciliation.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self.queue_depth = Gauge(
            "marketfeed_operator_queue_depth", "Feeds that wait for their reconciliation.", registry=registry
        )
        self.queue_wait = Histogram(
            "marketfeed_operator_queue_wait_seconds",
            "Time from a feed's due moment to the start of its reconciliation.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60),
            registry=registry,
        )
        self.last_success = Gauge(
            "marketfeed_operator_last_success_timestamp_seconds",
            "When a feed was last reconciled without a failure.",
            ["namespace", "name"],
            registry=registry,
        )
        self.feed_ready = Gauge(
            "marketfeed_operator_feed_ready",
            "1 when a feed is Ready.",
            ["namespace", "name"],
            registry=registry,
        )
        self.feed_paused = Gauge(
            "marketfeed_operator_feed_paused",
            "1 when a feed is Paused.",
            ["namespace", "name"],
            registry=registry,
        )
        self.children = Counter(
            "marketfeed_operator_children", "Children that were changed, by what was done.", ["kind", "result"],
            registry=registry,
        )  # fmt: skip
        self.drift_repaired = Counter(
            "marketfeed_operator_drift_repaired",
            "Children that somebody else had changed or deleted, and that were put right.",
            ["kind"],
            registry=registry,
        )
        self.api_requests = Counter(
            "marketfeed_operator_api_requests", "Requests to the API server, without watches.", ["verb"],
            registry=registry,
        )  # fmt: skip
        self.api_failures = Counter(
            "marketfeed_operator_api_failures", "Requests that failed, by HTTP status.", ["verb", "status"],
            registry=registry,
        )  # fmt: skip
        self.audit_found = Counter(
            "marketfeed_operator_audit_corrections", "What an audit found that the watches had missed.",
            registry=registry,
        )  # fmt: skip
        self.namespace_available = Gauge(
            "marketfeed_operator_namespace_available",
            "1 while the MarketFeeds of a namespace can be listed and watched; all namespaces is one scope.",
            ["namespace"],
            registry=registry,
        )
        self.watch_restarts = Counter(
            "marketfeed_operator_watch_restarts", "Times that the watches of a scope ended and were started again.",
            ["namespace"], registry=registry,
        )  # fmt: skip
        self.watch_age = Gauge(
            "marketfeed_operator_watch_age_seconds",
            "Time since the last event, bookmark or server timeout of the watch that was silent longest.",
            registry=registry,
        )
        self.queue_age = Gauge(
            "marketfeed_operator_queue_age_seconds",
            "Time that the oldest feed that is due has waited for its reconciliation.",
            registry=registry,
        )
        self.other_operators = Gauge(
            "marketfeed_operator_other_operators",
            "Other installations of the operator that serve, or would serve, a namespace with feeds of this one.",
            registry=registry,
        )
        self.loop_failures = Counter(
            "marketfeed_operator_loop_failures", "Failed turns of the operator's side loops.", ["loop"],
            registry=registry,
        )  # fmt: skip
        self.loop_failing = Gauge(
            "marketfeed_operator_loop_failing", "1 while the last turn of a side loop failed.", ["loop"],
            registry=registry,
        )  # fmt: skip
        self.listing_failures = Counter(
            "marketfeed_operator_listing_failures",
            "Requests for a venue's symbols that failed.",
            registry=registry,
        )
        self.pod_status_rejected = Counter(
            "marketfeed_operator_pod_status_rejected", "Responses of pods' /status that could not be used.",
            registry=registry,
        )  # fmt: skip
        self.leader = Gauge(
            "marketfeed_operator_leader", "1 while this process is the leader.", registry=registry
        )

    def forget_feed(self, namespace: str, name: str) -> None:
        """A feed is gone; so are its series."""
        for gauge in (self.last_success, self.feed_ready, self.feed_paused):
            gauge.remove(namespace, name)
