"""ScaledObject: consumers scaled by lag with KEDA."""

from marketfeed_operator.desired.base import Child, Feed, child
from marketfeed_operator.desired.environment import bootstrap_servers, consumer_group
from marketfeed_operator.desired.streams import consumer_spec
from marketfeed_operator.kinds import SCALED_OBJECT, STATEFUL_SET
from marketfeed_operator.names import consumer_component, consumer_name


def scaled_object(feed: Feed, stream: str) -> Child | None:
    """Return the autoscaler of a stream's consumers; None when their number is fixed."""
    declared = consumer_spec(feed, stream)
    if declared is None or declared.autoscaling is None:
        return None
    topics, scaling = feed.spec.kafka.topics, declared.autoscaling
    name, authentication = consumer_name(feed.name, stream), scaling.trigger_authentication
    spec = {
        "scaleTargetRef": {"apiVersion": STATEFUL_SET.api_version, "kind": STATEFUL_SET.kind, "name": name},
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": scaling.max_replicas,
        "triggers": [
            {
                "type": "kafka",
                "metadata": {
                    "bootstrapServers": bootstrap_servers(feed),
                    "consumerGroup": consumer_group(feed, stream),
                    "topic": topics.trades.name if stream == "trade" else topics.book_ticker.name,
                    "lagThreshold": str(scaling.lag_threshold),
                    "offsetResetPolicy": "earliest",
                },
                **({"authenticationRef": {"name": authentication}} if authentication else {}),
            }
        ],
    }
    return child(feed, SCALED_OBJECT, name, consumer_component(stream), {"spec": spec})
