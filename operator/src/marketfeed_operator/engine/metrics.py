"""Metrics of the operator: name, labels, help."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Metrics of the operator, registered with `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reconciles = Counter(
            "marketfeed_operator_reconciles",
            "Finished reconciliations by result.",
            ["result"],
            registry=registry,
        )
        self.duration = Histogram(
            "marketfeed_operator_reconcile_duration_seconds",
            "Duration of a reconciliation in seconds.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self.queue_depth = Gauge(
            "marketfeed_operator_queue_depth", "Number of feeds due for reconciliation.", registry=registry
        )
        self.queue_wait = Histogram(
            "marketfeed_operator_queue_wait_seconds",
            "Time from when a feed is due to the start of its reconciliation, in seconds.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60),
            registry=registry,
        )
        self.last_success = Gauge(
            "marketfeed_operator_last_success_timestamp_seconds",
            "Unix time of the last successful reconciliation of a feed.",
            ["namespace", "name"],
            registry=registry,
        )
        self.feed_ready = Gauge(
            "marketfeed_operator_feed_ready",
            "1 while the condition Ready of a feed is True, otherwise 0.",
            ["namespace", "name"],
            registry=registry,
        )
        self.feed_paused = Gauge(
            "marketfeed_operator_feed_paused",
            "1 while the condition Paused of a feed is True, otherwise 0.",
            ["namespace", "name"],
            registry=registry,
        )
        self.children = Counter(
            "marketfeed_operator_children", "Changed children by kind and result.", ["kind", "result"],
            registry=registry,
        )  # fmt: skip
        self.drift_corrected = Counter(
            "marketfeed_operator_drift_corrected",
            "Children whose drift was corrected, after a change or deletion by another party.",
            ["kind"],
            registry=registry,
        )
        self.api_requests = Counter(
            "marketfeed_operator_api_requests", "Requests to the API server, without watches.", ["verb"],
            registry=registry,
        )  # fmt: skip
        self.api_failures = Counter(
            "marketfeed_operator_api_failures", "Failed requests to the API server by HTTP status.", ["verb", "status"],
            registry=registry,
        )  # fmt: skip
        self.audit_found = Counter(
            "marketfeed_operator_audit_corrections", "Differences between the store and the cluster found "
            "by audits.",
            registry=registry,
        )  # fmt: skip
        self.namespace_available = Gauge(
            "marketfeed_operator_namespace_available",
            "1 while the MarketFeeds of a namespace can be listed and watched, otherwise 0; all namespaces "
            "is one scope.",
            ["namespace"],
            registry=registry,
        )
        self.watch_restarts = Counter(
            "marketfeed_operator_watch_restarts", "Restarts of the watches of a scope.",
            ["namespace"], registry=registry,
        )  # fmt: skip
        self.watch_age = Gauge(
            "marketfeed_operator_watch_age_seconds",
            "Time since the last event, bookmark or server timeout of the oldest watch, in seconds.",
            registry=registry,
        )
        self.queue_age = Gauge(
            "marketfeed_operator_queue_age_seconds",
            "Time that the oldest due feed has been waiting for its reconciliation, in seconds.",
            registry=registry,
        )
        self.other_operators = Gauge(
            "marketfeed_operator_other_operators",
            "Number of other installations of the operator that compete for a namespace with feeds of this "
            "one.",
            registry=registry,
        )
        self.loop_failures = Counter(
            "marketfeed_operator_loop_failures", "Failed iterations of the operator's background "
            "loops.", ["loop"],
            registry=registry,
        )  # fmt: skip
        self.loop_failing = Gauge(
            "marketfeed_operator_loop_failing", "1 while the last iteration of a background loop failed, "
            "otherwise 0.", ["loop"],
            registry=registry,
        )  # fmt: skip
        self.listing_failures = Counter(
            "marketfeed_operator_listing_failures",
            "Failed requests for a venue's symbol list.",
            registry=registry,
        )
        self.pod_status_rejected = Counter(
            "marketfeed_operator_pod_status_rejected", "Invalid responses of pods' /status.",
            registry=registry,
        )  # fmt: skip
        self.leader = Gauge(
            "marketfeed_operator_leader",
            "1 while this process is the leader, otherwise 0.",
            registry=registry,
        )

    def forget_feed(self, namespace: str, name: str) -> None:
        """Remove the series of a deleted feed."""
        for gauge in (self.last_success, self.feed_ready, self.feed_paused):
            gauge.remove(namespace, name)
