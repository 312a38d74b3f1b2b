"""Pinned versions, cache paths, and a build of a test module."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from marketfeed_devtools import go
from marketfeed_devtools.programs import CommandFailed
from marketfeed_devtools.skipping import skip_or_fail

GO_MOD = """module example.test/tools

go 1.20

require k8s.io/kubernetes v1.34.2
require (
\tk8s.io/api v0.34.2
\tk8s.io/apimachinery v0.34.1 // indirect
)
replace k8s.io/kubelet => k8s.io/kubelet v0.1.0
"""
MAIN = 'package main\n\nvar word = "unset"\n\nfunc main() { println(word) }\n'


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text(GO_MOD)
    return folder


@pytest.mark.parametrize(
    ("path", "version"),
    [("k8s.io/kubernetes", "v1.34.2"), ("k8s.io/api", "v0.34.2"), ("k8s.io/apimachinery", "v0.34.1")],
    ids=["on a line", "in a block", "indirectly"],
)
def test_go_pinned_version_of_a_module(module: Path, path: str, version: str) -> None:
    assert go.pinned(module, path) == version


@pytest.mark.parametrize("path", ["k8s.io/kubelet", "k8s.io", "k8s_io/api"])
def test_go_module_that_is_not_pinned_is_an_error(module: Path, path: str) -> None:
    with pytest.raises(ValueError, match=f"does not require {path}"):
        go.pinned(module, path)


def test_go_linker_sets_the_version_of_a_kubernetes_program(module: Path) -> None:
    program = go.kubernetes("kubelet", module)
    assert program.package == "k8s.io/kubernetes/cmd/kubelet"
    key = "k8s.io/component-base/version"
    assert program.linking == (f"-s -w -X {key}.gitVersion=v1.34.2 -X {key}.gitMajor=1 -X {key}.gitMinor=34")


def test_go_path_of_a_program_depends_on_all_inputs(own_cache: Path, module: Path) -> None:
    program = go.Program("tool", "example.test/tool", module)
    place = go.path_of(program)
    assert place.parent.parent == own_cache / "programs"
    (module / "tools.go").write_text("package tools\n")
    assert go.path_of(program) == place
    others = [replace(program, tags="a"), replace(program, linking=""), replace(program, name="tool2")]
    assert place not in [go.path_of(other) for other in others]
    (module / "command").mkdir()
    (module / "command" / "main.go").write_text(MAIN)
    with_command = go.path_of(program)
    assert with_command != place
    (module / "go.sum").write_text("")
    assert go.path_of(program) not in (place, with_command)


def test_go_path_of_a_program_without_a_module_contains_its_version(own_cache: Path) -> None:
    program = go.Program("kind", "sigs.k8s.io/kind", version="v0.32.0")
    assert go.path_of(program) == own_cache / "programs" / "kind-v0.32.0" / "kind"


@pytest.fixture
def buildable(module: Path) -> go.Program:
    if shutil.which("go") is None:
        skip_or_fail("Go is not installed: it builds the test's module")
    (module / "go.mod").write_text("module example.test/words\n\ngo 1.20\n")
    (module / "main.go").write_text(MAIN)
    return go.Program("words", ".", module, linking="-X main.word=linked")


def test_go_program_is_built_once(own_cache: Path, buildable: go.Program) -> None:
    file = go.built(buildable)
    assert file == go.path_of(buildable)
    assert subprocess.run([file], capture_output=True, text=True, check=True).stderr == "linked\n"
    before = file.stat()
    assert go.built(buildable).stat() == before
    assert [each.name for each in file.parent.iterdir()] == ["words"]


def test_go_build_that_fails_has_the_reason_and_leaves_no_file(
    own_cache: Path, buildable: go.Program
) -> None:
    assert buildable.module is not None
    (buildable.module / "main.go").write_text("package main\n\nfunc main() { nowhere() }\n")
    with pytest.raises(CommandFailed, match="undefined: nowhere"):
        go.built(buildable)
    assert not go.path_of(buildable).parent.exists()
