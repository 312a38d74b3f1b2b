"""The CustomResourceDefinition, generated from the types of the spec and the status.

``python -m marketfeed_operator.api.crd`` prints it; manifests/crd.yaml is that output.
"""

from typing import Any, Final

import yaml

from marketfeed_operator.api.rules import Declared, Rule
from marketfeed_operator.api.spec import Spec
from marketfeed_operator.api.status import Status
from marketfeed_operator.names import API_VERSION, GROUP, KIND, MAX_FEED_NAME, PLURAL, VERSION

NAME_RULES: Final = (
    Rule(
        f"self.metadata.name.size() <= {MAX_FEED_NAME} && "
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"the name must have at most {MAX_FEED_NAME} characters, begin with a letter and hold only a-z, 0-9 and -: "
        "Deployments and Services are named after it",
        None,
    ),
)

COLUMNS: Final = (
    ("Venue", "string", ".spec.venue", 0, "Venue that is read"),
    ("Symbols", "integer", ".status.symbols.resolved", 0, "Symbols assigned to shards"),
    ("Shards", "integer", ".status.shards.desired", 0, "Shards that are wanted"),
    ("Ready-Shards", "integer", ".status.shards.ready", 0, "Shards with every pod ready"),
    ("Consumers", "integer", ".status.consumers.ready", 0, "Ready consumer pods"),
    ("Lag", "integer", ".status.consumers.lag", 0, "Messages not yet stored"),
    ("Missing", "integer", ".status.shards.missingTrades", 1, "Trade ids not yet published"),
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0, "Whether all of it works"),
    ("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason", 0, "Why, or why not"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since when it is there"),
)


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of MarketFeed."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mf"],
                "categories": ["all", "marketdata"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        # To scale a feed is to scale what may lag: the consumers of its trades.
                        "scale": {
                            "specReplicasPath": ".spec.consumers.trades.replicas",
                            "statusReplicasPath": ".status.consumers.trades.replicas",
                            "labelSelectorPath": ".status.consumers.trades.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": kind,
                            "jsonPath": path,
                            "priority": priority,
                            "description": text,
                        }
                        for name, kind, path, priority, text in COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _resource_schema()},
                }
            ],
        },
    }


def _resource_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": f"A feed of one venue's market data, {API_VERSION}: into Kafka, and from there into a "
        "database.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural_schema(Spec),
            "status": structural_schema(Status),
        },
        "x-kubernetes-validations": _validations(NAME_RULES),
    }


def structural_schema(declared: type[Declared]) -> dict[str, Any]:
    """The structural schema of a type: no references, no titles, each object's rules with it."""
    schema = declared.model_json_schema(by_alias=True)
    classes = {found.__name__: found for found in _classes(Declared)}
    rules = {name: _validations(found.rules) for name, found in classes.items()}
    return _structural({**schema, "title": declared.__name__}, schema.get("$defs", {}), rules)


def _classes(base: type[Declared]) -> list[type[Declared]]:
    return [base, *(found for child in base.__subclasses__() for found in _classes(child))]


def _validations(rules: tuple[Rule, ...]) -> list[dict[str, str]]:
    return [{"rule": rule.cel, "message": rule.message} for rule in rules]


_KEPT: Final = (
    "type", "description", "default", "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "required",
)  # fmt: skip


def _structural(schema: dict[str, Any], definitions: dict[str, Any], rules: dict[str, Any]) -> dict[str, Any]:
    schema = _resolved(schema, definitions)
    result = {key: schema[key] for key in _KEPT if schema.get(key) is not None}
    if "const" in schema:  # a Literal of one value
        result["enum"] = [schema["const"]]
    result |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if "properties" in schema:
        if "default" in result:
            result["default"] = _without_null(result["default"])
        result["properties"] = {
            name: _structural(field, definitions, rules) for name, field in schema["properties"].items()
        }
        if found := rules.get(schema.get("title", "")):
            result["x-kubernetes-validations"] = found
    if "items" in schema:
        result["items"] = _structural(schema["items"], definitions, rules)
    if schema.get("x-kubernetes-int-or-string"):
        # The one place where a structural schema may have anyOf, and must have it in these words.
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("type") == "object" and "properties" not in schema:
        values = schema.get("additionalProperties", True)
        if isinstance(values, dict):
            result["additionalProperties"] = _structural(values, definitions, rules)
        else:
            result["x-kubernetes-preserve-unknown-fields"] = True
    return result


def _without_null(value: Any) -> Any:
    """A default without the fields that may be left out: null is of no type that a structural schema knows."""
    if not isinstance(value, dict):
        return value
    return {key: _without_null(found) for key, found in value.items() if found is not None}


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its reference followed and "or null" dropped: a field that may be null may be left out."""
    own = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    if schema.get("x-kubernetes-int-or-string"):
        return schema
    if "anyOf" in schema:
        (schema,) = (option for option in schema["anyOf"] if option.get("type") != "null")
    target = definitions[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema
    # The description of the field says more than that of its type; but by the type's title its rules are found.
    return {**target, **{key: value for key, value in own.items() if key != "title"}}


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice: anchors would be read by nobody."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def to_yaml() -> str:
    """The CustomResourceDefinition as the file that is kept in manifests/."""
    head = "# Generated: python -m marketfeed_operator.api.crd > manifests/crd.yaml\n"
    return head + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=115)


if __name__ == "__main__":
    print(to_yaml(), end="")
