"""Alerting rules: promtool's checks, a firing and a near-miss case per alert, and a runbook page per alert."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from marketfeed_monitoring import config, promql, rules
from marketfeed_monitoring.alerts import ALERTS, Alert
from marketfeed_monitoring.prometheus import Programs

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "rules"
RENDERED = ROOT / "charts/marketfeed/files/rules" / rules.FILE_NAME
HEADINGS = ["What it means", "How to look", "What to do"]

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def cases(alert: Alert) -> list[dict[str, Any]]:
    return list(yaml.safe_load((CASES / f"{alert.name}.yaml").read_text())["tests"])


def expectations(alert: Alert) -> list[list[dict[str, Any]]]:
    """Return the expected alerts of every check of `alert`."""
    return [
        check["exp_alerts"]
        for case in cases(alert)
        for check in case["alert_rule_test"]
        if check["alertname"] == alert.name
    ]


def promtool(programs: Programs, *arguments: str) -> None:
    done = subprocess.run(
        [str(programs.promtool), *arguments],
        cwd=CASES,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid_for_prometheus(programs: Programs) -> None:
    promtool(programs, "check", "rules", str(RENDERED))


@each_alert
def test_alert_fires_and_does_not_fire_in_near_misses(programs: Programs, alert: Alert) -> None:
    promtool(programs, "test", "rules", f"{alert.name}.yaml")


@each_alert
def test_alert_has_a_firing_case_and_a_near_miss(alert: Alert) -> None:
    expected = expectations(alert)
    assert any(expected), "no case in which it fires"
    assert not all(expected), "no near miss"
    text = (CASES / f"{alert.name}.yaml").read_text()
    assert text.count("  # fires") + text.count("  # near miss") == len(cases(alert)), (
        "a case without a comment"
    )


@each_alert
def test_alert_with_a_wait_has_a_near_miss_shorter_than_the_wait(
    programs: Programs, alert: Alert, tmp_path: Path
) -> None:
    """Without `for` a near miss must fire; otherwise no case covers the wait."""
    if alert.wait == "0m" or alert.group == "operator" or alert.name in WINDOW_COVERS_SHORT_FAULTS:
        return
    case = yaml.safe_load((CASES / f"{alert.name}.yaml").read_text())
    without_wait = yaml.safe_load(RENDERED.read_text())
    for group in without_wait["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0m"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(without_wait))
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({**case, "rule_files": ["rules.yaml"]}))
    done = subprocess.run(
        [str(programs.promtool), "test", "rules", "case.yaml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode != 0


WINDOW_COVERS_SHORT_FAULTS = {
    # The window of the rate or slope already excludes short faults.
    "MarketfeedConsumerLagGrowing",
    "MarketfeedRetriesStorm",
}


def test_rule_cases_belong_to_existing_alerts() -> None:
    assert {file.stem for file in CASES.glob("*.yaml")} == {alert.name for alert in ALERTS}


def test_alert_names_are_unique_and_have_the_prefix() -> None:
    names = [alert.name for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("Marketfeed") for name in names), "dashboards select them by the prefix"


@each_alert
def test_runbook_has_the_three_sections_and_a_command(alert: Alert) -> None:
    assert rules.rule(alert)["annotations"]["runbook_url"] == rules.runbook(alert)
    page = ROOT / rules.runbook(alert)
    lines = page.read_text().splitlines()
    assert lines[0] == f"# {alert.name}"
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == HEADINGS
    assert page.read_text().count("```") >= 2, "no command to copy"


def test_runbooks_belong_to_existing_alerts() -> None:
    pages = {file.stem for file in (ROOT / config.RUNBOOKS).glob("*.md")}
    assert pages - {"README"} == {alert.name for alert in ALERTS}


@each_alert
def test_alert_annotations_use_only_labels_of_the_query(alert: Alert) -> None:
    given = promql.grouping_labels(alert.expr) | {"problem"}
    used = {
        word.split(".")[1].strip(" }|)")
        for text in (alert.summary, alert.description)
        for word in text.split()
        if word.startswith("$labels.")
    }
    assert used <= given


def test_rules_file_contains_the_reason_of_every_alert() -> None:
    text = " ".join(RENDERED.read_text().replace("      # ", "").split())
    assert [alert.name for alert in ALERTS if alert.reason not in text] == []
