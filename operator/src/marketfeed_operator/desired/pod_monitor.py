"""PodMonitor: what the Prometheus operator is told of the feed's pods."""

from marketfeed_operator.desired.base import Child, Feed, Object, child
from marketfeed_operator.kinds import POD_MONITOR
from marketfeed_operator.names import COMPONENT, FEED, SHARD, account_name


def pod_monitor(feed: Feed) -> Child | None:
    """One for all pods of the feed; None when it is switched off."""
    monitoring = feed.spec.monitoring
    if not monitoring.pod_monitor:
        return None
    spec = {
        "selector": {"matchLabels": {FEED: feed.name}},
        "podMetricsEndpoints": [
            {
                "port": "metrics",
                "path": "/metrics",
                "interval": f"{monitoring.interval_seconds}s",
                # Workers name their shard themselves, as the relabelling does: without this there were two labels.
                "honorLabels": True,
                "relabelings": _relabelings(),
            }
        ],
    }
    return child(
        feed, POD_MONITOR, account_name(feed.name), "monitoring", {"spec": spec}, wished=monitoring.labels
    )


def _relabelings() -> list[Object]:
    """Short names for the labels that dashboards and rules select by, see docs/operator.md."""
    feed, component, shard = (_discovered(label) for label in (FEED, COMPONENT, SHARD))
    return [
        {"action": "replace", "sourceLabels": [feed], "targetLabel": "feed"},
        {"action": "replace", "sourceLabels": [component], "targetLabel": "component"},
        {
            "action": "replace",
            "sourceLabels": [feed, shard],
            # As `shard_name` joins them. A consumer has no shard: what is joined then fits not, and no label is set.
            "separator": "-shard-",
            "regex": "(.+-shard-[0-9]+)",
            "targetLabel": "shard",
        },
    ]


def _discovered(label: str) -> str:
    """A pod's label as Prometheus discovers it."""
    return "__meta_kubernetes_pod_label_" + "".join(each if each.isalnum() else "_" for each in label)
