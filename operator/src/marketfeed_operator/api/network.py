"""Part of the spec about the network policies of a feed's pods."""

from typing import Annotated, Literal

from pydantic import Field

from marketfeed_operator.api.affinity import LabelSelector
from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import CIDR_PATTERN, Port, is_within
from marketfeed_operator.api.worded import Worded

Cidr = Annotated[
    str,
    Field(min_length=3, max_length=49),
    Worded(CIDR_PATTERN, "a range of addresses is ADDRESS/BITS, such as 10.0.0.0/8 or fd00::/8"),
]


class IpBlock(Declared):
    """A range of addresses."""

    cidr: Cidr = Field(description="The range, for example 10.0.0.0/8 or fd00::/8.")
    but: Annotated[tuple[Cidr, ...], Field(max_length=8)] = Field(
        default=(), alias="except", description="Ranges within it that are left out."
    )

    rules = (
        Rule(
            "!has(self.except) || self.except.all(e, cidr(self.cidr).containsCIDR(e) && "
            "cidr(e).prefixLength() > cidr(self.cidr).prefixLength())",
            "each except of an ipBlock of networkPolicy.extraEgress is a range within cidr, and smaller",
            lambda self: all(is_within(each, self.cidr) for each in self.but),
        ),
    )


class Peer(Declared):
    """Who may be reached."""

    ip_block: IpBlock | None = Field(default=None, description="A range of addresses.")
    namespace_selector: LabelSelector | None = Field(default=None, description="Namespaces, by their labels.")
    pod_selector: LabelSelector | None = Field(default=None, description="Pods, by their labels.")

    rules = (
        Rule(
            "has(self.ipBlock) != (has(self.namespaceSelector) || has(self.podSelector))",
            "a peer of networkPolicy.extraEgress is an ipBlock or selectors, not both and not neither",
            lambda self: (
                (self.ip_block is not None)
                != (self.namespace_selector is not None or self.pod_selector is not None)
            ),
        ),
    )


class PolicyPort(Declared):
    """A port that may be reached."""

    protocol: Literal["TCP", "UDP"] = Field(default="TCP", description="Protocol.")
    port: Port = Field(description="The port, or the first of a range.")
    end_port: Port | None = Field(default=None, description="Last port of a range.")

    rules = (
        Rule(
            "!has(self.endPort) || self.endPort >= self.port",
            "endPort of networkPolicy.extraEgress must not be below port",
            lambda self: self.end_port is None or self.end_port >= self.port,
        ),
    )


class EgressRule(Declared):
    """Something else that the pods may reach."""

    to: Annotated[tuple[Peer, ...], Field(max_length=16)] = Field(
        default=(), description="Who; none means everybody."
    )
    ports: Annotated[tuple[PolicyPort, ...], Field(max_length=16)] = Field(
        default=(), description="Where; none means every port."
    )


class NetworkPolicy(Declared):
    """Network policies of the feed's pods."""

    enabled: bool = Field(
        default=True,
        description="Whether the pods' traffic is limited to what they need. Off, the network policies of the feed are "
        "removed.",
    )
    extra_egress: tuple[EgressRule, ...] = Field(
        default=(),
        max_length=16,
        description="More that the pods may reach, for example a proxy or a broker's other listeners.",
    )
