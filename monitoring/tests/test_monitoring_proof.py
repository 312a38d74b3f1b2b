"""Every query of every panel and rule, asked of a real Prometheus that scrapes real workers, consumers and operator.

None may fail, and none may be empty that should not be; those that may say why, in the board or below.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitoring_stage import Stage, lose_trades_for_good, make_trouble, stage

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
NEVER_ON = {
    "kubernetes": {'component=""': "there every target has a component"},
    "compose": {"component=~": "there no target has one, the scrape job tells"},
}
"""Which selectors of rules find nothing on one of the two, by a part of their text."""


def panel_queries(stage: Stage) -> Iterator[tuple[Board, Panel, Query]]:
    for board in BOARDS:
        if board is OPERATOR and stage.without_operator:
            continue
        for panel in board.panels:
            for query in panel.queries:
                yield board, panel, query


def answers(server: Prometheus, panel: Panel, query: Query) -> bool:
    """Whether the query finds something, asked as Grafana asks it."""
    text = with_variables(query.expr, VARIABLES)
    if panel.kind in ("stat", "table"):
        return bool(server.instant(text))
    now = time.time()
    return bool(server.over_time(text, now - 60, now, 5))


def empty_panels(server: Prometheus, stage: Stage) -> list[str]:
    return [
        f"{board.title} / {panel.title}: {query.expr}"
        for board, panel, query in panel_queries(stage)
        if not answers(server, panel, query) and not query.may_be_empty
    ]


def empty_rules(server: Prometheus, name: str, stage: Stage) -> list[str]:
    """The selectors of rules that find nothing: the rules themselves are empty while all is well."""
    return [
        f"{alert.name}: {selector}"
        for alert in ALERTS
        if not (stage.without_operator and alert.group == "operator")
        for selector in matched_series(alert.expr)
        if not any(part in selector for part in NEVER_ON[name])
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


def silent_alerts(server: Prometheus, name: str, label: str, value: str) -> list[str]:
    """What the trouble on the stage must have raised by now, pending or firing."""
    alert = f'ALERTS{{alertname="{name}",{label}="{value}"}}'
    return [] if server.instant(alert) else [f"no {alert}"]


def what_lacks(stage: Stage) -> list[str]:
    trades = stage.pipeline.topics["MARKET_TRADES_TOPIC"]
    return [
        f"{name}: {problem}"
        for name, server in (("kubernetes", stage.kubernetes), ("compose", stage.compose))
        for problem in (
            *broken_rules(server),
            *empty_panels(server, stage),
            *empty_rules(server, name, stage),
            *silent_alerts(server, "MarketfeedDataMissing", "symbol", "DOGEUSDT"),
            *silent_alerts(server, "MarketfeedDeadLetters", "topic", trades),
        )
    ]


@pytest.mark.timeout(400)
async def test_every_query_of_every_panel_and_rule_is_answered(programs: Programs, tmp_path: Path) -> None:
    async with stage(tmp_path, programs) as running:
        if running.without_operator and os.environ.get("CI") == "true":
            pytest.fail(running.without_operator)
        await make_trouble(running)
        lose_trades_for_good(running)
        deadline = time.monotonic() + SECONDS
        while lacking := await asyncio.to_thread(what_lacks, running):
            assert time.monotonic() < deadline, "\n".join(lacking)
            await asyncio.sleep(1)
    if running.without_operator:
        pytest.skip(f"all but the operator's queries were asked: {running.without_operator}")
