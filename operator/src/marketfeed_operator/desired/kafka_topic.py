"""KafkaTopics: what Strimzi is told of the topics."""

import re
from collections.abc import Mapping

from marketfeed_operator.api.values import DNS_SUBDOMAIN
from marketfeed_operator.desired.base import Child, Feed, Object, digest, labels, stamped
from marketfeed_operator.kinds import KAFKA_TOPIC
from marketfeed_operator.names import FEED_NAMESPACE, INSTANCE
from marketfeed_wire import LEDGER_POLICY, market_data_policy


def kafka_topics(feed: Feed) -> list[Child]:
    """The feed's topics; none when it does not manage them.

    They have no owner and stay when the feed goes, because a KafkaTopic that is deleted takes its data along. Feeds
    may publish to one topic: whoever declared it first keeps it.
    """
    kafka = feed.spec.kafka
    if not kafka.manage_topics or kafka.cluster is None:
        return []
    topics = kafka.topics
    return [
        *(
            _topic(
                feed, data.name, data.partitions, data.replicas, _config(market_data_policy(data.retention_hours))
            )
            for data in (topics.trades, topics.book_ticker, topics.rejected)
        ),
        *(
            _topic(feed, ledger.name, ledger.partitions, ledger.replicas, _config(LEDGER_POLICY))
            for ledger in (topics.progress, topics.gaps)
        ),
    ]  # fmt: skip


def _config(policy: Mapping[str, str]) -> Object:
    """A topic's policies as Strimzi's examples write them: numbers are numbers."""
    return {name: int(value) if value.lstrip("-").isdigit() else value for name, value in policy.items()}


def _topic(feed: Feed, topic: str, partitions: int, replicas: int, config: Object) -> Child:
    cluster = feed.spec.kafka.cluster
    if cluster is None:
        raise ValueError("topics are declared to a Strimzi cluster")
    namespace, name = cluster.namespace or feed.namespace, _object_name(topic)
    body = {
        "apiVersion": KAFKA_TOPIC.api_version,
        "kind": KAFKA_TOPIC.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                # Not app.kubernetes.io/instance: Argo CD takes it for its own mark, and prunes what it does not know,
                # data included.
                **{key: value for key, value in labels(feed, "topic").items() if key != INSTANCE},
                FEED_NAMESPACE: feed.namespace,
                "strimzi.io/cluster": cluster.name,
            },
        },
        "spec": {"topicName": topic, "partitions": partitions, "replicas": replicas, "config": config},
    }
    return Child(KAFKA_TOPIC, namespace, name, stamped(body), shared=True)


def _object_name(topic: str) -> str:
    """The topic's name where Kubernetes takes it, otherwise one made of it that no other topic gets."""
    if re.fullmatch(DNS_SUBDOMAIN, topic):
        return topic
    # What is left of a name as ___ is nothing.
    readable = re.sub(r"[^a-z0-9]+", "-", topic.lower())[:200].strip("-") or "topic"
    return f"{readable}-{digest(topic)[:8]}"
