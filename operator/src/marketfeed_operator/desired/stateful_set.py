"""StatefulSet of a stream's consumers, whose names are stable over restarts."""

from marketfeed_operator.desired import environment, pods
from marketfeed_operator.desired.base import Child, Feed, child, selector, without_none
from marketfeed_operator.desired.streams import consumer_spec
from marketfeed_operator.kinds import STATEFUL_SET
from marketfeed_operator.names import consumer_component, consumer_name


def stateful_set(feed: Feed, stream: str, *, autoscaled: bool) -> Child | None:
    """Return the consumers of a stream; None when the stream is not stored.

    With an autoscaler, `replicas` is left out.

    Args:
        feed: the feed.
        stream: the stream.
        autoscaled: whether an autoscaler sets the replicas.
    """
    declared = consumer_spec(feed, stream)
    if declared is None:
        return None
    name, component = consumer_name(feed.name, stream), consumer_component(stream)
    context = environment.consumer(feed, stream)
    images = feed.spec.images
    container = pods.service_container(
        feed,
        name="consumer",
        image=(images and images.consumer) or feed.defaults.consumer_image,
        command=["marketfeed-consumer", "run"],
        context=context,
        resources=declared.resources,
        pre_stop=False,
    )
    replicas = declared.autoscaling.min_replicas if declared.autoscaling else declared.replicas
    spec = {
        "replicas": None if autoscaled else 1 if replicas is None else replicas,
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": selector(feed, component)},
        "updateStrategy": {"type": "RollingUpdate"},
        "template": pods.pod_template(
            feed,
            component,
            container,
            context,
            annotations=pods.secret_versions(feed, STATEFUL_SET, name, context),
            terminationGracePeriodSeconds=pods.grace_seconds(feed, pre_stop=False),
        ),
    }
    return child(feed, STATEFUL_SET, name, component, {"spec": without_none(spec)})
