"""PromQL fragments that panels and rules share, and inspection of queries with a parser.

Target labels depend on the scrape configuration: `namespace`, `feed`, `component`, `shard` and `pod` on Kubernetes
(docs/operator.md), otherwise only `job` and `instance`. Aggregations group by the former; a missing label is an empty
one, so one query works for both.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import promql_parser

TARGET_LABELS: Final = frozenset(
    {"namespace", "feed", "component", "shard", "pod", "container", "job", "instance"}
)
"""Labels that the scrape configuration may add to any series."""

FEED: Final = "namespace, feed"
WORKER: Final = "namespace, feed, venue, shard"

COMPONENTS: Final[Mapping[str, tuple[str, str]]] = {
    "worker": ("ingestion", "(marketfeed-)?workers?"),
    "consumer": ("consumer-.*", "(marketfeed-)?consumers?(-.*)?"),
    "operator": ("operator", "(marketfeed-)?operator"),
}
"""Service -> its `component` on Kubernetes, and its scrape job otherwise; both are anchored regular expressions."""


def up(service: str, more: str = "") -> str:
    """Return the query of `up` for the service's targets; `more` are further matchers with a leading comma.

    Raises:
        KeyError: `service` is unknown.
    """
    component, job = COMPONENTS[service]
    return f'up{{component=~"{component}"{more}}} or up{{component="",job=~"{job}"{more}}}'


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric that a query selects.

    Attributes:
        metric: Name of the series, including suffixes such as `_total` and `_bucket`.
        labels: Labels with a matcher.
    """

    metric: str
    labels: frozenset[str]


def selectors(query: str) -> list[Selector]:
    """Return every metric that `query` selects, in order.

    Raises:
        ValueError: `query` is not valid PromQL.
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
    """Return the selectors of `query` as separate queries, without ranges."""
    found: dict[str, None] = {}

    def visit(expression: promql_parser.Expr) -> bool:
        if isinstance(expression, promql_parser.VectorSelector):
            found[str(expression)] = None
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return list(found)


def grouping_labels(query: str) -> set[str]:
    """Return every label in a `by` or `without` clause of `query`.

    Raises:
        ValueError: `query` is not valid PromQL.
    """
    found: set[str] = set()

    def visit(expression: promql_parser.Expr) -> bool:
        if isinstance(expression, promql_parser.AggregateExpr) and expression.modifier is not None:
            found.update(expression.modifier.labels)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def with_variables(query: str, variables: Mapping[str, str]) -> str:
    """Return `query` with Grafana's variables replaced, longest name first so that `$__interval_ms` stays intact."""
    for name in sorted(variables, key=len, reverse=True):
        query = query.replace(f"${{{name}}}", variables[name]).replace(f"${name}", variables[name])
    return query


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Return `template` with each ``{{label}}`` replaced by its value, as Grafana formats legends."""
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return " ".join(re.sub(r"\{\{\w+\}\}", "", template).split())


def base_names(series: str) -> Iterator[str]:
    """Yield the metric families that a series of this name may belong to."""
    yield series
    for suffix in ("_total", "_bucket", "_count", "_sum"):
        if series.endswith(suffix):
            yield series.removesuffix(suffix)
