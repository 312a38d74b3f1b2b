"""Deployment of a shard: its workers."""

from marketfeed_operator.desired import environment, pods
from marketfeed_operator.desired.base import Child, Feed, child, selector
from marketfeed_operator.kinds import DEPLOYMENT
from marketfeed_operator.names import INGESTION, SHARD, shard_name


def deployment(feed: Feed, shard: int) -> Child:
    """Return the workers of a shard. A rollout starts the new pod, waits for it to be ready, and then stops the old
    one.
    """
    name, extra = shard_name(feed.name, shard), {SHARD: str(shard)}
    context = environment.worker(feed, name)
    images = feed.spec.images
    container = pods.service_container(
        feed,
        name="worker",
        image=(images and images.worker) or feed.defaults.worker_image,
        command=["marketfeed-worker"],
        context=context,
        resources=feed.spec.ingestion.resources,
        pre_stop=True,
    )
    spec = {
        "replicas": feed.spec.ingestion.replicas,
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": 600,
        "selector": {"matchLabels": selector(feed, INGESTION, extra)},
        # Ready means that each active stream has delivered its first message: no trades are missed in between.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": pods.pod_template(
            feed,
            INGESTION,
            container,
            context,
            extra=extra,
            annotations=pods.secret_versions(feed, DEPLOYMENT, name, context),
            terminationGracePeriodSeconds=pods.grace_seconds(feed, pre_stop=True),
        ),
    }
    return child(feed, DEPLOYMENT, name, INGESTION, {"spec": spec}, extra=extra)
