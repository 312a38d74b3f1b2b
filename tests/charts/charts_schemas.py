"""JSON schemas for kubeconform: Kubernetes' own from the package kubernetes-validate, other kinds' from their CRDs.

Each kind has one self-contained file, named as kubeconform expects it.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

KUBERNETES: Final = ("1.30.0", "1.31.0", "1.32.0", "1.33.0", "1.34.0")
LOCATION: Final = "{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json"
"""Path below the folder that `write` fills."""
_SOURCE: Final = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
_REFERENCE: Final = "#/$defs/"
_GROUPS: Final = "x-kubernetes-group-version-kind"

Schema = dict[str, Any]


def write(folder: Path, kinds: Iterable[tuple[str, str]], crds: Iterable[Path]) -> None:
    """Write the schemas of `kinds` (apiVersion, kind) for each Kubernetes version, and those of the CRDs."""
    required, own = set(kinds), [found for crd in crds for found in _of_crd(crd)]
    for version in KUBERNETES:
        target = folder / f"v{version}"
        target.mkdir(parents=True)
        definitions = json.loads((_SOURCE / f"v{version}-local-strict" / "_definitions.json").read_text())[
            "$defs"
        ]
        for name, definition in definitions.items():
            for api_version, kind in _names(definition):
                if (api_version, kind) in required:
                    _write(target, api_version, kind, _self_contained(name, definitions))
        for api_version, kind, schema in own:
            _write(target, api_version, kind, schema)


def _names(definition: Schema) -> Iterator[tuple[str, str]]:
    for each in definition.get(_GROUPS, []):
        yield (f"{each['group']}/" if each["group"] else "") + each["version"], each["kind"]


def _write(folder: Path, api_version: str, kind: str, schema: Schema) -> None:
    group, _, version = api_version.rpartition("/")
    suffix = "-".join(part for part in (group.split(".")[0], version) if part)
    (folder / f"{kind.lower()}-{suffix}.json".lower()).write_text(json.dumps(schema))


def _self_contained(name: str, definitions: dict[str, Schema]) -> Schema:
    """Return the definition with every other that it references."""
    needed: dict[str, Schema] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in needed:
            needed[one] = _rewritten(definitions[one], waiting)
    return {"$ref": f"#/definitions/{name}", "definitions": needed}


def _rewritten(node: Any, found: list[str]) -> Any:
    if isinstance(node, list):
        return [_rewritten(each, found) for each in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = reference.removeprefix(_REFERENCE)
        found.append(target)
        return {"$ref": f"#/definitions/{target}"}
    return {key: _rewritten(value, found) for key, value in node.items()}


def _of_crd(file: Path) -> Iterator[tuple[str, str, Schema]]:
    spec = yaml.safe_load(file.read_text())["spec"]
    for version in spec["versions"]:
        schema = _strict(version["schema"]["openAPIV3Schema"], root=True)
        yield f"{spec['group']}/{version['name']}", spec["names"]["kind"], schema


def _strict(node: Any, *, root: bool = False) -> Any:
    """Return an OpenAPI schema as a JSON schema that rejects fields which the API server would drop."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    schema = {key: _strict(value) for key, value in node.items()}
    if node.get("x-kubernetes-int-or-string") is True:
        schema["type"] = ["integer", "string"]
        schema.pop("anyOf", None)
    if node.get("nullable") and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    if isinstance(node.get("properties"), dict) and "type" in node:
        open_ended = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
        if not open_ended:
            schema["additionalProperties"] = False
    if root:
        # The API server defines these for every kind; the CRD declares the last only as an object.
        schema["properties"] |= {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
        }
    return schema
