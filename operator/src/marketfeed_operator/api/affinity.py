"""Pod affinity, declared field by field as in a pod spec.

Not an untyped object: that could have any depth, and no API client survives a list with an object nested several
thousand levels deep.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import Field

from marketfeed_operator.api.rules import Declared, Rule, keys_rule
from marketfeed_operator.api.values import DnsLabel, Key, LabelValue, ObjectName

_IN_HAS_VALUES: Final = Rule(
    "(self.operator == 'In' || self.operator == 'NotIn') == (self.values.size() > 0)",
    "an expression of a label selector needs values with operator In or NotIn, and none with Exists or "
    "DoesNotExist",
    lambda self: (self.operator in ("In", "NotIn")) == bool(self.values),
)


class NodeRequirement(Declared):
    """Requirement on the labels of a node."""

    key: Key = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="Operator that relates the key to the values."
    )
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = Field(
        default=(), description="Values, for the operators In, NotIn, Gt and Lt."
    )

    rules = (
        Rule(
            "self.operator == 'Gt' || self.operator == 'Lt' "
            "? self.values.size() == 1 && self.values[0].matches('^[0-9]{1,18}$') "
            ": (self.operator == 'In' || self.operator == 'NotIn') == (self.values.size() > 0)",
            "an expression of a node selector needs values with operator In or NotIn, one whole number with "
            "Gt or Lt, and none with Exists or DoesNotExist",
            lambda self: (
                len(self.values) == 1 and re.fullmatch("[0-9]{1,18}", self.values[0]) is not None
                if self.operator in ("Gt", "Lt")
                else (self.operator in ("In", "NotIn")) == bool(self.values)
            ),
        ),
    )


class NodeFieldRequirement(Declared):
    """Requirement on the fields of a node; Kubernetes supports metadata.name only."""

    key: Literal["metadata.name"] = Field(description="Field name; only metadata.name is supported.")
    operator: Literal["In", "NotIn"] = Field(description="Operator that relates the field to the value.")
    values: Annotated[tuple[ObjectName, ...], Field(min_length=1, max_length=1)] = Field(
        description="Node name."
    )


class NodeTerm(Declared):
    """Node selector term: the conjunction of its requirements."""

    match_expressions: tuple[NodeRequirement, ...] = Field(
        default=(), max_length=32, description="Requirements on the labels of the node."
    )
    match_fields: tuple[NodeFieldRequirement, ...] = Field(
        default=(), max_length=8, description="Requirements on the fields of the node."
    )


class NodeSelector(Declared):
    """Node selector: the disjunction of its terms."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(
        min_length=1, max_length=16, description="Node selector terms, at least one of which must match."
    )


class PreferredNodeTerm(Declared):
    """Weighted preference for nodes."""

    weight: int = Field(ge=1, le=100, description="Weight of the term.")
    preference: NodeTerm = Field(description="Node selector term.")


class NodeAffinity(Declared):
    """Node affinity of the pods."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="Required node selector terms, at least one of which must match."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodeTerm, ...] = Field(
        default=(), max_length=16, description="Preferred node selector terms."
    )


class LabelRequirement(Declared):
    """Requirement on labels."""

    key: Key = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="Operator that relates the key to the values."
    )
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = Field(
        default=(), description="Values, for the operators In and NotIn."
    )

    rules = (_IN_HAS_VALUES,)


class LabelSelector(Declared):
    """Label selector."""

    match_labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels that an object must have."
    )
    match_expressions: tuple[LabelRequirement, ...] = Field(
        default=(), max_length=32, description="Requirements on the labels of an object."
    )

    rules = (keys_rule("matchLabels", "matchLabels"),)


class PodTerm(Declared):
    """Pod affinity term: a set of pods and a topology domain."""

    label_selector: LabelSelector | None = Field(default=None, description="Label selector of the pods.")
    topology_key: Key = Field(description="Node label that defines the topology domain.")
    namespaces: Annotated[tuple[DnsLabel, ...], Field(max_length=32)] = Field(
        default=(), description="Namespaces of the pods; defaults to the feed's namespace."
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Label selector of the namespaces of the pods."
    )


class WeightedPodTerm(Declared):
    """Weighted pod affinity term."""

    weight: int = Field(ge=1, le=100, description="Weight of the term.")
    pod_affinity_term: PodTerm = Field(description="Pod affinity term.")


class PodAffinity(Declared):
    """Pod affinity or anti-affinity."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] = Field(
        default=(), max_length=16, description="Required terms."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodTerm, ...] = Field(
        default=(), max_length=16, description="Preferred terms."
    )


class Affinity(Declared):
    """Affinity of the pods."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Nodes.")
    pod_affinity: PodAffinity | None = Field(default=None, description="Pods to be co-located with.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="Pods not to be co-located with.")
