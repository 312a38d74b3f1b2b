"""CustomResourceDefinition, generated from the types of spec and status.

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
        f"the name must have at most {MAX_FEED_NAME} characters, begin with a letter and contain only a-z, "
        "0-9 and -: Deployments and Services are named after it",
        None,
    ),
)

COLUMNS: Final = (
    ("Venue", "string", ".spec.venue", 0, "Venue of the feed"),
    ("Symbols", "integer", ".status.symbols.resolved", 0, "Number of symbols assigned to shards"),
    ("Shards", "integer", ".status.shards.desired", 0, "Desired number of shards"),
    ("Ready-Shards", "integer", ".status.shards.ready", 0, "Number of shards with all pods ready"),
    ("Consumers", "integer", ".status.consumers.ready", 0, "Number of ready consumer pods"),
    ("Lag", "integer", ".status.consumers.lag", 0, "Consumer lag in messages"),
    ("Missing", "integer", ".status.shards.missingTrades", 1, "Number of trade ids in open gaps"),
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0, "Status of the condition Ready"),
    ("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason", 0, "Reason of the condition Ready"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since creation"),
)


def crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of MarketFeed."""
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
                        # kubectl scale changes the consumers of trades, the component that lags under load.
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
        "description": f"Market data of one venue, {API_VERSION}: published to Kafka and stored in a "
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
    """Return the structural schema of a type: without references and titles, with the rules of each object."""
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
        # The only place where a structural schema may have anyOf, and in exactly this form.
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("type") == "object" and "properties" not in schema:
        values = schema.get("additionalProperties", True)
        if isinstance(values, dict):
            result["additionalProperties"] = _structural(values, definitions, rules)
        else:
            result["x-kubernetes-preserve-unknown-fields"] = True
    return result


def _without_null(value: Any) -> Any:
    """Return a default without null fields: a structural schema has no type for null."""
    if not isinstance(value, dict):
        return value
    return {key: _without_null(found) for key, found in value.items() if found is not None}


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` with its reference resolved and "or null" removed: a nullable field is an optional
    field.
    """
    own = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    if schema.get("x-kubernetes-int-or-string"):
        return schema
    if "anyOf" in schema:
        (schema,) = (option for option in schema["anyOf"] if option.get("type") != "null")
    target = definitions[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema
    # The field's description is more specific than its type's; the rules are found by the type's title.
    return {**target, **{key: value for key, value in own.items() if key != "title"}}


class _Plain(yaml.SafeDumper):
    """Dumper without aliases: YAML anchors would make the CRD hard to read."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def to_yaml() -> str:
    """Return the CustomResourceDefinition as the text of manifests/crd.yaml."""
    head = "# Generated: python -m marketfeed_operator.api.crd > manifests/crd.yaml\n"
    return head + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=115)


if __name__ == "__main__":
    print(to_yaml(), end="")
