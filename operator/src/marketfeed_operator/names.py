"""Names that the operator sets or reads: the CRD, labels, annotations, and names of children."""

import hashlib
import re
from typing import Final

GROUP: Final = "marketfeed.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "MarketFeed"
PLURAL: Final = "marketfeeds"

FIELD_MANAGER: Final = "marketfeed-operator"
"""Field manager of applied fields; other fields of a child are not touched."""
CREATION_MANAGER: Final = "marketfeed-operator-creation"
"""Field manager of objects that are created and not applied yet, see `apply`."""
HANDOVER_MANAGER: Final = "marketfeed-operator-handover"
"""Field manager of `spec.replicas` while an autoscaler takes it over, see `apply`."""

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
FEED: Final = f"{GROUP}/feed"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
SHARD: Final = f"{GROUP}/shard"
TOPIC: Final = f"{GROUP}/topic"
DESIRED_HASH: Final = f"{GROUP}/desired-hash"
"""Annotation of a child: hash of the applied object, to detect changes that would roll pods."""
CONFIG_HASH: Final = f"{GROUP}/config-hash"
"""Annotation of a pod: hash of its template; a change of it rolls the pods."""
SECRET_VERSIONS: Final = f"{GROUP}/secret-versions"
"""Annotation of a pod: versions of its Secrets at startup; a new version rolls the pods."""
FEED_NAMESPACE: Final = f"{GROUP}/feed-namespace"
"""Label of a KafkaTopic, which may be in another namespace than its feed."""

MAX_FEED_NAME: Final = 40
"""With the longest suffix of a Deployment and its hashes, a label value must not exceed 63 characters."""
MAX_STATEFUL_SET_NAME: Final = 52
"""Pods of a StatefulSet have a label of its name, a hyphen and up to 10 digits (kubernetes/kubernetes#64023)."""

INGESTION: Final = "ingestion"
MIGRATION: Final = "migration"
RETENTION: Final = "retention"
_SHARD_NAME: Final = re.compile(r"-shard-(\d+)$")


def shard_name(feed: str, shard: int) -> str:
    """Return the name of a shard's ConfigMap and Deployment, which is also its workers' shard label."""
    return f"{feed}-shard-{shard}"


def shard_of(name: str) -> int | None:
    """Return the shard number in a child's name; None when it is not a shard's name."""
    found = _SHARD_NAME.search(name)
    return int(found.group(1)) if found else None


def account_name(feed: str) -> str:
    """Return the name of a feed's ServiceAccount and PodMonitor.

    With a suffix, as all names of children: a feed may have the name of an existing ServiceAccount, such as
    ``default``. No other component uses this suffix.
    """
    return f"{feed}-pods"


def consumer_name(feed: str, stream: str) -> str:
    """Return the name of a topic's StatefulSet, Service and budget; `stream` as in `STREAMS`.

    A feed name that is too long is truncated and made unique by a hash.
    """
    component = consumer_component(stream)
    name = f"{feed}-{component}"
    if len(name) <= MAX_STATEFUL_SET_NAME:
        return name
    suffix = hashlib.sha256(feed.encode()).hexdigest()[:8]
    room = MAX_STATEFUL_SET_NAME - len(f"-{suffix}-{component}")
    return f"{feed[:room].rstrip('-')}-{suffix}-{component}"


def consumer_component(stream: str) -> str:
    """Return the component label of a stream's consumers."""
    return {"trade": "consumer-trades", "bookTicker": "consumer-book"}[stream]
