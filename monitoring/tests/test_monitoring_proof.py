"""Every query of every panel and rule, on a Prometheus that scrapes running workers, consumers and operator.

No query may fail or return an empty result, unless the board or a table below states the reason.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitoring_stage import Stage, inject_faults, lose_trades_permanently, stage

from marketfeed_devtools.waiting import until_async
from marketfeed_monitoring.alerts import ALERTS
from marketfeed_monitoring.boards import BOARDS
from marketfeed_monitoring.boards.operator import OPERATOR
from marketfeed_monitoring.model import Board, Panel, Query
from marketfeed_monitoring.prometheus import Programs, Prometheus
from marketfeed_monitoring.promql import matched_series, with_variables

pytestmark = pytest.mark.integration

SECONDS = 150
VARIABLES = {
    "__rate_interval": "20s",
    **{variable.name: ".*" for board in BOARDS for variable in board.variables},
}
NO_MATCH_ON = {
    "kubernetes": {'component=""': "every target has a component"},
    "compose": {"component=~": "no target has a component; the scrape job identifies the service"},
}
"""Selectors of rules that match nothing in one of the two environments, by a part of their text."""
OF_THE_VERSION_BEFORE = "verdict=~"
"""A part of the selectors for services of the previous version, which alerts read for one version."""


def panel_queries(stage: Stage) -> Iterator[tuple[Board, Panel, Query]]:
    for board in BOARDS:
        if board is OPERATOR and stage.without_operator:
            continue
        for panel in board.panels:
            for query in panel.queries:
                yield board, panel, query


def has_result(server: Prometheus, panel: Panel, query: Query) -> bool:
    """Return whether the query has a result when it is evaluated as by Grafana."""
    text = with_variables(query.expr, VARIABLES)
    if panel.kind in ("stat", "table"):
        return bool(server.instant(text))
    now = time.time()
    return bool(server.over_time(text, now - 60, now, 5))


def empty_panels(server: Prometheus, stage: Stage) -> list[str]:
    return [
        f"{board.title} / {panel.title}: {query.expr}"
        for board, panel, query in panel_queries(stage)
        if not has_result(server, panel, query) and not query.may_be_empty
    ]


def empty_rules(server: Prometheus, name: str, stage: Stage) -> list[str]:
    """Return the selectors of rules without a match; the rules themselves have no result without a fault."""
    return [
        f"{alert.name}: {selector}"
        for alert in ALERTS
        if not (stage.without_operator and alert.group == "operator")
        for selector in matched_series(alert.expr)
        if not any(part in selector for part in (*NO_MATCH_ON[name], OF_THE_VERSION_BEFORE))
        if not server.instant(selector)
    ]


def broken_rules(server: Prometheus) -> list[str]:
    broken = []
    for alert in ALERTS:
        try:
            server.instant(alert.expr)
        except ValueError as error:
            broken.append(f"{alert.name}: {error}")
    return broken


def missing_alerts(server: Prometheus, name: str, label: str, value: str) -> list[str]:
    """Return the alert as a problem unless it is pending or firing."""
    alert = f'ALERTS{{alertname="{name}",{label}="{value}"}}'
    return [] if server.instant(alert) else [f"no {alert}"]


def problems(stage: Stage) -> list[str]:
    trades = stage.pipeline.topics["MARKET_TRADES_TOPIC"]
    return [
        f"{name}: {problem}"
        for name, server in (("kubernetes", stage.kubernetes), ("compose", stage.compose))
        for problem in (
            *broken_rules(server),
            *empty_panels(server, stage),
            *empty_rules(server, name, stage),
            *missing_alerts(server, "MarketfeedDataMissing", "symbol", "DOGEUSDT"),
            *missing_alerts(server, "MarketfeedDeadLetters", "topic", trades),
        )
    ]


@pytest.mark.timeout(400)
async def test_dashboard_and_rule_queries_have_results(programs: Programs, tmp_path: Path) -> None:
    async with stage(tmp_path, programs) as running:
        if running.without_operator and os.environ.get("CI") == "true":
            pytest.fail(running.without_operator)
        await inject_faults(running)
        lose_trades_permanently(running)
        found: list[str] = []

        async def all_have_results() -> bool:
            found[:] = await asyncio.to_thread(problems, running)
            return not found

        await until_async(all_have_results, lambda: "results:\n" + "\n".join(found), SECONDS, every=1)
    if running.without_operator:
        pytest.skip(f"all queries but the operator's were evaluated: {running.without_operator}")
