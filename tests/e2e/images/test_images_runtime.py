"""What the runtime for sandboxes takes out of what Docker asks for, and what it leaves alone."""

import json
from pathlib import Path

import pytest
import runc_without_sys_resource as runtime

SETS = ("bounding", "effective", "permitted")
ASKED = ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_SYS_ADMIN"]


def test_a_privileged_container_asks_for_all_but_the_one(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    asked = {"capabilities": dict.fromkeys(SETS, ASKED), "args": ["sh"]}
    config.write_text(json.dumps({"ociVersion": "1", "process": asked}))
    runtime.edit(config, is_container=True)
    expected = {"capabilities": {name: ["CAP_CHOWN", "CAP_SYS_ADMIN"] for name in SETS}, "args": ["sh"]}
    assert json.loads(config.read_text()) == {"ociVersion": "1", "process": expected}


@pytest.mark.parametrize("capabilities", [None, {"bounding": None}])
def test_a_process_that_asks_for_nothing_is_left_alone(tmp_path: Path, capabilities: object) -> None:
    process = tmp_path / "process.json"
    document = {"args": ["sh"], "capabilities": capabilities}
    process.write_text(json.dumps(document))
    runtime.edit(process, is_container=False)
    assert json.loads(process.read_text()) == document


@pytest.mark.parametrize(
    "arguments",
    [["create", "--bundle", "/b", "id"], ["create", "-b", "/b"], ["--log", "x", "create", "--bundle=/b"]],
)
def test_the_bundle_is_found_however_it_is_given(arguments: list[str]) -> None:
    assert runtime.value_of("--bundle", "-b", arguments) == "/b"


def test_what_is_not_given_is_not_found() -> None:
    assert runtime.value_of("--bundle", "-b", ["state", "id"]) is None
    assert runtime.value_of("--bundle", "-b", ["create", "--bundle"]) is None
