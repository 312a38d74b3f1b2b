"""Every metric and label in a panel or rule is declared by a service.

The test reads the services' tables of metrics, so a renamed metric fails here.
"""

from collections.abc import Iterable, Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry

from marketfeed_consumers.metric_table import METRICS as CONSUMER_METRICS
from marketfeed_monitoring.alerts import ALERTS
from marketfeed_monitoring.boards import BOARDS
from marketfeed_monitoring.promql import TARGET_LABELS, base_names, grouping_labels, selectors, with_variables
from marketfeed_operator.engine.metrics import Metrics as OperatorMetrics
from marketfeed_service.metrics import Declaration
from marketfeed_workers.metric_table import METRICS as WORKER_METRICS

Declared = Mapping[str, frozenset[str]]
"""Family -> its labels."""

EXPORTERS: Declared = {
    # Series of Prometheus itself: https://prometheus.io/docs/concepts/jobs_instances/ and
    # https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "symbol", "topic", "venue"}),
}
"""Metrics of Prometheus; the labels of ALERTS are those of the project's alerts."""
PREVIOUS: Declared = {"marketfeed_consumer_audit_missing_trades": frozenset({"verdict"})}
"""Labels that services of the previous version set: alerts read them for one version, see the changelog."""
VARIABLES = {"__rate_interval": "1m"} | {each.name: ".*" for board in BOARDS for each in board.variables}
QUERIES = [
    *(
        (f"{board.uid}: {panel.title}", with_variables(query.expr, VARIABLES))
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
    ),
    *((alert.name, alert.expr) for alert in ALERTS),
]


def families(registry: CollectorRegistry) -> Iterator[tuple[str, frozenset[str]]]:
    for family in registry.collect():
        labels = set(getattr(family, "_labelnames", ())).union(*(sample.labels for sample in family.samples))
        if family.type == "histogram":
            labels.add("le")
        yield family.name, frozenset(labels)


def in_table(table: Iterable[Declaration]) -> Declared:
    return {
        each.name: frozenset(each.labels) | ({"le"} if each.type == "histogram" else set()) for each in table
    }


def operator_families() -> Declared:
    registry = CollectorRegistry()
    made = OperatorMetrics(registry)
    labels = {each._name: frozenset(each._labelnames) for each in vars(made).values()}
    return {name: sample_labels | labels[name] for name, sample_labels in families(registry)}


@pytest.fixture(scope="module")
def declared() -> Declared:
    return {**in_table(WORKER_METRICS), **in_table(CONSUMER_METRICS), **operator_families(), **EXPORTERS}


def test_metrics_of_every_service_are_found(declared: Declared) -> None:
    """Guard the tests below against an empty set of declared metrics."""
    assert declared["vendor_fetch_failure"] == {"venue", "shard", "stream", "reason"}
    assert declared["marketfeed_consumer_commit_seconds"] == {"le"}
    assert declared["marketfeed_operator_reconciles"] == {"result"}
    assert len(declared) > 50


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=lambda value: value if " " not in value else "")
def test_metrics_in_queries_are_declared(declared: Declared, where: str, query: str) -> None:
    labels: set[str] = set()
    for selector in selectors(query):
        family = next((name for name in base_names(selector.metric) if name in declared), None)
        assert family is not None, f"{where} selects {selector.metric}, which no service declares"
        available = declared[family] | TARGET_LABELS | PREVIOUS.get(family, frozenset())
        assert selector.labels <= available, f"{where}: {selector.metric} has only {sorted(available)}"
        labels |= available
    assert grouping_labels(query) <= labels, f"{where} groups by a label that no metric in it has"


def test_metrics_of_counters_are_selected_by_series_name() -> None:
    """`x_total` exists, `x` does not; a query for `x` returns nothing."""
    registry = CollectorRegistry()
    OperatorMetrics(registry)
    types = {family.name: family.type for family in registry.collect()}
    assert types["marketfeed_operator_reconciles"] == "counter"
    read = {selector.metric for _, query in QUERIES for selector in selectors(query)}
    assert not [name for name in read if types.get(name) in ("counter", "histogram")]
