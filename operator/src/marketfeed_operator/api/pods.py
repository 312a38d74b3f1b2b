"""Pod parts of the spec: resources, identity, scheduling, logging."""

from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.affinity import Affinity
from marketfeed_operator.api.patterns import PatternRule
from marketfeed_operator.api.rules import Declared, Rule, keys_rule
from marketfeed_operator.api.values import Key, LabelValue, ObjectName, Quantity, SecretName, amount

_PART: Final = "[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*"
IMAGE_PATTERN: Final = (
    f"^([A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{{1,5}})?/)?{_PART}(/{_PART})*"
    "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[A-Za-z][A-Za-z0-9+._-]*:[0-9A-Fa-f]{32,128})?$"
)
"""[registry/]name[:tag][@digest], by the grammar of image references."""
Image = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    PatternRule(IMAGE_PATTERN, "an image is [REGISTRY[:PORT]/]NAME[:TAG][@DIGEST], its name in lower case"),
]
Text = Annotated[str, Field(max_length=1024)]

_OURS = ("marketfeed.dev/", "app.kubernetes.io/")
_NOT_OURS_CEL = "k, !k.startsWith('marketfeed.dev/') && !k.startsWith('app.kubernetes.io/')"
_SET_BY_CONTROLLERS: Final = (
    "job-name", "controller-uid", "pod-template-hash", "controller-revision-hash", "pod-template-generation",
)  # fmt: skip
_CONTROLLERS: Final = ("batch.kubernetes.io/", "apps.kubernetes.io/", "statefulset.kubernetes.io/")
_NOT_SET_CEL: Final = "k, " + " && ".join(
    [
        *(f"k != '{key}'" for key in _SET_BY_CONTROLLERS),
        *(f"!k.startsWith('{prefix}')" for prefix in _CONTROLLERS),
    ]
)
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")


def _resources_rule(field: str) -> Rule:
    known = " || ".join(f"k == '{each}'" for each in _RESOURCES)
    return Rule(
        f"!has(self.{field}) || self.{field}.all(k, {known})",
        f"resources.{field} has an unsupported resource name: use cpu, memory and ephemeral-storage",
        lambda self: set(getattr(self, field) or {}) <= set(_RESOURCES),
    )


def _within_limits(resources: "Resources") -> bool:
    limits = resources.limits or {}
    return all(
        amount(asked) <= amount(limits[name])
        for name, asked in (resources.requests or {}).items()
        if name in limits
    )


class Resources(Declared):
    """Compute resources of one container."""

    requests: dict[str, Quantity] | None = Field(
        default=None,
        max_length=8,
        description="Requested amount of each resource (cpu, memory, ephemeral-storage).",
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, max_length=8, description="Maximum amount of each resource."
    )

    rules = (
        _resources_rule("requests"),
        _resources_rule("limits"),
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
            "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
            "resources.requests of a resource is above its limit in resources.limits",
            _within_limits,
        ),
    )


class Logging(Declared):
    """Logging of workers and consumers."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Minimum severity of log messages."
    )
    format: Literal["text", "json"] = Field(
        default="json", description="Log format: text, or json for one JSON object per line."
    )


class Toleration(Declared):
    """Toleration of a node taint."""

    key: Key | None = Field(default=None, description="Key of the taint; empty means any.")
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="Operator that relates the key to the value."
    )
    value: LabelValue | None = Field(default=None, description="Value of the taint, for the operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; empty means any."
    )
    toleration_seconds: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Duration for which a NoExecute taint is tolerated, in seconds; empty means "
        "indefinitely.",
    )

    rules = (
        Rule(
            "has(self.key) || self.operator == 'Exists'",
            "a toleration without key needs operator: Exists",
            lambda self: self.key is not None or self.operator == "Exists",
        ),
        Rule(
            "self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "a toleration with operator Exists has no value",
            lambda self: self.operator != "Exists" or not self.value,
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds needs effect: NoExecute",
            lambda self: self.toleration_seconds is None or self.effect == "NoExecute",
        ),
    )


class SecurityContext(Declared):
    """User and groups of the pods. Fields without a value are not set, so that OpenShift may assign them."""

    run_as_user: int | None = Field(default=None, ge=1, le=2**31 - 1, description="User ID; must not be 0.")
    run_as_group: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Group ID.")
    fs_group: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Group ID of mounted volumes.")


class ServiceAccount(Declared):
    """ServiceAccount of the pods."""

    name: ObjectName | None = Field(
        default=None,
        description="Name of an existing ServiceAccount; defaults to FEED-pods, which the operator creates.",
    )
    annotations: dict[str, Text] | None = Field(
        default=None,
        max_length=32,
        description="Annotations of the created ServiceAccount, for workload identity.",
    )

    rules = (
        Rule(
            "!(has(self.name) && has(self.annotations))",
            "serviceAccount.annotations apply to the created ServiceAccount: not with serviceAccount.name",
            lambda self: self.name is None or self.annotations is None,
        ),
        keys_rule("annotations", "serviceAccount.annotations"),
    )


class PodTemplate(Declared):
    """Template of the feed's pods."""

    labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Additional labels of the pods."
    )
    annotations: dict[str, Text] | None = Field(
        default=None,
        max_length=32,
        description="Additional annotations of the pods. A change rolls the pods, for example after a "
        "Secret has changed.",
    )
    node_selector: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Node labels required by the pods."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=32, description="Tolerations of the pods."
    )
    affinity: Affinity | None = Field(default=None, description="Affinity of the pods, as in a pod spec.")
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    security_context: SecurityContext | None = Field(
        default=None,
        description="User and groups of the pods; defaults to those configured in the operator.",
    )
    image_pull_secrets: tuple[SecretName, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Names of existing image pull Secrets.",
    )

    rules = (
        keys_rule("labels", "template.labels"),
        keys_rule("annotations", "template.annotations"),
        keys_rule("nodeSelector", "template.nodeSelector"),
        Rule(
            f"!has(self.labels) || self.labels.all({_NOT_OURS_CEL})",
            "template.labels may not use keys under marketfeed.dev/ or app.kubernetes.io/: the operator "
            "sets those",
            lambda self: not any(key.startswith(_OURS) for key in self.labels or {}),
        ),
        Rule(
            f"!has(self.labels) || self.labels.all({_NOT_SET_CEL})",
            "template.labels may not use keys that Kubernetes controllers set, such as job-name",
            lambda self: (
                not any(
                    key in _SET_BY_CONTROLLERS or key.startswith(_CONTROLLERS) for key in self.labels or {}
                )
            ),
        ),
        Rule(
            f"!has(self.annotations) || self.annotations.all({_NOT_OURS_CEL})",
            "template.annotations may not use keys under marketfeed.dev/ or app.kubernetes.io/: the "
            "operator sets those",
            lambda self: not any(key.startswith(_OURS) for key in self.annotations or {}),
        ),
    )
