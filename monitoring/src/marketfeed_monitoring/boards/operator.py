"""Operator dashboard: feeds, reconciliation and managed objects."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.shared import (
    NO_FAULT,
    READY_MAPPINGS,
    ascending,
    increase,
    per_second,
    percentiles,
    quantile,
    state_timeline,
    time_series,
)
from marketfeed_monitoring.model import Board, Query, Row, Variable

_ONE: Final = 'namespace=~"$namespace",name=~"$name"'
_PROCESS: Final = "pod, job, instance"

_FEEDS: Final = (
    state_timeline(
        "Feeds",
        "Condition Ready of each feed, or paused.",
        Query(
            expr=f"max by (namespace, name) (marketfeed_operator_feed_ready{{{_ONE}}})"
            f" + 2 * max by (namespace, name) (marketfeed_operator_feed_paused{{{_ONE}}})",
            legend="{{namespace}}/{{name}}",
        ),
        {**READY_MAPPINGS, 2: ("paused", "blue"), 3: ("paused", "blue")},
    ),
    time_series(
        "Time since the last success",
        "Time since the last successful reconciliation of each feed. Each is reconciled at least once a minute.",
        "s",
        Query(
            expr="time() - max by (namespace, name)"
            f" (marketfeed_operator_last_success_timestamp_seconds{{{_ONE}}})",
            legend="{{namespace}}/{{name}}",
        ),
        width=12,
        thresholds=ascending(config.FEED_SUCCESS_SECONDS / 3, config.FEED_SUCCESS_SECONDS),
    ),
)

_RECONCILING: Final = (
    time_series(
        "Reconciliations",
        "Reconciliations by result: success, failure (retried), error (a bug: see the log), gone (the feed was "
        "deleted).",
        "ops",
        Query(expr=per_second("marketfeed_operator_reconciles_total", "", "result"), legend="{{result}}"),
        width=6,
    ),
    time_series(
        "Duration",
        "Duration of a reconciliation.",
        "s",
        *percentiles("marketfeed_operator_reconcile_duration_seconds", "", "", ""),
        width=6,
    ),
    time_series(
        "Queue",
        "Feeds queued for reconciliation.",
        "short",
        Query(expr="sum(marketfeed_operator_queue_depth)", legend="feeds"),
        width=6,
    ),
    time_series(
        "Wait in the queue",
        "From the time a feed is due to the start of its reconciliation, 99th percentile.",
        "s",
        Query(expr=quantile(0.99, "marketfeed_operator_queue_wait_seconds", ""), legend="p99"),
        width=6,
    ),
)

_CLUSTER: Final = (
    time_series(
        "Objects changed",
        "Owned objects that were applied or deleted within the interval, by kind and result.",
        "short",
        Query(
            expr=increase("marketfeed_operator_children_total", "", "kind, result"),
            legend="{{kind}} {{result}}",
        ),
    ),
    time_series(
        "Drift corrected",
        "Owned objects that were changed or deleted by others and applied again, and differences that an audit found "
        "and the watches had missed.",
        "short",
        Query(
            expr=increase("marketfeed_operator_drift_corrected_total", "", "kind"),
            legend="{{kind}}",
            may_be_empty="no owned object was changed by others",
        ),
        Query(
            expr="sum(increase(marketfeed_operator_audit_corrections_total[$__rate_interval]))",
            legend="by audit",
        ),
    ),
    time_series(
        "Requests to the API server",
        "Requests by verb, without watches, and failed requests by verb and HTTP status.",
        "reqps",
        Query(expr=per_second("marketfeed_operator_api_requests_total", "", "verb"), legend="{{verb}}"),
        Query(
            expr=per_second("marketfeed_operator_api_failures_total", "", "verb, status"),
            legend="{{verb}}: {{status}}",
            may_be_empty=NO_FAULT,
        ),
    ),
)

_LEADER: Final = (
    state_timeline(
        "Leader",
        "Replica that holds the leader lease. Without a leader no feed is reconciled.",
        Query(expr=f"max by ({_PROCESS}) (marketfeed_operator_leader)", legend="{{pod}} {{instance}}"),
        {1: ("leader", "green"), 0: ("standby", "blue")},
    ),
    time_series(
        "Age of the oldest watch",
        "Longest time since the API server last sent an event, a bookmark or the end of a stream on a watch, and the "
        "waiting time of the oldest due feed.",
        "s",
        Query(expr="max(marketfeed_operator_watch_age_seconds)", legend="watch"),
        Query(expr="max(marketfeed_operator_queue_age_seconds)", legend="queue"),
        width=12,
        thresholds=ascending(config.WATCH_AGE_SECONDS / 3, config.WATCH_AGE_SECONDS),
    ),
)

OPERATOR: Final = Board(
    uid="marketfeed-operator",
    title="Marketfeed / Operator",
    description="Feeds, reconciliation, managed objects, leader lease and watches.",
    variables=(
        Variable(
            name="namespace",
            label="Namespace",
            query="label_values(marketfeed_operator_feed_ready, namespace)",
        ),
        Variable(
            name="name",
            label="Feed",
            query='label_values(marketfeed_operator_feed_ready{namespace=~"$namespace"}, name)',
        ),
    ),
    rows=(
        Row("Feeds", _FEEDS),
        Row("Reconciliation", _RECONCILING),
        Row("Cluster", _CLUSTER),
        Row("Leader lease and watches", _LEADER),
    ),
)
