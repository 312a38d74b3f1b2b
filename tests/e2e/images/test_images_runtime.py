"""The capabilities that the runtime for sandboxes removes from Docker's configuration."""

import json
from pathlib import Path

import pytest
import runc_without_sys_resource as runtime

SETS = ("bounding", "effective", "permitted")
ASKED = ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_SYS_ADMIN"]


def test_runtime_removes_one_capability_of_a_privileged_container(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    asked = {"capabilities": dict.fromkeys(SETS, ASKED), "args": ["sh"]}
    config.write_text(json.dumps({"ociVersion": "1", "process": asked}))
    runtime.edit(config, is_container=True)
    expected = {"capabilities": {name: ["CAP_CHOWN", "CAP_SYS_ADMIN"] for name in SETS}, "args": ["sh"]}
    assert json.loads(config.read_text()) == {"ociVersion": "1", "process": expected}


@pytest.mark.parametrize("capabilities", [None, {"bounding": None}])
def test_runtime_keeps_a_process_without_capabilities(tmp_path: Path, capabilities: object) -> None:
    process = tmp_path / "process.json"
    document = {"args": ["sh"], "capabilities": capabilities}
    process.write_text(json.dumps(document))
    runtime.edit(process, is_container=False)
    assert json.loads(process.read_text()) == document


@pytest.mark.parametrize(
    "arguments",
    [["create", "--bundle", "/b", "id"], ["create", "-b", "/b"], ["--log", "x", "create", "--bundle=/b"]],
)
def test_runtime_finds_the_bundle_in_both_forms(arguments: list[str]) -> None:
    assert runtime.value_of("--bundle", "-b", arguments) == "/b"


def test_runtime_returns_nothing_for_a_missing_option() -> None:
    assert runtime.value_of("--bundle", "-b", ["state", "id"]) is None
    assert runtime.value_of("--bundle", "-b", ["create", "--bundle"]) is None
