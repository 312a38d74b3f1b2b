"""Affinity of pods, field by field as in a pod's spec.

Not an object that is handed on as it is: that could be of any depth, and no client of the API server survives a list in
which one object is nested some thousand times.
"""

from typing import Annotated, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared
from marketfeed_operator.api.values import DnsLabel, Key, LabelValue

Text = Annotated[str, Field(max_length=253)]
Values = Annotated[tuple[Text, ...], Field(max_length=64)]


class NodeRequirement(Declared):
    """A requirement of a node's labels or fields."""

    key: Key = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="Relation of the key to the values."
    )
    values: Values = Field(default=(), description="Values, for In, NotIn, Gt and Lt.")


class NodeTerm(Declared):
    """A term of a node selector: all of its requirements."""

    match_expressions: tuple[NodeRequirement, ...] = Field(
        default=(), max_length=32, description="Requirements of the node's labels."
    )
    match_fields: tuple[NodeRequirement, ...] = Field(
        default=(), max_length=8, description="Requirements of the node's fields."
    )


class NodeSelector(Declared):
    """Terms of which one must match."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(
        min_length=1, max_length=16, description="Terms of which one must match."
    )


class PreferredNodeTerm(Declared):
    """A term that is preferred."""

    weight: int = Field(ge=1, le=100, description="Weight of the term.")
    preference: NodeTerm = Field(description="The term.")


class NodeAffinity(Declared):
    """Nodes that the pods are scheduled to."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="Terms of which a node must match one."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodeTerm, ...] = Field(
        default=(), max_length=16, description="Terms that a node should match."
    )


class LabelRequirement(Declared):
    """A requirement of labels."""

    key: Key = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="Relation of the key to the values."
    )
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = Field(
        default=(), description="Values, for In and NotIn."
    )


class LabelSelector(Declared):
    """Objects by their labels."""

    match_labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels that an object must have."
    )
    match_expressions: tuple[LabelRequirement, ...] = Field(
        default=(), max_length=32, description="Requirements of an object's labels."
    )


class PodTerm(Declared):
    """Pods, and the part of the cluster within which they count."""

    label_selector: LabelSelector | None = Field(default=None, description="The pods, by their labels.")
    topology_key: Key = Field(description="Node label that names the parts of the cluster.")
    namespaces: Annotated[tuple[DnsLabel, ...], Field(max_length=32)] = Field(
        default=(), description="Namespaces of the pods; none means the feed's own."
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Namespaces of the pods, by their labels."
    )


class WeightedPodTerm(Declared):
    """Pods that are preferred, or avoided."""

    weight: int = Field(ge=1, le=100, description="Weight of the term.")
    pod_affinity_term: PodTerm = Field(description="The term.")


class PodAffinity(Declared):
    """Pods that are to be near, or far."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] = Field(
        default=(), max_length=16, description="Terms that must hold."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodTerm, ...] = Field(
        default=(), max_length=16, description="Terms that should hold."
    )


class Affinity(Declared):
    """Affinity of the pods."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Nodes.")
    pod_affinity: PodAffinity | None = Field(default=None, description="Pods to be near.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="Pods to be far from.")
