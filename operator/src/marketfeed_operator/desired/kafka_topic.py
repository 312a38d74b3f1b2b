"""KafkaTopics: topics declared to Strimzi."""

import re
from collections.abc import Mapping

from marketfeed_operator.api.values import DNS_SUBDOMAIN
from marketfeed_operator.desired.base import Child, Feed, Object, digest, labels, stamped
from marketfeed_operator.kinds import KAFKA_TOPIC
from marketfeed_operator.names import FEED_NAMESPACE, INSTANCE
from marketfeed_wire import LEDGER_POLICY, market_data_policy


def kafka_topics(feed: Feed) -> list[Child]:
    """Return the feed's topics; none when it does not manage them.

    They have no owner and are kept when the feed is deleted, because deleting a KafkaTopic deletes its data. Feeds
    may share a topic: the first to declare it keeps it.
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
    """Return the configuration of a topic as Strimzi expects it: numbers as numbers."""
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
                # Not app.kubernetes.io/instance: Argo CD uses it for tracking and prunes objects that it does not
                # know, data included.
                **{key: value for key, value in labels(feed, "topic").items() if key != INSTANCE},
                FEED_NAMESPACE: feed.namespace,
                "strimzi.io/cluster": cluster.name,
            },
        },
        "spec": {"topicName": topic, "partitions": partitions, "replicas": replicas, "config": config},
    }
    return Child(KAFKA_TOPIC, namespace, name, stamped(body), shared=True)


def _object_name(topic: str) -> str:
    """Return the topic's name if it is a valid object name, otherwise a unique name derived from it."""
    if re.fullmatch(DNS_SUBDOMAIN, topic):
        return topic
    # A name such as ___ leaves nothing.
    readable = re.sub(r"[^a-z0-9]+", "-", topic.lower())[:200].strip("-") or "topic"
    return f"{readable}-{digest(topic)[:8]}"
