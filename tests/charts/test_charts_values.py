"""Every value of values.yaml is documented, validated and used."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts_support import CHART, ROOT, Helm, Render, charts_values

pytest_plugins = ["charts_fixtures"]

VALUES = charts_values.read((CHART / "values.yaml").read_text())
LEAVES = {".".join(value.path): value for value in charts_values.leaves(VALUES)}

EVERYTHING: dict[str, Any] = {
    "kafka": {"enabled": True},
    "cockroachdb": {
        "enabled": True,
        "tls": {"certManager": {"enabled": True}},
        "postInitSqlSecret": {"name": "init"},
    },
    "simulator": {"enabled": True},
    "feed": {"enabled": True},
    "monitors": {"enabled": True},
}
"""Values that enable every component of the chart."""

OTHER: dict[str, Any] = {
    "cockroachdb.cloudProvider": "aws",
    "cockroachdb.nodes": 5,
    "cockroachdb.postInitSqlSecret.name": "other",
    "cockroachdb.tls.enabled": {
        "cockroachdb": {
            "tls": {"enabled": False, "certManager": {"enabled": False}},
            "postInitSqlSecret": {"name": ""},
        }
    },
    "feed.databaseSecretName": "other-secret",
    "feed.spec": {"venue": "binance"},
    "image.operator.digest": "sha256:0",
    "operator.settings.claimSeconds": 7,
    "kafka.enabled": {"kafka": {"enabled": False}, "feed": {"enabled": False}},
    "kafka.minInsyncReplicas": 1,
    "kafka.name": "other",
    "kafka.nodePools": {"more": {"roles": ["broker"], "replicas": 1, "storage": {"type": "ephemeral"}}},
    "kafka.replicationFactor": {"kafka": {"replicationFactor": 1, "minInsyncReplicas": 1}},
    "kafka.extraListeners": [{"name": "out", "port": 9094, "type": "nodeport", "tls": True}],
    "monitors.interval": "5s",
    "operator.extraEnv": [{"name": "A", "value": "b"}],
    "operator.networkPolicy.egressPorts": [1],
    "operator.networkPolicy.metricsFrom": [{"podSelector": {}}],
    "operator.replicas": 3,
    "operator.settings.leaderElection": {"operator": {"replicas": 1, "settings": {"leaderElection": False}}},
    "operator.tolerations": [{"operator": "Exists"}],
    "operator.watchNamespaces": {"rbac": {"scope": "namespaced"}, "operator": {"watchNamespaces": ["other"]}},
    "serviceAccount.create": {"serviceAccount": {"create": False, "name": "mine"}},
    "simulator.symbols": ["OTHER"],
}
"""Other values where bounds leave little choice; a map from the root where several must change."""


def test_values_generated_files_are_up_to_date() -> None:
    for name in charts_values.CHARTS:
        for file, text in charts_values.rendered(ROOT / "charts" / name).items():
            assert file.read_text() == text, f"{file.name} of {name} is outdated: make generate"


@pytest.fixture(scope="module")
def everything(render: Render) -> list[dict[str, Any]]:
    return render(**EVERYTHING)


@pytest.mark.parametrize("path", LEAVES)
def test_values_all_change_the_rendering(render: Render, everything: list[dict[str, Any]], path: str) -> None:
    assert render(**_merged(EVERYTHING, _other(path))) != everything, f"no template uses {path}"


def _other(path: str) -> dict[str, Any]:
    value = LEAVES[path]
    wish = OTHER.get(path, _different(value))
    if isinstance(wish, dict) and set(wish) <= {top.path[0] for top in VALUES}:
        return wish
    return _nested(path, wish)


def _different(value: charts_values.Value) -> Any:
    default = value.default
    if "enum" in value.schema:
        return next(each for each in reversed(value.schema["enum"]) if each != default)
    if isinstance(default, bool):
        return not _in_everything(value)
    if isinstance(default, int | float):
        return default + 1 if default < value.schema.get("maximum", default + 1) else default - 1
    if isinstance(default, list):
        return ["other"]
    return {"other": "value"} if isinstance(default, dict) else "other"


def _in_everything(value: charts_values.Value) -> Any:
    found: Any = EVERYTHING
    for key in value.path:
        if key not in found:
            return value.default
        found = found[key]
    return found


def _nested(path: str, wish: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {first: _nested(rest, wish) if rest else wish}


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


SECTIONS = sorted({value.path[:depth] for value in LEAVES.values() for depth in range(len(value.path))})


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: ".".join(section) or "the root")
def test_values_reject_an_unknown_key(helm: Helm, tmp_path: Path, section: tuple[str, ...]) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(_nested(".".join((*section, "unheardOf")), 1)))
    done = helm("template", "x", CHART, "--values", file)
    assert done.returncode != 0
    assert "additional properties 'unheardOf' not allowed" in done.stderr


def test_values_reject_a_wrong_type_by_name(helm: Helm) -> None:
    done = helm(
        "template", "x", CHART, "--set", "image.pullPolicy=sometimes", "--set", "operator.replicas=many"
    )
    assert done.returncode != 0
    assert "at '/image/pullPolicy'" in done.stderr
    assert "at '/operator/replicas'" in done.stderr


class TestGenerator:
    def test_reads_description_type_and_schema(self) -> None:
        (value,) = charts_values.read("# Words\n# on two lines.\n# @schema {minimum: 1}\npods: 2\n")
        assert value.description == "Words on two lines."
        assert charts_values.json_schema((value,))["properties"]["pods"] == {
            "type": "integer", "minimum": 1, "description": "Words on two lines.",
        }  # fmt: skip

    def test_rejects_a_value_without_a_comment(self) -> None:
        with pytest.raises(ValueError, match=r"a\.c has no comment above it"):
            charts_values.read("a:\n  # Words.\n  b: 1\n\n  c: 2\n")

    def test_ignores_the_files_own_comment(self) -> None:
        with pytest.raises(ValueError, match="a has no comment"):
            charts_values.read("# About this file.\n\na: 1\n")

    def test_rejects_a_null_default_without_a_type(self) -> None:
        values = charts_values.read("# Words.\na: null\n")
        with pytest.raises(ValueError, match="a has no default: set its type in @schema"):
            charts_values.json_schema(values)

    def test_closes_a_section_and_keeps_a_free_map_open(self) -> None:
        schema = charts_values.json_schema(charts_values.read("a:\n  # Words.\n  b: {}\n"))["properties"]["a"]
        assert schema["additionalProperties"] is False
        assert "additionalProperties" not in schema["properties"]["b"]
