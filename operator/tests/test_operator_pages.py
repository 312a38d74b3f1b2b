"""Untrusted objects are reduced to bounded size, with the same facts as of the whole object."""

import json
import resource
from typing import Any

import pytest
from test_operator_desired import children, feed

from marketfeed_operator.desired import Object
from marketfeed_operator.facts import child_facts, feed_facts, pod_facts
from marketfeed_operator.names import CREATION_MANAGER, FIELD_MANAGER
from marketfeed_operator.pages import taken
from marketfeed_operator.trim import DIGEST, trimming

FIELDS = {"f:spec": {"f:replicas": {}, "f:template": {}}, "f:metadata": {"f:labels": {}}}
ENTRIES = [
    {"manager": "kubectl", "operation": "Update", "fieldsV1": FIELDS},
    {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": FIELDS},
    {"manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": {}},
    {"manager": CREATION_MANAGER, "operation": "Update"},
]
STATUS = {
    "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1, "observedGeneration": 3, "active": 1,
    "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}],
}  # fmt: skip


def stored(body: Object, managed: list[Object]) -> Object:
    metadata = {
        **body["metadata"], "uid": "1", "resourceVersion": "7", "creationTimestamp": "2026-11-30T00:00:00Z",
        "managedFields": managed, "generation": 4,
    }  # fmt: skip
    if "spec" not in body:
        del metadata["generation"]
    return {**body, "metadata": metadata, "status": STATUS}


@pytest.mark.parametrize("managed", [ENTRIES, ENTRIES[:1], ENTRIES[3:], []])
def test_trim_child_has_the_same_facts(managed):
    for (kind, name), child in children(feed()).items():
        body = stored(child.body, managed)
        trim = trimming(child.kind.plural)
        if trim is None:
            assert child.kind.optional
            continue
        trimmed = trim(json.loads(json.dumps(body)))
        assert child_facts(kind, trimmed, trimmed[DIGEST]) == child_facts(kind, body), name


def test_trim_feed_and_pod_have_the_same_facts():
    labels = {
        "marketfeed.dev/feed": "a",
        "marketfeed.dev/shard": "1",
        "app.kubernetes.io/component": "ingestion",
    }
    metadata = {
        "name": "a",
        "namespace": "n",
        "uid": "1",
        "resourceVersion": "7",
        "generation": 2,
        "labels": labels,
    }
    body = {"metadata": metadata, "spec": {"venue": "binance_us"}, "status": {"observedGeneration": 1}}
    assert feed_facts(trimming("marketfeeds")(body)) == feed_facts(body)
    waiting = {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    status = {
        "phase": "Pending", "podIP": "10.0.0.1", "containerStatuses": [waiting],
        "conditions": [{"type": "Ready", "status": "False"}],
    }  # fmt: skip
    pod = {"metadata": metadata, "spec": {"containers": []}, "status": status}
    assert pod_facts(trimming("pods")(pod)) == pod_facts(pod)


@pytest.mark.parametrize("where", ["data", "binaryData", "labels", "annotations", "managedFields", "shard"])
def test_trim_reduces_large_objects_with_our_labels(where):
    """Whatever part of it is large; `shard` is an assignment file that was not written by the operator."""
    many = {f"k{number:06}": "" for number in range(60_000)}
    metadata: Object = {"name": "a", "namespace": "n", "uid": "1", "labels": {"marketfeed.dev/feed": "a"}}
    body: Object = {"metadata": metadata, "data": {}}
    if where in ("data", "binaryData"):
        body[where] = many
    elif where == "managedFields":
        metadata[where] = [{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": many}] * 3
    elif where == "shard":
        metadata["labels"]["marketfeed.dev/shard"] = "0"
        body["data"] = {"assignment.json": json.dumps(list(many)), "leaving.json": json.dumps(list(many))}
    else:
        metadata[where] = {**metadata.get(where, {}), **many}
    trimmed = trimming("configmaps")(body)
    assert len(json.dumps(trimmed)) < 1_000
    assert len(repr(child_facts("ConfigMap", trimmed, trimmed[DIGEST]))) < 1_000


def test_pages_are_decoded_object_by_object():
    """As a whole it would need some 600 MiB; a sixth of that is allowed."""
    item = {"metadata": {"name": "a"}, "spec": {"config": [[] for _ in range(500_000)]}}
    head = {
        "kind": "KafkaTopicList",
        "apiVersion": "v1",
        "metadata": {"continue": "next", "resourceVersion": "7"},
    }
    text = json.dumps({**head, "items": [item] * 12}, separators=(",", ":")).encode()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def name_of(body: dict[str, Any]) -> str:
        return str(body["metadata"]["name"])

    page = taken(text, name_of, 20)
    assert (page.items, page.proceed, page.head) == (["a"] * 12, "next", head)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"metadata":{},"items":[', b'{"metadata":7}'])
def test_pages_that_are_not_lists_are_refused(text):
    with pytest.raises(ValueError, match="not a list"):
        taken(text, lambda body: body, 20)
