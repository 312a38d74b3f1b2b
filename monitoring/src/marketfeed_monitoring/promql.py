"""Small pieces of PromQL that panels and rules share, and what a query reads, told by a parser.

Labels that a series may carry besides its own come from whoever scrapes: on Kubernetes `namespace`, `feed`,
`component`, `shard` and `pod` (docs/operator.md), elsewhere just `job` and `instance`. Aggregations name the former,
and a label that is not there is an empty one, so the same query serves both.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import promql_parser

TARGET_LABELS: Final = frozenset(
    {"namespace", "feed", "component", "shard", "pod", "container", "job", "instance"}
)
"""What the scraping side may put on any series."""

FEED: Final = "namespace, feed"
WORKER: Final = "namespace, feed, venue, shard"

COMPONENTS: Final[Mapping[str, tuple[str, str]]] = {
    "worker": ("ingestion", "(marketfeed-)?workers?"),
    "consumer": ("consumer-.*", "(marketfeed-)?consumers?(-.*)?"),
    "operator": ("operator", "(marketfeed-)?operator"),
}
"""Service -> its `component` on Kubernetes, its scrape job elsewhere; both are anchored regular expressions."""


def up(service: str, more: str = "") -> str:
    """Whether the service's targets answered their last scrape; `more` are further matchers, with a comma in front.

    Raises:
        KeyError: there is no such service.
    """
    component, job = COMPONENTS[service]
    return f'up{{component=~"{component}"{more}}} or up{{component="",job=~"{job}"{more}}}'


@dataclass(frozen=True, slots=True)
class Selector:
    """One metric that a query reads.

    Attributes:
        metric: the name of the series, with `_total`, `_bucket` and the like.
        labels: labels that the selector matches on.
    """

    metric: str
    labels: frozenset[str]


def selectors(query: str) -> list[Selector]:
    """Every metric that `query` reads, in its order.

    Raises:
        ValueError: it is not PromQL.
    """
    found: list[Selector] = []

    def visit(expression: promql_parser.Expr) -> bool:
        if isinstance(expression, promql_parser.VectorSelector):
            matched = frozenset(match.name for match in expression.matchers.matchers)
            found.append(Selector(expression.name or "", matched))
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def matched_series(query: str) -> list[str]:
    """The selectors of `query` as PromQL of their own, without ranges."""
    found: dict[str, None] = {}

    def visit(expression: promql_parser.Expr) -> bool:
        if isinstance(expression, promql_parser.VectorSelector):
            found[str(expression)] = None
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return list(found)


def grouping_labels(query: str) -> set[str]:
    """Every label that an aggregation of `query` keeps or drops by name.

    Raises:
        ValueError: it is not PromQL.
    """
    found: set[str] = set()

    def visit(expression: promql_parser.Expr) -> bool:
        if isinstance(expression, promql_parser.AggregateExpr) and expression.modifier is not None:
            found.update(expression.modifier.labels)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def with_variables(query: str, variables: Mapping[str, str]) -> str:
    """`query` with Grafana's variables replaced, longer names first, so `$__interval` spares `$__interval_ms`."""
    for name in sorted(variables, key=len, reverse=True):
        query = query.replace(f"${{{name}}}", variables[name]).replace(f"${name}", variables[name])
    return query


def legend(template: str, labels: Mapping[str, str]) -> str:
    """`template` with each ``{{label}}`` replaced by its value, as Grafana names a series."""
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return " ".join(re.sub(r"\{\{\w+\}\}", "", template).split())


def base_names(series: str) -> Iterator[str]:
    """The metric families that a series of this name may belong to."""
    yield series
    for suffix in ("_total", "_bucket", "_count", "_sum"):
        if series.endswith(suffix):
            yield series.removesuffix(suffix)
