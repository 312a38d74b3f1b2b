"""Ownership of objects, from their metadata. Pure.

An object belongs to a feed when the operator created it and the feed controls it (the uid of the controlling owner
reference). Labels prove nothing: anyone may set them.
"""

from collections.abc import Mapping
from typing import Any, Final

from marketfeed_operator.facts import is_ours, owner_of
from marketfeed_operator.names import FEED, FEED_NAMESPACE, KIND
from marketfeed_operator.text import printable

_HELM_NAME: Final = "meta.helm.sh/release-name"
_HELM_NAMESPACE: Final = "meta.helm.sh/release-namespace"


def belongs_to(metadata: Mapping[str, Any], uid: str, desired_labels: Mapping[str, str]) -> bool:
    """Return whether the feed with that uid may change the object; as `ChildFacts.belongs_to`.

    Args:
        desired_labels: labels of the desired object. One without an owner is adopted only when it names that feed.
    """
    if not is_ours(metadata):
        return False
    owner, labels = owner_of(metadata), metadata.get("labels") or {}
    names_feed = labels.get(FEED) == desired_labels[FEED]
    return owner == uid or (
        not owner and names_feed and labels.get(FEED_NAMESPACE) in (None, desired_labels[FEED_NAMESPACE])
    )


def owner_text(metadata: Mapping[str, Any]) -> str:
    """Return who owns the object: its owner, its Helm release, or its field managers."""
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    controllers = [owner for owner in metadata.get("ownerReferences") or [] if owner.get("controller")]
    if controllers:
        text = f"{controllers[0].get('kind')} {controllers[0].get('name')} (uid {controllers[0].get('uid')})"
    elif _HELM_NAME in annotations:
        text = f"Helm release {annotations.get(_HELM_NAMESPACE, '?')}/{annotations[_HELM_NAME]}"
    elif is_ours(metadata) and FEED in labels:
        text = f"{KIND} {labels.get(FEED_NAMESPACE, metadata.get('namespace', ''))}/{labels[FEED]}"
    else:
        managers = sorted({str(entry.get("manager")) for entry in metadata.get("managedFields") or []})
        text = f"field manager {', '.join(managers) or 'unknown'}"
    return printable(text, 200)
