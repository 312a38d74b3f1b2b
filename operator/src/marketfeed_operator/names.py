"""Every name that the operator gives or reads: the kind, labels, annotations, and the names of children."""

import hashlib
import re
from typing import Final

GROUP: Final = "marketfeed.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "MarketFeed"
PLURAL: Final = "marketfeeds"

FIELD_MANAGER: Final = "marketfeed-operator"
"""Owner of the fields that the operator applies; anything else in a child is left alone."""
CREATION_MANAGER: Final = "marketfeed-operator-creation"
"""Owner of the fields of an object that was created and not applied yet, see `apply`."""
HANDOVER_MANAGER: Final = "marketfeed-operator-handover"
"""Holds `spec.replicas` while an autoscaler takes it over, see `apply`."""

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
FEED: Final = f"{GROUP}/feed"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
SHARD: Final = f"{GROUP}/shard"
TOPIC: Final = f"{GROUP}/topic"
DESIRED_HASH: Final = f"{GROUP}/desired-hash"
"""Annotation of a child: the hash of what was applied, so that a change that rolls pods is seen before it is made."""
CONFIG_HASH: Final = f"{GROUP}/config-hash"
"""Annotation of a pod: the hash of its settings; a change of it is what rolls the pods."""
SECRET_VERSIONS: Final = f"{GROUP}/secret-versions"
"""Annotation of a pod: the Secrets it was started with and their versions; a new version is what rolls it."""
FEED_NAMESPACE: Final = f"{GROUP}/feed-namespace"
"""Label of a KafkaTopic, which may live in another namespace than its feed."""

MAX_FEED_NAME: Final = 40
"""With the longest suffix of a Deployment and its hashes a label value must stay within 63 characters."""
MAX_STATEFUL_SET_NAME: Final = 52
"""Pods of a StatefulSet have a label of its name, a hyphen and up to 10 digits (kubernetes/kubernetes#64023)."""

INGESTION: Final = "ingestion"
MIGRATION: Final = "migration"
RETENTION: Final = "retention"
_SHARD_NAME: Final = re.compile(r"-shard-(\d+)$")


def shard_name(feed: str, shard: int) -> str:
    """Name of a shard's ConfigMap and Deployment, and what its workers call themselves."""
    return f"{feed}-shard-{shard}"


def shard_of(name: str) -> int | None:
    """The shard's number in a child's name; None when the name is not a shard's."""
    found = _SHARD_NAME.search(name)
    return int(found.group(1)) if found else None


def account_name(feed: str) -> str:
    """Name of the ServiceAccount that a feed's pods run as, and of its PodMonitor.

    With a suffix, as every name of a child has one: a feed may be called as somebody's ServiceAccount is, ``default``
    before all. No other component of ours ends a name in it.
    """
    return f"{feed}-pods"


def consumer_name(feed: str, stream: str) -> str:
    """Name of a topic's StatefulSet, Service and budget; `stream` as in `STREAMS`.

    A feed's name that is too long for it is cut, and told from others by a hash.
    """
    component = consumer_component(stream)
    name = f"{feed}-{component}"
    if len(name) <= MAX_STATEFUL_SET_NAME:
        return name
    told_by = hashlib.sha256(feed.encode()).hexdigest()[:8]
    room = MAX_STATEFUL_SET_NAME - len(f"-{told_by}-{component}")
    return f"{feed[:room].rstrip('-')}-{told_by}-{component}"


def consumer_component(stream: str) -> str:
    """The component label of a stream's consumers."""
    return {"trade": "consumer-trades", "bookTicker": "consumer-book"}[stream]
