"""Limits that the administrator sets for feeds, beyond the validation of the CRD. Pure.

Anyone who may write a MarketFeed in a namespace uses the operator's permissions: these settings limit that
(docs/security.md). A feed beyond the limits is not changed, and reports it.
"""

from dataclasses import dataclass

from marketfeed_operator.api import Spec

_ENDS = ("/", ":", "@")


@dataclass(frozen=True)
class Policy:
    """Limits for feeds; an empty list of images or priority classes allows any.

    Attributes:
        images: allowed image prefixes. One that does not end in /, : or @ matches whole name components:
            registry.example/team allows registry.example/team/worker:1, not registry.example/teams.
        priority_classes: allowed PriorityClasses.
        topic_namespaces: namespaces besides its own in which a feed may declare topics; * allows any.
        own_endpoints: whether a feed may set spec.endpoints.
    """

    images: tuple[str, ...] = ()
    priority_classes: tuple[str, ...] = ()
    topic_namespaces: tuple[str, ...] = ()
    own_endpoints: bool = True

    def refusals(self, namespace: str, spec: Spec) -> list[str]:
        """Return what a feed of `namespace` requests beyond the limits, one sentence each."""
        found = [
            f"spec.images.{field}={image!r:.100} is not among the images that the operator allows: "
            f"{', '.join(self.images)}"
            for field, image in self._images(spec)
            if self.images and not any(_begins(image, prefix) for prefix in self.images)
        ]
        requested = spec.template.priority_class_name
        if requested is not None and self.priority_classes and requested not in self.priority_classes:
            found.append(
                f"spec.template.priorityClassName={requested!r} is not among those that the operator allows: "
                f"{', '.join(self.priority_classes)}"
            )
        cluster = spec.kafka.cluster
        elsewhere = cluster.namespace if cluster is not None and spec.kafka.manage_topics else None
        allowed = {namespace, None, *self.topic_namespaces}
        if elsewhere not in allowed and "*" not in allowed:
            found.append(
                f"spec.kafka.manageTopics declares topics in namespace {elsewhere}, which the operator does "
                f"not allow feeds of {namespace} (setting TOPIC_NAMESPACES): create the topics there, and "
                "set manageTopics: false"
            )
        given = spec.endpoints is not None and (spec.endpoints.websocket or spec.endpoints.rest)
        if given and not self.own_endpoints:
            found.append(
                "spec.endpoints is not allowed by the operator (setting ALLOW_OWN_ENDPOINTS): remove it to "
                "use the venue's own addresses"
            )
        return found

    @staticmethod
    def _images(spec: Spec) -> list[tuple[str, str]]:
        images = spec.images
        named = [("worker", images.worker), ("consumer", images.consumer)] if images is not None else []
        return [(field, image) for field, image in named if image is not None]


def _begins(image: str, prefix: str) -> bool:
    rest = image.removeprefix(prefix)
    if not image.startswith(prefix):
        return False
    # A colon before a slash begins a port: another port of a registry host is another registry.
    ends_a_part = rest.startswith(_ENDS) and not (rest.startswith(":") and "/" in rest)
    return not rest or prefix.endswith(_ENDS) or ends_a_part
