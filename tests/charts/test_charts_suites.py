"""helm lint for each profile, and the suites beside the charts' templates."""

import re
import subprocess

import pytest
from charts_support import CHART, PROFILES, ROOT, Helm
from charts_tools import Tools

pytest_plugins = ["charts_fixtures"]


@pytest.mark.parametrize("profile", ["", *PROFILES])
def test_chart_passes_helm_lint(helm: Helm, profile: str) -> None:
    chosen = ["--values", CHART / f"values-{profile}.yaml"] if profile else []
    done = helm("lint", "--strict", CHART, *chosen)
    assert done.returncode == 0, done.stdout + done.stderr


def test_template_suites_pass(tools: Tools) -> None:
    # --strict rejects a misspelt assertion, which would otherwise assert nothing.
    done = subprocess.run(
        [tools.helm_unittest, "--strict", CHART], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_template_suites_cover_every_template() -> None:
    suites = "\n".join(file.read_text() for file in sorted((CHART / "tests").glob("*_test.yaml")))
    tested = set(re.findall(r"templates/[\w/.-]+", suites))
    templates = CHART / "templates"
    rendered = {file for file in templates.rglob("*") if file.is_file() and not file.name.startswith("_")}
    assert {str(file.relative_to(CHART)) for file in rendered} - tested == set()


def test_templates_fit_a_screen() -> None:
    templates = [file for file in (ROOT / "charts").glob("*/templates/**/*") if file.is_file()]
    lengths = sorted(len(file.read_text().splitlines()) for file in templates)
    assert lengths[len(lengths) // 2] <= 40, "the median template"
    assert lengths[-1] <= 110, "the longest template"
