"""The alerts: what promtool says of the rules, a firing and a near-miss case for each, and a runbook page for each."""

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
    """What each case expects of this alert, one list a moment."""
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


def test_prometheus_takes_the_rules(programs: Programs) -> None:
    promtool(programs, "check", "rules", str(RENDERED))


@each_alert
def test_it_fires_when_it_should_and_stays_silent_when_it_nearly_would(
    programs: Programs, alert: Alert
) -> None:
    promtool(programs, "test", "rules", f"{alert.name}.yaml")


@each_alert
def test_it_has_a_firing_case_and_a_near_miss(alert: Alert) -> None:
    told = expectations(alert)
    assert any(told), "no case in which it fires"
    assert not all(told), "no case in which it nearly fires"
    text = (CASES / f"{alert.name}.yaml").read_text()
    assert text.count("  # fires") + text.count("  # near miss") == len(cases(alert)), (
        "a case without its reason"
    )


@each_alert
def test_a_case_of_an_alert_that_waits_is_about_the_wait(
    programs: Programs, alert: Alert, tmp_path: Path
) -> None:
    """Without its `for` a near miss must become a hit, or else no case shows that the wait is long enough."""
    if alert.wait == "0m" or alert.group == "operator" or alert.name in NO_SHORT_TROUBLE:
        return
    case = yaml.safe_load((CASES / f"{alert.name}.yaml").read_text())
    hasty = yaml.safe_load(RENDERED.read_text())
    for group in hasty["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0m"
    (tmp_path / "hasty.yaml").write_text(yaml.safe_dump(hasty))
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({**case, "rule_files": ["hasty.yaml"]}))
    done = subprocess.run(
        [str(programs.promtool), "test", "rules", "case.yaml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode != 0


NO_SHORT_TROUBLE = {
    # Their windows, over which a rate or a slope is taken, already leave a short trouble out.
    "MarketfeedConsumerLagGrowing",
    "MarketfeedRetriesStorm",
}


def test_every_case_is_about_an_alert_that_there_is() -> None:
    assert {file.stem for file in CASES.glob("*.yaml")} == {alert.name for alert in ALERTS}


def test_names_are_alike_and_their_own() -> None:
    names = [alert.name for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("Marketfeed") for name in names), "dashboards find them by that"


@each_alert
def test_its_runbook_says_what_it_means_how_to_look_and_what_to_do(alert: Alert) -> None:
    assert rules.rule(alert)["annotations"]["runbook_url"] == rules.runbook(alert)
    page = ROOT / rules.runbook(alert)
    lines = page.read_text().splitlines()
    assert lines[0] == f"# {alert.name}"
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == HEADINGS
    assert page.read_text().count("```") >= 2, "no command to copy"


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    pages = {file.stem for file in (ROOT / config.RUNBOOKS).glob("*.md")}
    assert pages - {"README"} == {alert.name for alert in ALERTS}


@each_alert
def test_its_texts_name_only_labels_that_its_query_gives(alert: Alert) -> None:
    given = promql.grouping_labels(alert.expr) | {"problem"}
    used = {
        word.split(".")[1].strip(" }|)")
        for text in (alert.summary, alert.description)
        for word in text.split()
        if word.startswith("$labels.")
    }
    assert used <= given


def test_every_alert_has_its_reason_in_the_rendered_file() -> None:
    text = " ".join(RENDERED.read_text().replace("      # ", "").split())
    assert [alert.name for alert in ALERTS if alert.reason not in text] == []
