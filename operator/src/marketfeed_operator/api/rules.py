"""Cross-field rules, each as CEL for the API server and as a Python check.

CEL is limited to its standard functions and the extensions of Kubernetes 1.30.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from marketfeed_operator.api.values import KEY_CEL, KEY_PARTS_CEL, are_keys


@dataclass(frozen=True)
class Rule:
    """Rule of an API type.

    Attributes:
        cel: expression for the API server.
        message: error message: what is wrong and how to fix it.
        holds: the same rule in Python; None for a transition rule, which needs the old object.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None


class Declared(BaseModel):
    """Base of all API types: frozen, camelCase in JSON, unknown fields refused."""

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
    """Return the rule that the keys of a mapping are valid label or annotation keys."""
    name = "".join(f"_{each.lower()}" if each.isupper() else each for each in field)
    return Rule(
        f"!has(self.{field}) || self.{field}.all(k, k.matches('^{KEY_PARTS_CEL}$') && "
        f"k.matches('^{KEY_CEL}$'))",
        f"{path} has an invalid key: a key is [prefix/]name of letters, digits, - _ and .",
        lambda self: are_keys(getattr(self, name)),
    )
