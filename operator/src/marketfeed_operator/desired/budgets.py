"""PodDisruptionBudgets: a node drain evicts one pod at a time."""

from marketfeed_operator.desired.base import Child, Feed, child, selector
from marketfeed_operator.desired.streams import consumer_spec
from marketfeed_operator.kinds import BUDGET
from marketfeed_operator.names import INGESTION, consumer_component, consumer_name


def ingestion_budget(feed: Feed) -> Child:
    """Return one budget for all shards: a drain interrupts at most one of them."""
    return _budget(feed, f"{feed.name}-{INGESTION}", INGESTION)


def consumer_budget(feed: Feed, stream: str) -> Child | None:
    """Return the budget of a stream's consumers; None when the stream is not stored."""
    if consumer_spec(feed, stream) is None:
        return None
    return _budget(feed, consumer_name(feed.name, stream), consumer_component(stream))


def _budget(feed: Feed, name: str, component: str) -> Child:
    # Not minAvailable: with one replica that would block drains forever.
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(feed, component)},
    }
    return child(feed, BUDGET, name, component, {"spec": spec})
