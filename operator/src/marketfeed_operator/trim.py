"""Trim watched objects before kopf stores them: the fields that `facts` reads, and a digest of the whole object.

kopf queues any number of objects, and the authors of objects with our labels choose their size.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.desired.config_map import DRAINING, OLD_DRAINING
from marketfeed_operator.facts import MAX_ANNOTATION, digest_of, is_ours
from marketfeed_operator.kinds import POD, WATCHED
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
from marketfeed_wire.assignment import FILE_NAME

Object = dict[str, Any]

DIGEST: Final = "digest"
"""Key in a trimmed object: `digest_of` the original."""

_METADATA: Final = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
)  # fmt: skip
_LABELS: Final = (FEED, FEED_NAMESPACE, SHARD, COMPONENT)
_POD_STATUS: Final = (
    "phase", "reason", "message", "podIP", "conditions", "initContainerStatuses", "containerStatuses",
)  # fmt: skip


def trimming(plural: str) -> Callable[[Object], Object] | None:
    """Return the function that trims objects of that plural; None for kinds that are not watched."""
    if plural == FEEDS.plural:
        return _feed
    if plural == POD.plural:
        return _pod
    return _child if any(kind.plural == plural for kind in WATCHED) else None


def _feed(body: Object) -> Object:
    return {**_head(body), **_part(body, ("spec", "status"))}


def _pod(body: Object) -> Object:
    return {**_head(body), "status": _part(body.get("status") or {}, _POD_STATUS)}


def _child(body: Object) -> Object:
    found = {**_head(body), DIGEST: digest_of(body)}
    if "spec" in body:
        found["spec"] = _spec(body["spec"] or {})
    if "status" in body:
        found["status"] = body["status"]
    # Only ConfigMaps of shards that the operator created are read.
    if "data" in body and SHARD in found["metadata"]["labels"] and is_ours(found["metadata"]):
        found["data"] = _part(body["data"] or {}, (FILE_NAME, DRAINING, OLD_DRAINING))
    return found


def _spec(spec: Mapping[str, Any]) -> Object:
    found = _part(spec, ("replicas", "paused", "suspend"))
    if "jobTemplate" in spec:
        found["jobTemplate"] = {"spec": _spec(spec["jobTemplate"].get("spec") or {})}
    if "template" in spec:
        template = spec["template"]
        annotations = (template.get("metadata") or {}).get("annotations") or {}
        found["template"] = {
            "metadata": {"annotations": _short(annotations, (CONFIG_HASH, SECRET_VERSIONS))},
            "spec": _part(template.get("spec") or {}, ("serviceAccountName",)),
        }
    return found


def _head(body: Object) -> Object:
    metadata = body["metadata"]
    return {
        **_part(body, ("apiVersion", "kind")),
        "metadata": {
            **_part(metadata, _METADATA),
            "labels": _part(metadata.get("labels") or {}, _LABELS),
            "annotations": _short(metadata.get("annotations") or {}, (DESIRED_HASH,)),
            "ownerReferences": [
                _part(owner, ("uid", "controller"))
                for owner in metadata.get("ownerReferences") or []
                if owner.get("controller")
            ],
            "managedFields": _managed(metadata.get("managedFields") or []),
        },
    }


def _managed(entries: Iterable[Object]) -> list[Object]:
    """Return the entries of the operator's field managers, each once, with the replica count as their only field."""
    found = {
        (entry["manager"], entry.get("operation"), "f:replicas" in _fields(entry).get("f:spec", {}))
        for entry in entries
        if entry.get("manager") in (FIELD_MANAGER, CREATION_MANAGER)
    }
    return [
        {
            "manager": manager,
            "operation": operation,
            "fieldsV1": {"f:spec": {"f:replicas": {}}} if replicas else {},
        }
        for manager, operation, replicas in sorted(found, key=str)
    ]


def _fields(entry: Object) -> Object:
    return entry.get("fieldsV1") or {}


def _part(value: Mapping[str, Any], keys: Iterable[str]) -> Object:
    return {key: value[key] for key in keys if key in value}


def _short(annotations: Mapping[str, str], keys: Iterable[str]) -> Object:
    return {key: text[:MAX_ANNOTATION] for key, text in _part(annotations, keys).items()}
