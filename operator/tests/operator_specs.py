"""Random specs, generated from the CRD's schema: most are valid, many are at a limit, some just beyond one."""

import random
import re._parser as parser
from collections.abc import Mapping
from typing import Any

NASTY = (
    "", " ", "\x00", "\x1b[31m", "\n", "\u00a0", "\u202e", "é", "🚀", "..", ".", "-", "/", "a/b", "$(HOME)", "{{x}}",
    "null", "0x10", "1e9", "9" * 400, "A" * 300, "a.b", "[::1]", "[::1", "wss://a:94430", "kafka:90920", "x" * 63,
    "x" * 64, "x" * 254,
)  # fmt: skip
REPEAT_AT_MOST = 4


def pattern_of(schema: Mapping[str, Any]) -> str:
    """Return the regular expression of a string, from the schema or from a rule with a message; "" for none."""
    rules = (str(each["rule"]) for each in schema.get("x-kubernetes-validations", ()))
    worded = (rule.removeprefix('self.matches(r"').removesuffix('")') for rule in rules)
    return str(schema.get("pattern") or next(worded, ""))


class Specs:
    """Generates specs of a schema."""

    def __init__(self, schema: Mapping[str, Any], rng: random.Random) -> None:
        self._schema = schema
        self._rng = rng

    def draw(self) -> Any:
        """Return a spec, as a user may write it."""
        value = self._object(self._schema, 0.12)
        for one, other in (("symbols", "symbolSelector"),):
            if (one in value) == (other in value) and self._rng.random() < 0.95:
                value.pop(other, None)
                value.setdefault(one, ["BTCUSDT"])
        kafka = value.get("kafka")
        if isinstance(kafka, dict) and self._rng.random() < 0.95:
            self._fitting_kafka(kafka)
        if "storage" not in value and self._rng.random() < 0.9:
            value.pop("consumers", None)
        return value

    def _fitting_kafka(self, kafka: dict[str, Any]) -> None:
        if ("cluster" in kafka) == ("bootstrapServers" in kafka):
            kafka.pop("cluster", None)
            kafka.setdefault("bootstrapServers", "kafka:9092")
        if "cluster" not in kafka:
            kafka.pop("manageTopics", None)

    def _value(self, schema: Mapping[str, Any]) -> Any:
        if self._rng.random() < 0.005:
            return self._rng.choice([*NASTY, 0, -1, 2**70, 1.5, True, None, [], {}])
        if "enum" in schema:
            return self._rng.choice(schema["enum"])
        if schema.get("x-kubernetes-int-or-string"):
            return self._rng.choice([self._rng.randint(0, 9), self._matching(schema["pattern"])])
        kind = schema["type"]
        if kind == "object":
            return self._object(schema, 0.3)
        if kind == "array":
            most = min(schema.get("maxItems", 3), 3)
            return [
                self._value(schema["items"])
                for _ in range(self._rng.randint(schema.get("minItems", 0), most))
            ]
        if kind == "integer":
            low, high = schema.get("minimum", -5), schema.get("maximum", 10**6)
            return self._rng.choice(
                [low, high, self._rng.randint(low, high), self._rng.randint(low, min(high, low + 9))]
            )
        if kind == "boolean":
            return self._rng.random() < 0.5
        return self._text(schema)

    def _text(self, schema: Mapping[str, Any]) -> str:
        if self._rng.random() < 0.01:
            return self._rng.choice(NASTY)
        text = (
            self._matching(pattern)
            if (pattern := pattern_of(schema))
            else self._rng.choice(NASTY + ("plain",) * 30)
        )
        if text and self._rng.random() < 0.01:
            place = self._rng.randrange(len(text))
            text = text[:place] + self._rng.choice(NASTY) + text[place + 1 :]
        return text[: schema["maxLength"]] if self._rng.random() < 0.99 and "maxLength" in schema else text

    def _object(self, schema: Mapping[str, Any], chance: float) -> dict[str, Any]:
        if "properties" not in schema:
            values = schema.get("additionalProperties", {"type": "string"})
            keys = ["cpu", "memory", "example.com/a", "team", *NASTY[:6]]
            weights = [9, 9, 9, 9, *[0.1] * 6]
            number = self._rng.randint(0, 2)
            return {key: self._value(values) for key in self._rng.choices(keys, weights, k=number)}
        required = schema.get("required", ())
        return {
            name: self._value(field)
            for name, field in schema["properties"].items()
            if name in required or self._rng.random() < chance
        }

    def _matching(self, pattern: str) -> str:
        return "".join(self._draw(part) for part in parser.parse(pattern))

    def _draw(self, part: Any) -> str:
        operation, argument = part
        name = str(operation)
        if name == "LITERAL":
            return chr(argument)
        if name == "IN":
            return self._one_of(argument)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, inner = argument
            high = min(int(high), low + REPEAT_AT_MOST)
            count = self._rng.randint(low, high)
            return "".join(self._draw(each) for _ in range(count) for each in inner)
        if name == "SUBPATTERN":
            return "".join(self._draw(each) for each in argument[-1])
        if name == "BRANCH":
            return "".join(self._draw(each) for each in self._rng.choice(argument[1]))
        if name == "AT":
            return ""
        return "x"

    def _one_of(self, items: list[Any]) -> str:
        if str(items[0][0]) == "NEGATE":
            return self._rng.choice("abcXYZ019-_é")
        operation, argument = self._rng.choice(items)
        if str(operation) == "RANGE":
            return chr(self._rng.randint(*argument))
        return chr(argument)
