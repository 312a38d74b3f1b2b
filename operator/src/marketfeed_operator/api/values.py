"""Value types shared by several parts of the spec, with the limits of Kubernetes, Kafka and DNS.

The regular expressions are evaluated by the API server (Go) and by pydantic (Rust): only syntax with the same
meaning in
both.
"""

import ipaddress
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from marketfeed_operator.api.patterns import PatternRule

_LABEL: Final = "[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = rf"{_LABEL}(\.{_LABEL})*\.?"
_HEX: Final = "[0-9A-Fa-f]{1,4}"
_IPV6: Final = "|".join(
    [
        f"({_HEX}:){{7}}{_HEX}",
        f"({_HEX}:){{1,7}}:",
        *(f"({_HEX}:){{1,{7 - after}}}(:{_HEX}){{1,{after}}}" for after in range(1, 7)),
        f":(:{_HEX}){{1,7}}",
        "::",
    ]
)
_PORT: Final = (
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"  # 1 to 65535
)
HOST: Final = rf"({_HOST_NAME}|\[({_IPV6})\])"
"""Host name, IPv4 address, or IPv6 address in brackets."""
SERVERS_PATTERN: Final = f"^{HOST}:{_PORT}(,{HOST}:{_PORT})*$"
_PATH: Final = "(/[A-Za-z0-9._~%:@!&'*+;=-]*)*"


def url_pattern(schemes: str) -> str:
    """Return the regular expression of a URL with host, port and path; without credentials, query and
    fragment.
    """
    return f"^({schemes})://{HOST}(:{_PORT})?{_PATH}$"


_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
CIDR_PATTERN: Final = (
    rf"^({_OCTET}(\.{_OCTET}){{3}}/(3[0-2]|[12]?[0-9])|({_IPV6})/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$"
)
"""CIDR of an IPv4 or IPv6 range."""

_DNS_LABEL: Final = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS_SUBDOMAIN: Final = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
KEY_CEL: Final = (
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
"""Key of a label or annotation; `KEY_PARTS_CEL` limits the lengths of its parts."""
KEY_PARTS_CEL: Final = "([^/]{1,253}/)?[^/]{1,63}"
MAX_KEY: Final = 253 + 1 + 63
_KEY: Final = re.compile(KEY_CEL)
_KEY_PARTS: Final = re.compile(KEY_PARTS_CEL)

Port = Annotated[int, Field(ge=1, le=65535)]
DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=f"^{_DNS_LABEL}$")]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=f"^{DNS_SUBDOMAIN}$")]
SecretName = ObjectName
SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$")]


Key = Annotated[
    str,
    Field(min_length=1, max_length=MAX_KEY, pattern=f"^{KEY_CEL}$"),
    PatternRule(f"^{KEY_PARTS_CEL}$", "a key has at most 253 characters before its / and 63 after it"),
]


def is_within(inner: str, outer: str) -> bool:
    """Return whether one CIDR is a proper subset of another. Both match `CIDR_PATTERN`."""
    part, whole = (ipaddress.ip_network(text, strict=False) for text in (inner, outer))
    if isinstance(part, ipaddress.IPv4Network) and isinstance(whole, ipaddress.IPv4Network):
        return part.prefixlen > whole.prefixlen and part.subnet_of(whole)
    if isinstance(part, ipaddress.IPv6Network) and isinstance(whole, ipaddress.IPv6Network):
        return part.prefixlen > whole.prefixlen and part.subnet_of(whole)
    return False


_QUANTITY: Final = (
    r"^[+]?([0-9]{1,18}([.][0-9]{0,18})?|[.][0-9]{1,18})([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$"
)


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(max_length=48, pattern=_QUANTITY),
    BeforeValidator(_as_text),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _QUANTITY,
            "maxLength": 48,
            "minimum": 0,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""As in a pod: ``1``, ``500m``, ``1.5Gi``, ``129e6``; not below 0."""


_SUFFIXES: Final = {
    **{
        suffix: Decimal(10) ** (3 * power)
        for power, suffix in enumerate(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"], -3)
    },
    **{f"{suffix}i": Decimal(2) ** (10 * power) for power, suffix in enumerate("KMGTPE", 1)},
}


def amount(quantity: str) -> Decimal:
    """Return the numeric value of a quantity."""
    found = re.fullmatch(r"([+]?[0-9.]+)(?:[eE]([-+]?[0-9]+)|([a-zA-Z]*))", quantity)
    if found is None:
        raise ValueError(f"not a quantity: {quantity!r}")
    number, exponent, suffix = found.groups()
    return Decimal(number).scaleb(int(exponent)) if exponent else Decimal(number) * _SUFFIXES[suffix]


def are_keys(keys: Mapping[str, str] | None) -> bool:
    """Return whether all keys of a mapping are valid label or annotation keys."""
    return keys is None or all(_KEY_PARTS.fullmatch(key) and _KEY.fullmatch(key) for key in keys)


def are_bootstrap_servers(text: str) -> bool:
    """Return whether `text` is host:port[,host:port…]."""
    return len(text) <= 2048 and re.fullmatch(SERVERS_PATTERN, text) is not None
