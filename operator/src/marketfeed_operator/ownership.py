"""Whose an object is, from its metadata. Pure.

An object is a feed's when the operator has applied it and the feed controls it (its uid is that of the controlling
owner reference). Labels prove nothing: anybody may set them.
"""

from collections.abc import Mapping
from typing import Any, Final

from marketfeed_operator.facts import is_ours, owner_of
from marketfeed_operator.names import FEED, FEED_NAMESPACE, FIELD_MANAGER, KIND
from marketfeed_operator.text import printable

_HELM_NAME: Final = "meta.helm.sh/release-name"
_HELM_NAMESPACE: Final = "meta.helm.sh/release-namespace"


def belongs_to(metadata: Mapping[str, Any], uid: str) -> bool:
    """Whether the feed of that uid may change the object; as `ChildFacts.belongs_to`."""
    return is_ours(metadata) and owner_of(metadata) in ("", uid)


def made_only_by_us(metadata: Mapping[str, Any]) -> bool:
    """Whether nobody else has set a field of the object; what controllers write into its status is no field of it."""
    return all(
        entry.get("manager") == FIELD_MANAGER
        for entry in metadata.get("managedFields") or []
        if entry.get("subresource") != "status"
    )


def owner_text(metadata: Mapping[str, Any]) -> str:
    """Who the object belongs to, as far as it tells: its owner, its Helm release, or who has set its fields."""
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
        text = f"whoever applied it as {', '.join(managers) or 'nobody known'}"
    return printable(text, 200)
