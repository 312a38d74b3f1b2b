"""Affinity of pods, field by field as in a pod's spec.

Not an object that is handed on as it is: that could be of any depth, and no client of the API server survives a list in
which one object is nested some thousand times.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared, Rule, keys_rule
from marketfeed_operator.api.values import DnsLabel, Key, LabelValue, ObjectName

_IN_HAS_VALUES: Final = Rule(
    "(self.operator == 'In' || self.operator == 'NotIn') == (self.values.size() > 0)",
    "an expression of a label selector needs values with operator In or NotIn, and has none with Exists or "
    "DoesNotExist",
    lambda self: (self.operator in ("In", "NotIn")) == bool(self.values),
)


class NodeRequirement(Declared):
    """A requirement of a node's labels."""

    key: Key = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="Relation of the key to the values."
    )
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = Field(
        default=(), description="Values, for In, NotIn, Gt and Lt."
    )

    rules = (
        Rule(
            "self.operator == 'Gt' || self.operator == 'Lt' "
            "? self.values.size() == 1 && self.values[0].matches('^[0-9]{1,18}$') "
            ": (self.operator == 'In' || self.operator == 'NotIn') == (self.values.size() > 0)",
            "an expression of a node selector needs values with operator In or NotIn, one whole number with Gt or Lt, "
            "and has none with Exists or DoesNotExist",
            lambda self: (
                len(self.values) == 1 and re.fullmatch("[0-9]{1,18}", self.values[0]) is not None
                if self.operator in ("Gt", "Lt")
                else (self.operator in ("In", "NotIn")) == bool(self.values)
            ),
        ),
    )


class NodeFieldRequirement(Declared):
    """A requirement of a node's fields, of which Kubernetes knows the name alone."""

    key: Literal["metadata.name"] = Field(description="Field, metadata.name.")
    operator: Literal["In", "NotIn"] = Field(description="Relation of the field to the value.")
    values: Annotated[tuple[ObjectName, ...], Field(min_length=1, max_length=1)] = Field(
        description="Name of a node."
    )


class NodeTerm(Declared):
    """A term of a node selector: all of its requirements."""

    match_expressions: tuple[NodeRequirement, ...] = Field(
        default=(), max_length=32, description="Requirements of the node's labels."
    )
    match_fields: tuple[NodeFieldRequirement, ...] = Field(
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

    rules = (_IN_HAS_VALUES,)


class LabelSelector(Declared):
    """Objects by their labels."""

    match_labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels that an object must have."
    )
    match_expressions: tuple[LabelRequirement, ...] = Field(
        default=(), max_length=32, description="Requirements of an object's labels."
    )

    rules = (keys_rule("matchLabels", "matchLabels"),)


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
