"""The documentation of the settings equals the settings classes."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from marketfeed_service.settings import ServiceSettings, Settings, describe, read

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings_docs() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield importlib.import_module("settings_docs")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def service_classes(base: type[Settings] = ServiceSettings) -> Iterator[type[Settings]]:
    """Yield the settings classes of services: those of the project's packages without subclasses."""
    for file in ROOT.glob("*/src/marketfeed_*/settings.py"):
        importlib.import_module(f"{file.parent.name}.settings")
    for kind in base.__subclasses__():
        subclasses = [sub for sub in kind.__subclasses__() if sub.__module__.startswith("marketfeed_")]
        if subclasses:
            yield from service_classes(kind)
        elif kind.__module__.startswith("marketfeed_"):
            yield kind


def test_settings_files_are_up_to_date() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "settings_docs.py"), "--check"]
    checked = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_settings_of_every_service_are_documented(settings_docs: ModuleType) -> None:
    assert set(service_classes()) <= set(settings_docs.SERVICES.values()), (
        "add it to SERVICES in settings_docs.py"
    )


def test_settings_variables_are_in_the_table_and_in_the_example(settings_docs: ModuleType) -> None:
    table = (ROOT / "docs/settings.md").read_text()
    example = (ROOT / ".env.example").read_text().splitlines()
    for settings in settings_docs.SERVICES.values():
        for name, _, text in describe(settings):
            assert f"| `{name}` |" in table
            assert [line for line in example if line.removeprefix("#").startswith(f"{name}=")], name
            assert text, f"{name} has no description"


def test_settings_example_has_the_services_defaults(settings_docs: ModuleType) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    shown = dict(
        line.removeprefix("#").split("=", 1) for line in lines if "=" in line and not line.startswith("# ")
    )
    for settings in settings_docs.SERVICES.values():
        assert read(settings, shown) == read(settings, given), "a commented default is not the default"


def test_settings_outdated_file_is_detected(settings_docs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/settings.md").write_text(settings_docs.settings_md())
    (tmp_path / ".env.example").write_text(settings_docs.env_example() + "ANOTHER=1\n")
    assert [file.name for file in settings_docs.outdated(tmp_path)] == [".env.example"]
