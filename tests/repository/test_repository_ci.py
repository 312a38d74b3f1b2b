""".ci/run with passing, failing and skipped tests, and on a machine that lacks a component.

The script is real; the project that it checks is a Makefile of a few lines.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marketfeed_devtools.waiting import until

FOLDER = Path(__file__).parents[2] / ".ci"
TOOLS = [
    "bash",
    "cat",
    "chmod",
    "dirname",
    "echo",
    "env",
    "false",
    "head",
    "make",
    "mkfifo",
    "mktemp",
    "nice",
    "nproc",
    "paste",
    "rm",
    "sh",
    "timeout",
    "touch",
    "true",
]
COMPONENTS = ["java", "mvn", "go"]
REPORT = '<testsuites><testsuite><testcase classname="t" name="a"/>{}</testsuite></testsuites>'
SKIPPED = (
    '<testcase classname="t" name="b{}"><skipped type="pytest.skip" message="Maven is missing"/></testcase>'
)
FAILED = '<testcase classname="t" name="c"><failure message="too late"/></testcase>'
PASSED = '<testcase classname="t" name="c"/>'
PHASES = ("lint", "test-services", "test-kubernetes", "unit", "compose-test", "e2e")
"""Targets that a test can make fail."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(FOLDER, tmp_path / ".ci")
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
    failing: str = "",
    report: str = REPORT.format(""),
    repeated: str = "",
    ci: str = "",
) -> str:
    """Return the script's exit code and output as one text.

    Args:
        project: folder of the project.
        failing: target that fails.
        report: JUnit report of every target that runs tests.
        repeated: JUnit report of the repetition, which then passes.
        ci: value of the variable CI.
    """
    (project / "report.xml").write_text(report)
    (project / "again.xml").write_text(repeated)
    lines = [
        "REPORT = $(firstword $(patsubst --junitxml=%,%,$(filter --junitxml=%,$(ARGS) --junitxml=/dev/null)))"
    ]
    lines += [
        f"{name}:\n\t@echo made {name}"
        for name in ("setup", "tools-kafka", "tools", "tools-e2e", "tools-images")
    ]
    lines += ["e2e-down:\n\t@echo the cluster is gone"]
    for name in PHASES:
        code = "false" if name == failing else "true"
        passes_again = (
            "case $(REPORT) in *.again.xml) cat again.xml > $(REPORT); exit 0;; esac; " if repeated else ""
        )
        reports = "" if name == "lint" else f"{passes_again}cat report.xml > $(REPORT); "
        lines.append(f"{name}:\n\t@echo ran {name}; {reports}{code}")
    (project / "Makefile").write_text("\n".join(lines) + "\n")
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


def test_ci_success_is_exit_0_with_the_time_of_each_phase(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project)
    assert text.startswith("exit 0\n")
    assert text.endswith("\nall passed\n")
    timed = [line.split()[2] for line in text.split("==> timings")[1].splitlines() if " s  " in line]
    assert timed[:2] == ["components", "setup"]
    assert timed[-2:] == ["e2e", "total"]
    side_by_side = (
        ["kafka", "test-services", "test-kubernetes"],
        ["lint", "unit"],
        ["tools", "tools-e2e", "images", "compose"],
    )
    assert sorted(timed[2:-2]) == sorted(name for lane in side_by_side for name in lane)
    for lane in side_by_side:
        assert [name for name in timed if name in lane] == lane
    assert timed.index("tools") < timed.index("test-kubernetes")
    assert "services: 1 tests, 0 skipped" in text
    assert [file.name for file in project.iterdir() if file.name.startswith("tmp.")] == []


@pytest.mark.parametrize("failing", PHASES)
def test_ci_failure_is_named_at_the_end_and_the_other_phases_run(project: Path, failing: str) -> None:
    give(project, *COMPONENTS)
    text = run(project, failing=failing)
    assert text.startswith("exit 1\n")
    assert text.endswith(f"\nfailed: {'compose' if failing == 'compose-test' else failing}\n")
    assert {line.removeprefix("ran ") for line in text.splitlines() if line.startswith("ran ")} == set(PHASES)
    assert "the cluster is gone" in text
    assert text.count("repeating failed tests") == (failing not in ("lint", "unit"))


def test_ci_failures_are_all_named(project: Path) -> None:
    give(project, *COMPONENTS)
    (project / "bin" / "make").unlink()
    (project / "bin" / "make").write_text("#!/usr/bin/env sh\nfalse\n")
    (project / "bin" / "make").chmod(0o755)
    environment = {"PATH": str(project / "bin"), "TMPDIR": str(project)}
    done = subprocess.run(
        [project / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    named = done.stdout.rpartition("failed: ")[2].split()
    assert named[0] == "setup"
    assert named[-1] == "e2e"
    assert len(named) == 11


def test_ci_unsteady_tests_are_named_and_counted(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project, failing="e2e", report=REPORT.format(FAILED), repeated=REPORT.format(PASSED))
    assert text.startswith("exit 0\n")
    assert text.count("UNSTEADY, passed only in the repetition: t::c") == 1
    assert text.endswith("\nall passed, 1 of them only in the repetition: see UNSTEADY above\n")


def test_ci_test_that_fails_twice_is_not_unsteady(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project, failing="e2e", report=REPORT.format(FAILED))
    assert "UNSTEADY" not in text
    assert text.endswith("\nfailed: e2e\n")


def test_ci_skipped_tests_are_listed_with_their_reason(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project, report=REPORT.format("".join(SKIPPED.format(number) for number in range(3))))
    assert "services: 4 tests, 3 skipped\n  3 x Maven is missing\n" in text
    assert text.startswith("exit 0\n")


@pytest.mark.parametrize("missing", COMPONENTS)
def test_ci_missing_component_is_reported_and_a_failure_with_ci_set(project: Path, missing: str) -> None:
    give(project, *(name for name in COMPONENTS if name != missing))
    text = run(project)
    assert text.startswith("exit 0\n")
    assert f"missing: {missing} (" in text
    text = run(project, ci="true")
    assert text.startswith("exit 1\n")
    assert text.endswith("\nfailed: components\n")
    assert "ran lint" in text


def test_ci_missing_test_report_is_reported(project: Path) -> None:
    give(project, *COMPONENTS)
    text = run(project, report="", failing="test-services")
    assert "services: no report of the test runner, so skipped tests are unknown" in text
    assert text.startswith("exit 1\n")


def test_ci_interrupted_run_ends_its_processes(project: Path) -> None:
    give(project, *COMPONENTS)
    (project / "Makefile").write_text("setup:\n\t@true\n%:\n\t@echo $$$$ >> pids; exec sleep 60\n")
    (project / "bin" / "sleep").symlink_to(str(shutil.which("sleep")))
    environment = {"PATH": str(project / "bin"), "TMPDIR": str(project)}
    with subprocess.Popen([project / ".ci" / "run"], env=environment, stdout=subprocess.DEVNULL) as running:
        pids = project / "pids"
        until(lambda: pids.exists() and len(pids.read_text().split()) == 3, "three lanes at work")
        running.terminate()
        assert running.wait(20) == 130
    started = [int(word) for word in pids.read_text().split()]
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "their processes ended")
    assert [file.name for file in project.iterdir() if file.name.startswith("tmp.")] == []


def test_ci_phase_limits_add_up_to_less_than_90_minutes() -> None:
    text = (FOLDER / "run").read_text()
    minutes = {name: int(limit) for name, limit in re.findall(r"^ *phase (\S+) (\d+) ", text, re.MULTILINE)}
    lanes = {
        name: sum(int(limit) for limit in re.findall(r"^    phase \S+ (\d+) ", body, re.MULTILINE))
        for name, body in re.findall(
            r"^(tests|checks|containers)\(\) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL
        )
    }
    assert len(lanes) == 3
    before_kubernetes = max(minutes["kafka"] + minutes["test-services"], minutes["tools"])
    lanes["tests"] = before_kubernetes + minutes["test-kubernetes"]
    before = minutes["components"] + minutes["setup"] + max(lanes.values())
    whole = int(re.findall(r"^WHOLE_MINUTES=(\d+)", text, re.MULTILINE)[0])
    assert "phase e2e $((WHOLE_MINUTES - SECONDS / 60)) " in text
    assert whole < 90
    assert whole - before >= 20, f"{lanes} leave too little for the journeys"
