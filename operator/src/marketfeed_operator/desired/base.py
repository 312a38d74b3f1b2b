"""Common parts of all children: owner, labels, hashes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marketfeed_operator.api import Spec
from marketfeed_operator.kinds import Kind
from marketfeed_operator.names import (
    API_VERSION,
    COMPONENT,
    CONFIG_HASH,
    DESIRED_HASH,
    FEED,
    FEED_NAMESPACE,
    FIELD_MANAGER,
    INSTANCE,
    KIND,
    MANAGED_BY,
)
from marketfeed_operator.observed import KafkaListener

Object = dict[str, Any]


@dataclass(frozen=True)
class Defaults:
    """Settings of the operator that apply to all feeds.

    Attributes:
        worker_image, consumer_image: default images.
        metrics_port: port of /metrics, /status and the probes in every pod.
        drain_seconds: time that a service has on shutdown to publish or store what it has read.
        run_as_user, run_as_group, fs_group: default user and groups of pods; None leaves them to the image and the
            cluster.
    """

    worker_image: str
    consumer_image: str
    image_pull_policy: str = "IfNotPresent"
    metrics_port: int = 8000
    drain_seconds: int = 20
    run_as_user: int | None = None
    run_as_group: int | None = None
    fs_group: int | None = None


@dataclass(frozen=True)
class Feed:
    """MarketFeed with a valid spec, and the observed state that its children depend on.

    Attributes:
        kafka_listeners: listeners of the Strimzi cluster in the spec, if known.
        secret_versions: Secret name -> resource version, of those that its pods use, if known.
        stored_secret_versions: (kind, name) of a workload -> versions that its pods were started with.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    spec: Spec
    defaults: Defaults
    kafka_listeners: tuple[KafkaListener, ...] = ()
    secret_versions: Mapping[str, str] = field(default_factory=dict)
    stored_secret_versions: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Child:
    """Desired object.

    Attributes:
        body: the object; None to leave it as it is for now, existing or not.
        shared: an object of that name may belong to another feed, which then keeps it.
    """

    kind: Kind
    namespace: str
    name: str
    body: Object | None
    shared: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """Kind, namespace and name."""
        return (self.kind.kind, self.namespace, self.name)

    def held(self) -> "Child":
        """Return the same child, to be left as it is for now."""
        return Child(self.kind, self.namespace, self.name, None, self.shared)


def digest(value: object) -> str:
    """Return a hash of 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def selector(feed: Feed, component: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the selector labels of a component's pods.

    Args:
        feed: the feed.
        component: component of the pods.
        extra: additional labels.
    """
    return {FEED: feed.name, COMPONENT: component, **(extra or {})}


def labels(feed: Feed, component: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the labels of a child.

    Args:
        feed: the feed.
        component: component of the child.
        extra: additional labels.
    """
    return {
        "app.kubernetes.io/name": "marketfeed",
        INSTANCE: feed.name,
        MANAGED_BY: FIELD_MANAGER,
        **selector(feed, component, extra),
    }


def child(
    feed: Feed,
    kind: Kind,
    name: str,
    component: str,
    content: Object,
    *,
    extra: Mapping[str, str] | None = None,
    user_labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Child:
    """Return a child in the feed's namespace, owned by the feed; the operator's labels override `user_labels`.

    Args:
        feed: the feed.
        kind: kind of the child.
        name: its name.
        component: its component label.
        content: everything but apiVersion, kind and metadata.
        extra: additional labels.
        user_labels: labels from the spec.
        annotations: additional annotations.
    """
    body: Object = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": feed.namespace,
            "labels": {
                **(user_labels or {}),
                **labels(feed, component, extra),
                FEED_NAMESPACE: feed.namespace,
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": feed.name,
                    "uid": feed.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        **content,
    }
    if annotations:
        body["metadata"]["annotations"] = dict(annotations)
    return Child(kind, feed.namespace, name, stamped(body))


def stamped(body: Object) -> Object:
    """Return `body` annotated with its hash, and its pod template with the hash of the template."""
    template = body.get("spec", {}).get("template")
    if template is not None:
        template["metadata"].setdefault("annotations", {})[CONFIG_HASH] = digest(template)
    body["metadata"].setdefault("annotations", {})[DESIRED_HASH] = digest(body)
    return body


def config_hash(body: Object | None) -> str:
    """Return the hash of a workload's pod template, or ""; a change of it rolls the pods."""
    if body is None:
        return ""
    return str(body["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH])


def component_of(child: Child) -> str:
    """Return the component label of a child; "" for one that is held."""
    return "" if child.body is None else str(child.body["metadata"]["labels"][COMPONENT])


def without_none(value: Mapping[str, Any]) -> Object:
    """Return `value` without the fields that are None."""
    return {key: found for key, found in value.items() if found is not None}
