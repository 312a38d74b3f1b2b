"""Network policy part of the spec."""

from typing import Annotated, Literal

from pydantic import Field

from marketfeed_operator.api.affinity import LabelSelector
from marketfeed_operator.api.patterns import PatternRule
from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.values import CIDR_PATTERN, Port, is_within

Cidr = Annotated[
    str,
    Field(min_length=3, max_length=49),
    PatternRule(CIDR_PATTERN, "an address range is ADDRESS/BITS, such as 10.0.0.0/8 or fd00::/8"),
]


class IpBlock(Declared):
    """IP address range."""

    cidr: Cidr = Field(description="CIDR of the range, for example 10.0.0.0/8 or fd00::/8.")
    but: Annotated[tuple[Cidr, ...], Field(max_length=8)] = Field(
        default=(), alias="except", description="CIDRs within the range that are excluded."
    )

    rules = (
        Rule(
            "!has(self.except) || self.except.all(e, cidr(self.cidr).containsCIDR(e) && "
            "cidr(e).prefixLength() > cidr(self.cidr).prefixLength())",
            "each except of an ipBlock of networkPolicy.extraEgress must be a range within cidr, and smaller",
            lambda self: all(is_within(each, self.cidr) for each in self.but),
        ),
    )


class Peer(Declared):
    """Destination of an egress rule."""

    ip_block: IpBlock | None = Field(default=None, description="IP address range.")
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Label selector of namespaces."
    )
    pod_selector: LabelSelector | None = Field(default=None, description="Label selector of pods.")

    rules = (
        Rule(
            "has(self.ipBlock) != (has(self.namespaceSelector) || has(self.podSelector))",
            "a peer of networkPolicy.extraEgress has either an ipBlock or selectors",
            lambda self: (
                (self.ip_block is not None)
                != (self.namespace_selector is not None or self.pod_selector is not None)
            ),
        ),
    )


class PolicyPort(Declared):
    """Destination port of an egress rule."""

    protocol: Literal["TCP", "UDP"] = Field(default="TCP", description="Protocol.")
    port: Port = Field(description="Port number, or the first port of a range.")
    end_port: Port | None = Field(default=None, description="Last port of the range.")

    rules = (
        Rule(
            "!has(self.endPort) || self.endPort >= self.port",
            "endPort of networkPolicy.extraEgress must not be below port",
            lambda self: self.end_port is None or self.end_port >= self.port,
        ),
    )


class EgressRule(Declared):
    """Additional egress rule."""

    to: Annotated[tuple[Peer, ...], Field(max_length=16)] = Field(
        default=(), description="Destinations; empty means any."
    )
    ports: Annotated[tuple[PolicyPort, ...], Field(max_length=16)] = Field(
        default=(), description="Destination ports; empty means any."
    )


class NetworkPolicy(Declared):
    """Network policies of the feed's pods."""

    enabled: bool = Field(
        default=True,
        description="Whether the traffic of the pods is limited to what they require. When false, the feed "
        "has no network policies.",
    )
    extra_egress: tuple[EgressRule, ...] = Field(
        default=(),
        max_length=16,
        description="Additional allowed egress, for example to a proxy or to a broker's other listeners.",
    )
