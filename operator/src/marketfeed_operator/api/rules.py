"""Rules over several fields: one text for the API server (CEL) and one check for Python, side by side.

Written in CEL's standard functions, and those that Kubernetes 1.30 adds to them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from marketfeed_operator.api.values import KEY_CEL, KEY_PARTS_CEL, are_keys


@dataclass(frozen=True)
class Rule:
    """What must hold for an object of the resource.

    Attributes:
        cel: the rule as the API server evaluates it.
        message: what a user reads when it does not hold: what is wrong and the way out.
        holds: the same rule in Python; None for a rule about a change, which needs the old object.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None


class Declared(BaseModel):
    """Base of each object in a MarketFeed: frozen, camelCase outside, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, strict=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keeps_its_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if rule.holds is not None and not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self


def keys_rule(field: str, path: str) -> Rule:
    """The rule that a mapping's keys can be keys of labels or annotations."""
    name = "".join(f"_{each.lower()}" if each.isupper() else each for each in field)
    return Rule(
        f"!has(self.{field}) || self.{field}.all(k, k.matches('^{KEY_PARTS_CEL}$') && k.matches('^{KEY_CEL}$'))",
        f"{path} has a key that Kubernetes takes for none: [prefix/]name of letters, digits, - _ and .",
        lambda self: are_keys(getattr(self, name)),
    )
