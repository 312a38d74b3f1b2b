"""Parts of the spec that shape pods: resources, placement, logging."""

from typing import Annotated, Any, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import LabelValue, SecretName

Quantity = Annotated[
    str,
    Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"),
]
Image = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
Text = Annotated[str, Field(max_length=1024)]

_OURS = ("marketfeed.dev/", "app.kubernetes.io/")
_NOT_OURS_CEL = "k, !k.startsWith('marketfeed.dev/') && !k.startsWith('app.kubernetes.io/')"


class Resources(Declared):
    """Compute resources of one container."""

    requests: dict[str, Quantity] | None = Field(
        default=None,
        max_length=8,
        description="Least amount of each resource (cpu, memory) that a pod is scheduled with.",
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, max_length=8, description="Most of each resource that a pod may use."
    )


class Logging(Declared):
    """How the services log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level that is logged."
    )
    format: Literal["text", "json"] = Field(
        default="json", description="text, or json for one object a line."
    )


class Toleration(Declared):
    """A taint that the pods may be scheduled in spite of."""

    key: str | None = Field(
        default=None, max_length=316, description="Key of the taint; none means every key."
    )
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="How the taint's value is compared."
    )
    value: str | None = Field(default=None, max_length=63, description="Value of the taint, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect that is tolerated; none means every effect."
    )
    toleration_seconds: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="How long NoExecute is tolerated, in seconds; none means for ever.",
    )


class PodTemplate(Declared):
    """What is added to each pod of the feed."""

    labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels added to each pod."
    )
    annotations: dict[str, Text] | None = Field(
        default=None,
        max_length=32,
        description="Annotations added to each pod. A change of one restarts the pods in turn, for example after a "
        "Secret has changed.",
    )
    node_selector: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels that a node must have."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=32, description="Taints that the pods may be scheduled in spite of."
    )
    affinity: dict[str, Any] | None = Field(
        default=None, description="Affinity of the pods, as in a pod's spec; handed on as it is."
    )
    priority_class_name: str | None = Field(
        default=None, min_length=1, max_length=253, description="PriorityClass of the pods."
    )
    image_pull_secrets: tuple[SecretName, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Names of the Secrets that the images are pulled with.",
    )

    rules = (
        Rule(
            f"!has(self.labels) || self.labels.all({_NOT_OURS_CEL})",
            "template.labels may not use keys under marketfeed.dev/ or app.kubernetes.io/: the operator sets those",
            lambda self: not any(key.startswith(_OURS) for key in self.labels or {}),
        ),
        Rule(
            f"!has(self.annotations) || self.annotations.all({_NOT_OURS_CEL})",
            "template.annotations may not use keys under marketfeed.dev/ or app.kubernetes.io/: "
            "the operator sets those",
            lambda self: not any(key.startswith(_OURS) for key in self.annotations or {}),
        ),
    )
