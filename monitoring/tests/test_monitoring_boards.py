"""Dashboards: committed files are up to date, and every panel is complete and valid for Grafana."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marketfeed_monitoring import generate, grafana
from marketfeed_monitoring.boards import BOARDS
from marketfeed_monitoring.model import WIDTH, Board, Panel, layout
from marketfeed_monitoring.promql import grouping_labels, legend, selectors, with_variables

FILES = Path(__file__).parents[2] / "charts/marketfeed/files"
VARIABLES = {"__rate_interval": "1m"} | {each.name: ".*" for board in BOARDS for each in board.variables}
GRAFANA_10_SCHEMA = 39
"""schemaVersion of Grafana 10.4; older dashboards would be migrated on load."""

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
each_panel = pytest.mark.parametrize(
    "panel",
    [panel for board in BOARDS for panel in board.panels],
    ids=[f"{board.uid}: {panel.title}" for board in BOARDS for panel in board.panels],
)


def rendered(board: Board) -> dict[str, Any]:
    return dict(json.loads(grafana.render(board)))


def drawn(board: Board) -> list[dict[str, Any]]:
    """Return the panels of the rendered dashboard without row headings."""
    return [panel for panel in rendered(board)["panels"] if panel["type"] != "row"]


def test_dashboards_in_the_chart_are_up_to_date() -> None:
    assert generate.outdated(FILES) == [], "run make generate"


def test_dashboards_command_writes_checks_and_deletes_obsolete_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "marketfeed_monitoring", str(tmp_path)]
    subprocess.run(command, check=True)
    assert subprocess.run([*command, "--check"], check=False).returncode == 0
    (tmp_path / "dashboards/marketfeed-overview.json").write_text("{}")
    (tmp_path / "dashboards/obsolete.json").write_text("{}")
    checked = subprocess.run([*command, "--check"], check=False, capture_output=True, text=True)
    assert checked.returncode == 1
    assert "obsolete.json is outdated" in checked.stderr
    assert "marketfeed-overview.json is outdated" in checked.stderr
    subprocess.run(command, check=True)
    assert generate.outdated(tmp_path) == []
    assert not (tmp_path / "dashboards/obsolete.json").exists()


def test_dashboards_keep_their_uids_and_titles() -> None:
    assert {board.uid: board.title for board in BOARDS} == {
        "marketfeed-overview": "Marketfeed / Overview",
        "marketfeed-ingestion": "Marketfeed / Ingestion",
        "marketfeed-persistence": "Marketfeed / Persistence",
        "marketfeed-operator": "Marketfeed / Operator",
    }


@each_board
def test_dashboard_has_a_recent_schema_and_a_data_source_variable(board: Board) -> None:
    made = rendered(board)
    assert made["schemaVersion"] >= GRAFANA_10_SCHEMA
    assert made["uid"] == board.uid
    assert made["templating"]["list"][0] == {
        **made["templating"]["list"][0],
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
    }
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps({**made, "uid": None}))
    assert set(sources) == {"${datasource}"}
    assert "id" not in made or made["id"] is None


@each_board
def test_dashboard_panels_have_title_description_unit_and_data_source(board: Board) -> None:
    panels = drawn(board)
    assert len(panels) == len(list(board.panels))
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith((".", "?"))
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    ids = [panel["id"] for panel in rendered(board)["panels"]]
    assert len(set(ids)) == len(ids)


@each_board
def test_dashboard_panels_do_not_overlap(board: Board) -> None:
    used: set[tuple[int, int]] = set()
    for _, position in layout(board):
        cells = set(
            itertools.product(
                range(position.x, position.x + position.width),
                range(position.y, position.y + position.height),
            )
        )
        assert position.x + position.width <= WIDTH
        assert not cells & used
        used |= cells


def test_dashboard_overview_fits_on_one_screen() -> None:
    overview = next(board for board in BOARDS if board.uid == "marketfeed-overview")
    rows = max(position.y + position.height for _, position in layout(overview))
    assert rows * 38 <= 1080, "a row of Grafana's grid is 30 pixels with a gap of 8"


@each_panel
def test_panel_queries_are_valid_and_legends_use_their_labels(panel: Panel) -> None:
    for query in panel.queries:
        text = with_variables(query.expr, VARIABLES)
        assert "$" not in text, "a variable that the dashboard does not have"
        assert selectors(text)
        assert set(re.findall(r"{{(\w+)}}", query.legend)) <= grouping_labels(text)


@each_panel
def test_panel_columns_are_labels_or_values_of_its_queries(panel: Panel) -> None:
    values = {f"Value #{grafana.ref_id(index)}" for index in range(len(panel.queries))}
    labels = set().union(*(grouping_labels(with_variables(query.expr, VARIABLES)) for query in panel.queries))
    assert {column.source for column in panel.columns} <= values | labels
    assert bool(panel.columns) == (panel.kind == "table")


def test_dashboard_variables_also_match_series_without_the_label() -> None:
    for board in BOARDS:
        for variable in rendered(board)["templating"]["list"][1:]:
            assert (variable["allValue"], variable["current"]["value"]) == (".*", "$__all")


@pytest.mark.parametrize(
    ("template", "labels", "name"),
    [
        ("{{shard}} #{{connection}}", {"shard": "a", "connection": "0"}, "a #0"),
        ("{{feed}} {{table}}", {"table": "trades"}, "trades"),
        ("{{verb}}: {{status}}", {"verb": "get", "status": "404"}, "get: 404"),
    ],
)
def test_legend_is_formatted_as_in_grafana(template: str, labels: dict[str, str], name: str) -> None:
    assert legend(template, labels) == name
