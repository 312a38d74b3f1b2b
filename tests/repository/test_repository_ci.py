"""What .ci/run makes of passing, failing and skipped tests and of a machine that lacks something.

The script is real; the project it checks is a Makefile of a few lines.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"
TOOLS = [
    "bash",
    "cat",
    "dirname",
    "echo",
    "env",
    "false",
    "head",
    "make",
    "mktemp",
    "nproc",
    "rm",
    "sh",
    "timeout",
    "true",
]
COMPONENTS = ["java", "mvn", "go"]
REPORT = '<testsuites><testsuite><testcase name="a"/>{}</testsuite></testsuites>'
SKIPPED = '<testcase name="b"><skipped type="pytest.skip" message="Maven is missing"/></testcase>'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci" / "run")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (bin_folder / tool).symlink_to(found)
    (bin_folder / "python3").symlink_to(sys.executable)
    return tmp_path


def give(project: Path, *components: str) -> None:
    for name in components:
        (project / "bin" / name).write_text(f"#!/usr/bin/env sh\necho {name} 1.0\n")
        (project / "bin" / name).chmod(0o755)


def run(
    project: Path,
    *,
    test: str = "true",
    lint: str = "true",
    compose: str = "true",
    e2e: str = "true",
    report: str = REPORT.format(""),
    ci: str = "",
) -> str:
    """The script's exit code and output, as one text."""
    (project / "report.xml").write_text(report)
    (project / "Makefile").write_text(
        "setup:\n\t@echo set up\ntools:\n\t@echo built\n"
        "REPORT = $(patsubst --junitxml=%,%,$(filter --junitxml=%,$(ARGS) --junitxml=/dev/null))\n"
        f"test:\n\t@cat report.xml > $(firstword $(REPORT)); {test}\n"
        f"lint:\n\t@echo linted; {lint}\n"
        f"compose-test:\n\t@cat report.xml > $(firstword $(REPORT)); {compose}\n"
        f"e2e:\n\t@cat report.xml > $(firstword $(REPORT)); {e2e}\n"
        "e2e-down:\n\t@echo the cluster is gone\n"
    )
    environment = {
        "PATH": str(project / "bin"),
        "CI": ci,
        "TMPDIR": str(project),
        "LANG": os.environ.get("LANG", "C"),
    }
    done = subprocess.run(
        [project / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == "" or "Error" in done.stderr, done.stderr
    return f"exit {done.returncode}\n{done.stdout}"


def test_all_passed_is_exit_0_with_the_time_of_each_phase(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project)
    assert text.startswith("exit 0\n")
    assert text.endswith("\nall passed\n")
    timed = [line.split()[2] for line in text.split("==> timings")[1].splitlines() if " s  " in line]
    assert timed == ["components", "setup", "tools", "test", "lint", "compose", "e2e", "in"]
    assert "no test was skipped" in text
    assert [file.name for file in project.iterdir() if file.name.startswith("tmp.")] == []


def test_a_failure_is_named_at_the_end_and_the_later_phases_still_run(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project, test="false")
    assert text.startswith("exit 1\n")
    assert "linted" in text
    assert text.endswith("\nfailed: test\n")


def test_every_failed_phase_is_named(project: Path) -> None:
    give(project, *COMPONENTS)
    assert run(project, test="false", lint="false").endswith("\nfailed: test lint\n")
    assert run(project, compose="false").endswith("\nfailed: compose\n")
    text = run(project, e2e="false")
    assert text.endswith("\nfailed: e2e\n")
    assert "once more, only what failed" in text
    assert "the cluster is gone" in text


def test_what_was_skipped_is_told_with_its_reason(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project, report=REPORT.format(SKIPPED * 3))
    assert "3 tests were skipped\n  3 x Maven is missing\n" in text
    assert text.startswith("exit 0\n")


@pytest.mark.parametrize("missing", COMPONENTS)
def test_a_missing_component_is_said_and_in_ci_a_failure(project: Path, missing: str) -> None:
    give(project, *(name for name in COMPONENTS if name != missing))
    text = run(project)
    assert text.startswith("exit 0\n")
    assert f"missing: {missing} (" in text
    text = run(project, ci="true")
    assert text.startswith("exit 1\n")
    assert text.endswith("\nfailed: components\n")
    assert "linted" in text


def test_a_test_run_that_leaves_no_report_is_said(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project, report="", test="false")
    assert "what it skipped is not known" in text
    assert text.startswith("exit 1\n")
