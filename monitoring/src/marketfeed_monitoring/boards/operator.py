"""Operator: from the MarketFeeds to the objects that they become."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.shared import (
    NOTHING_WRONG,
    READY_WORDS,
    growing,
    growth,
    lines,
    per_second,
    percentiles,
    quantile,
    states,
)
from marketfeed_monitoring.model import Board, Query, Row, Variable

_ONE: Final = 'namespace=~"$namespace",name=~"$name"'
_PROCESS: Final = "pod, job, instance"

_FEEDS: Final = (
    states(
        "Feeds",
        "Whether all that a feed wants runs (its condition Ready). A paused feed says paused instead.",
        Query(
            expr=f"max by (namespace, name) (marketfeed_operator_feed_ready{{{_ONE}}})"
            f" + 2 * max by (namespace, name) (marketfeed_operator_feed_paused{{{_ONE}}})",
            legend="{{namespace}}/{{name}}",
        ),
        {**READY_WORDS, 2: ("paused", "blue"), 3: ("paused", "blue")},
    ),
    lines(
        "Time since the last success",
        "Since a feed was last reconciled without a failure. Each is looked at every minute at least.",
        "s",
        Query(
            expr="time() - max by (namespace, name)"
            f" (marketfeed_operator_last_success_timestamp_seconds{{{_ONE}}})",
            legend="{{namespace}}/{{name}}",
        ),
        width=12,
        thresholds=growing(config.FEED_SUCCESS_SECONDS / 3, config.FEED_SUCCESS_SECONDS),
    ),
)

_RECONCILING: Final = (
    lines(
        "Reconciliations",
        "By result: success, failure (tried again later), error (a bug: see the log), gone (the feed was "
        "deleted).",
        "ops",
        Query(expr=per_second("marketfeed_operator_reconciles_total", "", "result"), legend="{{result}}"),
        width=6,
    ),
    lines(
        "Duration",
        "Time of one reconciliation.",
        "s",
        *percentiles("marketfeed_operator_reconcile_duration_seconds", "", "", ""),
        width=6,
    ),
    lines(
        "Queue",
        "Feeds that wait for their reconciliation.",
        "short",
        Query(expr="sum(marketfeed_operator_queue_depth)", legend="feeds"),
        width=6,
    ),
    lines(
        "Wait in the queue",
        "From a feed's due moment to the start of its reconciliation, 99th percentile.",
        "s",
        Query(expr=quantile(0.99, "marketfeed_operator_queue_wait_seconds", ""), legend="p99"),
        width=6,
    ),
)

_CLUSTER: Final = (
    lines(
        "Objects changed",
        "Children that were applied or deleted within the interval, by kind and result.",
        "short",
        Query(
            expr=growth("marketfeed_operator_children_total", "", "kind, result"),
            legend="{{kind}} {{result}}",
        ),
    ),
    lines(
        "Put right again",
        "Objects that somebody else had changed or deleted, and what an audit found that the watches had "
        "missed.",
        "short",
        Query(
            expr=growth("marketfeed_operator_drift_repaired_total", "", "kind"),
            legend="{{kind}}",
            may_be_empty="nobody has touched an object of the operator's",
        ),
        Query(
            expr="sum(increase(marketfeed_operator_audit_corrections_total[$__rate_interval]))",
            legend="by audit",
        ),
    ),
    lines(
        "Requests to the API server",
        "By verb, without watches; and those that failed, by HTTP status.",
        "reqps",
        Query(expr=per_second("marketfeed_operator_api_requests_total", "", "verb"), legend="{{verb}}"),
        Query(
            expr=per_second("marketfeed_operator_api_failures_total", "", "verb, status"),
            legend="{{verb}}: {{status}}",
            may_be_empty=NOTHING_WRONG,
        ),
    ),
)

_OWN_LIFE: Final = (
    states(
        "Leader",
        "Which process acts: the one that holds the Lease. None for more than a moment means that nobody "
        "reconciles.",
        Query(expr=f"max by ({_PROCESS}) (marketfeed_operator_leader)", legend="{{pod}} {{instance}}"),
        {1: ("leads", "green"), 0: ("stands by", "blue")},
    ),
    lines(
        "Age of the oldest watch",
        "Time since the API server last sent an event, a bookmark or the end of a stream on the watch that was silent "
        "longest; and the time that the oldest due feed has waited.",
        "s",
        Query(expr="max(marketfeed_operator_watch_age_seconds)", legend="watch"),
        Query(expr="max(marketfeed_operator_queue_age_seconds)", legend="queue"),
        width=12,
        thresholds=growing(config.WATCH_AGE_SECONDS / 3, config.WATCH_AGE_SECONDS),
    ),
)

OPERATOR: Final = Board(
    uid="marketfeed-operator",
    title="Marketfeed / Operator",
    description="From the MarketFeeds to the objects that they become, and the operator's own life.",
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
        Row("The cluster", _CLUSTER),
        Row("The operator's own life", _OWN_LIFE),
    ),
)
