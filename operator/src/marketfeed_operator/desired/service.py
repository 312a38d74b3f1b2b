"""Headless Service of a stream's consumers: a StatefulSet requires it, and each pod gets a DNS name."""

from marketfeed_operator.desired.base import Child, Feed, child, selector
from marketfeed_operator.desired.streams import consumer_spec
from marketfeed_operator.kinds import SERVICE
from marketfeed_operator.names import consumer_component, consumer_name


def service(feed: Feed, stream: str) -> Child | None:
    """Return the headless Service of a stream's consumers; None when the stream is not stored."""
    if consumer_spec(feed, stream) is None:
        return None
    component = consumer_component(stream)
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selector(feed, component),
        "ports": [
            {
                "name": "metrics",
                "port": feed.defaults.metrics_port,
                "targetPort": "metrics",
                "protocol": "TCP",
            }
        ],
    }
    return child(feed, SERVICE, consumer_name(feed.name, stream), component, {"spec": spec})
