"""Every package that a member imports is declared in its pyproject.toml, not only a dependency of a dependency."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMBERS = sorted(path.parent.name for path in ROOT.glob("*/pyproject.toml"))


@cache
def distributions() -> dict[str, set[str]]:
    """Import name -> the distributions that provide it."""
    return {name: {canonical(one) for one in each} for name, each in packages_distributions().items()}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    """The top-level names that modules of `folder` import, less those of the standard library."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names:
                    yield top, path


@pytest.mark.parametrize("member", MEMBERS)
def test_dependencies_of_a_member_are_declared(member: str) -> None:
    project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]
    declared = {canonical(re.split(r"[^\w.-]", each)[0]) for each in project.get("dependencies", [])}
    known = {canonical(project["name"]), *declared}
    undeclared = {
        f"{name} ({path.relative_to(ROOT)})"
        for name, path in imported(ROOT / member / "src")
        if not distributions().get(name, {canonical(name)}) & known
    }
    assert not undeclared
