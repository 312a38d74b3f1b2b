"""Alerts about the operator and its feeds."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.alerts.model import Alert
from marketfeed_monitoring.promql import up

OPERATOR: Final[tuple[Alert, ...]] = (
    Alert(
        name="MarketfeedOperatorNotReconciling",
        group="operator",
        severity="warning",
        expr=f"""
label_replace(
  sum by (job) (rate(marketfeed_operator_reconciles_total{{result="success"}}[{config.OPERATOR_WINDOW}])) == 0,
  "problem", "no reconciliation succeeds", "", ""
)
or
label_replace(sum by (job) (marketfeed_operator_leader) == 0, "problem", "no replica is the leader", "", "")
or
label_replace(
  max by (job) (marketfeed_operator_watch_age_seconds) > {config.WATCH_AGE_SECONDS},
  "problem", "a watch receives no events", "", ""
)
or
label_replace(
  min by (job, namespace) (marketfeed_operator_namespace_available) == 0,
  "problem", "a namespace is unavailable", "", ""
)
or
label_replace(
  max by (job, loop) (marketfeed_operator_loop_failing) == 1, "problem", "a loop keeps failing", "", ""
)
or
label_replace(
  time() - max by (namespace, name) (marketfeed_operator_last_success_timestamp_seconds)
    > {config.FEED_SUCCESS_SECONDS},
  "problem", "a feed keeps failing", "", ""
)
or
label_replace(max by (job) ({up("operator")}) == 0, "problem", "no replica is up", "", "")
""",
        wait=config.OPERATOR_FOR,
        reason="Every feed is reconciled once a minute, so there are always successes, and the API server sends a "
        "bookmark on each watch. A new leader takes 15 s and a listing, a rollout a minute.",
        summary="the operator is not reconciling: {{ $labels.problem }}"
        "{{ with $labels.name }} ({{ $labels.namespace }}/{{ . }}){{ end }}",
        description="Changes of MarketFeeds are not applied and drift is not corrected. Running workers and "
        "consumers are not affected.",
    ),
    Alert(
        name="MarketfeedFeedNotReady",
        group="operator",
        severity="warning",
        expr="""
max by (namespace, name) (marketfeed_operator_feed_ready) == 0
unless
max by (namespace, name) (marketfeed_operator_feed_paused) == 1
""",
        wait=config.FEED_READY_FOR,
        reason="A rollout of many shards or a migration takes minutes. A paused feed is excluded. The alert also "
        "covers shards and consumers without any pod, for which no series exists.",
        summary="feed {{ $labels.namespace }}/{{ $labels.name }} is not ready",
        description="A component of the feed is not ready. The feed's conditions name it.",
    ),
)
