"""Rules of the repository that no linter checks."""

import collections
import configparser
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Return the files of a clone."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: its files cannot be listed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def members() -> list[str]:
    return list(toml(ROOT / "pyproject.toml")["tool"]["uv"]["workspace"]["members"])


def toml(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text())


def texts(files: list[Path], *suffixes: str) -> list[tuple[Path, str]]:
    """Return the text files among `files`, relative to the root, with their text."""
    found = []
    for file in files:
        if suffixes and file.suffix not in suffixes:
            continue
        try:
            found.append((file.relative_to(ROOT), file.read_text()))
        except UnicodeDecodeError:  # an image or a recording
            continue
    return found


def test_layout_folder_operator_is_no_package() -> None:
    """`operator/__init__.py` would hide the standard library's module from programs started in the root."""
    assert [file.name for file in ROOT.glob("operator/*.py")] == []


def test_layout_make_targets_cover_all_tests() -> None:
    """`make test-services` and `make test-kubernetes`, which CI runs, and `make test`."""
    shown = subprocess.run(
        ["make", "--dry-run", "test-services", "test-kubernetes"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "ARGS")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    halves = [line.split(" pytest ")[1].split() for line in shown.splitlines() if " pytest " in line]
    services, on_kubernetes = halves
    left_out = [each.removeprefix("--ignore=") for each in services if each.startswith("--ignore=")]
    assert left_out == on_kubernetes
    folders = [each for each in services if not each.startswith("--")]
    others = [each for each in on_kubernetes if not any(Path(each).is_relative_to(one) for one in folders)]
    assert sorted(folders + others) == sorted(
        toml(ROOT / "pyproject.toml")["tool"]["pytest"]["ini_options"]["testpaths"]
    )


def test_layout_test_files_have_unique_names(tracked: list[Path]) -> None:
    """pytest imports them by name only."""
    tests = [file for file in tracked if "tests" in file.relative_to(ROOT).parts]
    names = collections.Counter(f.name for f in tests if f.suffix == ".py" and f.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
    assert [file for file in tests if file.name == "__init__.py"] == []


def test_layout_no_file_contains_a_local_path(tracked: list[Path]) -> None:
    pattern = re.compile(r"(?<![\w./-])/(?:work|farm|Users/\w+)/")
    found = [
        f"{file}: {line.strip()[:120]}"
        for file, text in texts(tracked)
        if file.name != Path(__file__).name
        for line in text.splitlines()
        if pattern.search(line)
    ]
    assert found == []


def test_layout_no_file_has_open_work_markers(tracked: list[Path]) -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    files = texts(tracked, ".py", ".sh", ".yaml", ".toml")
    assert [f"{file}: {mark.group()}" for file, text in files for mark in marks.finditer(text)] == []


def test_layout_members_are_typed_tested_linted_and_under_import_contracts(members: list[str]) -> None:
    root = toml(ROOT / "pyproject.toml")
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    makefile = (ROOT / "Makefile").read_text()
    linted = re.search(r"^PACKAGES := (.*)$", makefile, re.MULTILINE)
    assert linted is not None
    assert linted[1].split() == members
    assert set(root["tool"]["uv"]["sources"]) == {f"marketfeed-{package(m)[11:]}" for m in members}
    for member in members:
        project = toml(ROOT / member / "pyproject.toml")["project"]
        assert project["name"] == f"marketfeed-{package(member)[11:]}"
        assert project["license"] == "Apache-2.0"
        assert project["requires-python"] == root["project"]["requires-python"]
        assert (ROOT / member / "src" / package(member) / "py.typed").exists()
        assert member in root["tool"]["pytest"]["ini_options"]["testpaths"]
        assert package(member) in contracts["importlinter"]["root_packages"].split()


def test_layout_services_are_installed_without_developer_tools(members: list[str]) -> None:
    """Import contracts cover imports; this covers the packages that an image would install."""
    depending = [
        member
        for member in members
        if any(
            "devtools" in name for name in toml(ROOT / member / "pyproject.toml")["project"]["dependencies"]
        )
    ]
    assert depending == ["monitoring", "simtest"]
    assert not [member for member in depending if (ROOT / member / "Dockerfile").exists()]


def package(member: str) -> str:
    """Return the import package of a member's folder."""
    return f"marketfeed_{member}"


def test_docs_links_resolve(tracked: list[Path]) -> None:
    broken = []
    for file, text in texts(tracked, ".md"):
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path = link.split("#")[0]
            if path and "://" not in path and not (ROOT / file.parent / path).exists():
                broken.append(f"{file}: {link}")
    assert broken == []


# Names of cluster objects in the pages: Secrets, Kafka users, the operator's own MarketFeed, ClusterRoles, a Lease.
CLUSTER_OBJECTS = {
    f"marketfeed-{name}" for name in ("database", "feed", "admin", "canary", "scram", "view", "edit", "scope")
}


def test_docs_name_only_existing_make_targets_and_commands(tracked: list[Path], members: list[str]) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = {
        command
        for member in members
        for command in toml(ROOT / member / "pyproject.toml")["project"].get("scripts", {})
    }
    known_names = commands | CLUSTER_OBJECTS | {f"marketfeed-{member}" for member in members}
    wrong = []
    for file, text in texts(tracked, ".md"):
        wrong += [
            f"{file}: make {name}"
            for name in re.findall(r"`make ([a-z][a-z0-9-]*)", text)
            if name not in targets
        ]
        named = re.findall(r"`(marketfeed-[a-z]+)(?=[ `])", text)
        wrong += [
            f"{file}: {name}"
            for name in named
            if name not in known_names and not (ROOT / "charts" / name).exists()
        ]
    assert wrong == []


def test_changelog_begins_with_unreleased() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"


@pytest.mark.parametrize(
    "script",
    [
        ".ci/run",
        *sorted(
            f"scripts/{file.name}"
            for file in ROOT.glob("scripts/*.*")
            # A module that a script imports is not executable.
            if file.suffix != ".py" or "__main__" in file.read_text()
        ),
    ],
)
def test_scripts_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text().startswith("#!/usr/bin/env ")


def test_scripts_ci_run_is_valid_bash() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)
