"""PodMonitor of the feed's pods."""

from marketfeed_operator.desired.base import Child, Feed, Object, child
from marketfeed_operator.kinds import POD_MONITOR
from marketfeed_operator.names import COMPONENT, FEED, SHARD, account_name


def pod_monitor(feed: Feed) -> Child | None:
    """Return one PodMonitor for all pods of the feed; None when it is disabled."""
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
                # Workers export a shard label, and so does the relabelling: without this there would be two labels.
                "honorLabels": True,
                "relabelings": _relabelings(),
            }
        ],
    }
    return child(
        feed,
        POD_MONITOR,
        account_name(feed.name),
        "monitoring",
        {"spec": spec},
        user_labels=monitoring.labels,
    )


def _relabelings() -> list[Object]:
    """Return the relabelings to the label names that dashboards and rules use, see docs/operator.md."""
    feed, component, shard = (_discovered(label) for label in (FEED, COMPONENT, SHARD))
    return [
        {"action": "replace", "sourceLabels": [feed], "targetLabel": "feed"},
        {"action": "replace", "sourceLabels": [component], "targetLabel": "component"},
        {
            "action": "replace",
            "sourceLabels": [feed, shard],
            # As `shard_name` joins them. Consumers have no shard: the joined value does not match and no label is
            # set.
            "separator": "-shard-",
            "regex": "(.+-shard-[0-9]+)",
            "targetLabel": "shard",
        },
    ]


def _discovered(label: str) -> str:
    """Return the name of a pod label in Prometheus service discovery."""
    return "__meta_kubernetes_pod_label_" + "".join(each if each.isalnum() else "_" for each in label)
