"""PodMonitor: what the Prometheus operator is told of the feed's pods."""

from marketfeed_operator.desired.base import Child, Feed, child
from marketfeed_operator.kinds import POD_MONITOR
from marketfeed_operator.names import COMPONENT, FEED, SHARD


def pod_monitor(feed: Feed) -> Child | None:
    """One for all pods of the feed; None when it is switched off."""
    monitoring = feed.spec.monitoring
    if not monitoring.pod_monitor:
        return None
    spec = {
        "selector": {"matchLabels": {FEED: feed.name}},
        "podTargetLabels": [FEED, COMPONENT, SHARD],
        "podMetricsEndpoints": [
            {"port": "metrics", "path": "/metrics", "interval": f"{monitoring.interval_seconds}s"}
        ],
    }
    return child(feed, POD_MONITOR, feed.name, "monitoring", {"spec": spec}, wished=monitoring.labels)
