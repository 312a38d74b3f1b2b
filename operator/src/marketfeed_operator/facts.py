"""Facts of a stored object, as sent by the API server."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from marketfeed_operator.api.values import are_bootstrap_servers
from marketfeed_operator.desired import digest, stored_assignment
from marketfeed_operator.kinds import BY_NAME, KAFKA_TOPIC
from marketfeed_operator.names import (
    COMPONENT,
    CONFIG_HASH,
    CREATION_MANAGER,
    DESIRED_HASH,
    FEED,
    FEED_NAMESPACE,
    FIELD_MANAGER,
    SECRET_VERSIONS,
    SHARD,
)
from marketfeed_operator.observed import ChildFacts, FeedFacts, JobState, KafkaListener, PodFacts
from marketfeed_operator.trouble import pod_trouble, workload_trouble

Body = Mapping[str, Any]

MAX_ANNOTATION: Final = 4096
_BESIDE_CONTENT: Final = ("metadata", "status", "apiVersion", "kind")
"""Absent for items of a list: with them every audit would find all objects changed."""


def feed_facts(body: Body) -> FeedFacts:
    """Return the facts of a MarketFeed."""
    metadata = body["metadata"]
    return FeedFacts(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata.get("resourceVersion", ""),
        # Plain copies: the watch passes views of much larger objects.
        spec=json.loads(json.dumps(dict(body.get("spec") or {}))),
        status=json.loads(json.dumps(dict(body.get("status") or {}))),
        deleting="deletionTimestamp" in metadata,
    )


def child_facts(kind: str, body: Body, known_digest: str = "") -> ChildFacts | None:
    """Return the facts of a child; None when its labels name no feed.

    Args:
        known_digest: `digest_of` the object, when `body` is only a part of it.
    """
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    if FEED not in labels:
        return None
    namespace = metadata["namespace"]
    # Of custom resources of other operators only the metadata has a reliable form.
    beside = {} if BY_NAME[kind].optional else body
    spec, status = beside.get("spec") or {}, beside.get("status") or {}
    annotations = metadata.get("annotations") or {}
    template = _template(spec)
    of_pods = (template.get("metadata") or {}).get("annotations") or {}
    desired = spec.get("replicas", 1) if kind in ("Deployment", "StatefulSet") else 0
    return ChildFacts(
        key=(kind, namespace, metadata["name"]),
        feed=(_feed_namespace(kind, namespace, labels), labels[FEED]),
        uid=metadata["uid"],
        resource_version=metadata.get("resourceVersion", ""),
        digest=known_digest or digest_of(body),
        desired_hash=_kept(annotations, DESIRED_HASH),
        config_hash=_kept(of_pods, CONFIG_HASH),
        secret_versions=_kept(of_pods, SECRET_VERSIONS),
        desired=desired,
        current=status.get("active" if kind == "Job" else "replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        settled=status.get("observedGeneration", 0) >= metadata.get("generation", 0),
        replicas_ours=_owns_replicas(metadata.get("managedFields") or []),
        component=labels.get(COMPONENT, ""),
        owner=owner_of(metadata),
        ours=is_ours(metadata),
        account=(template.get("spec") or {}).get("serviceAccountName", ""),
        trouble=workload_trouble(kind, beside),
        created=metadata.get("creationTimestamp", ""),
        job=_job_state(status) if kind == "Job" else "None",
        # Nothing is read or kept of foreign objects: they may have any size.
        assignment=stored_assignment(dict(body.get("data") or {}))
        if kind == "ConfigMap" and SHARD in labels and is_ours(metadata)
        else None,
    )


def _kept(annotations: Body, key: str) -> str:
    """Return an annotation, truncated to the maximum length of the operator's own."""
    return str(annotations.get(key, ""))[:MAX_ANNOTATION]


def _feed_namespace(kind: str, namespace: str, labels: Body) -> str:
    """Return the namespace of a child's feed: only topics may be in another namespace.

    Otherwise anyone who may create a ConfigMap anywhere could affect the shards of any feed.
    """
    return str(labels.get(FEED_NAMESPACE, namespace)) if kind == KAFKA_TOPIC.kind else namespace


def owner_of(metadata: Body) -> str:
    """Return the uid of the controlling owner; "" for none."""
    owners = [owner for owner in metadata.get("ownerReferences") or [] if owner.get("controller")]
    return str(owners[0]["uid"]) if owners else ""


def is_ours(metadata: Body) -> bool:
    """Return whether the operator created or applied the object."""
    return creation_entry(metadata) is not None or any(
        entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        for entry in metadata.get("managedFields") or []
    )


def creation_entry(metadata: Body) -> int | None:
    """Return the index in `managedFields` of the operator's creation entry; None when it was released."""
    entries = metadata.get("managedFields") or []
    return next(
        (place for place, entry in enumerate(entries) if entry.get("manager") == CREATION_MANAGER),
        None,
    )


def _template(spec: Body) -> Body:
    """Return the pod template of a workload; empty for other kinds."""
    inner = (spec.get("jobTemplate") or {}).get("spec") or spec
    return inner.get("template") or {}


def digest_of(body: Body) -> str:
    """Return a digest that changes with any change of a child by another party."""
    metadata = body["metadata"]
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if not key.startswith("deployment.kubernetes.io/")
    }
    values = {
        "uid": metadata["uid"],  # a new object under the same name starts at generation 1 again
        "labels": dict(metadata.get("labels") or {}),
        "annotations": annotations,
        "owners": [dict(owner) for owner in metadata.get("ownerReferences") or []],
        "deleted": metadata.get("deletionTimestamp"),
    }
    # For kinds with a generation, it stands for the spec; other kinds are compared completely.
    if "generation" in metadata:
        values["generation"] = metadata["generation"]
    else:
        values["content"] = {key: value for key, value in body.items() if key not in _BESIDE_CONTENT}
    return digest(json.loads(json.dumps(values, default=dict)))


def _owns_replicas(managed: list[Body]) -> bool:
    return any(
        entry.get("manager") == FIELD_MANAGER
        and "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        for entry in managed
    )


def _job_state(status: Body) -> JobState:
    for condition in status.get("conditions") or []:
        if condition["status"] == "True" and condition["type"] == "Complete":
            return "Succeeded"
        if condition["status"] == "True" and condition["type"] == "Failed":
            return "Failed"
    return "Running"


def pod_facts(body: Body) -> PodFacts | None:
    """Return the facts of a pod; None when its labels name no feed."""
    metadata, status = body["metadata"], body.get("status") or {}
    labels = metadata.get("labels") or {}
    if FEED not in labels:
        return None
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    shard = labels.get(SHARD)
    # The IP address of a terminated or terminating pod may be reused.
    ended = status.get("phase") in ("Failed", "Succeeded")
    gone = ended or metadata.get("deletionTimestamp")
    return PodFacts(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        feed=(metadata["namespace"], labels[FEED]),
        component=labels.get(COMPONENT, ""),
        shard=int(shard) if shard is not None and shard.isdigit() else None,
        ip="" if gone else status.get("podIP", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        trouble=pod_trouble(status, conditions),
        ended=ended,
    )


def kafka_listeners(body: Body) -> tuple[KafkaListener, ...]:
    """Return the listeners in the status of a Strimzi Kafka; none before the cluster is up.

    The resource belongs to another operator, in any version: unexpected fields are ignored.
    """
    status, spec = _mapping(body.get("status")), _mapping(body.get("spec"))
    values = {
        listener.get("name"): listener.get("bootstrapServers")
        for listener in _mappings(status.get("listeners"))
    }
    return tuple(
        KafkaListener(
            port=port,
            tls=bool(listener.get("tls")),
            internal=listener.get("type") in ("internal", "cluster-ip"),
            bootstrap_servers=servers,
        )
        for listener in _mappings(_mapping(spec.get("kafka")).get("listeners"))
        if isinstance(port := listener.get("port"), int)
        and 0 < port < 65_536
        and isinstance(servers := values.get(listener.get("name")), str)
        and are_bootstrap_servers(servers)
    )


def _mapping(value: Any) -> Body:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Body]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, Sequence) else []
