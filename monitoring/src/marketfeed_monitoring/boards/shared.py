"""Selectors, thresholds and panel constructors that several dashboards share."""

from collections.abc import Mapping, Sequence
from typing import Final

from marketfeed_monitoring.model import Colour, Panel, Query, Variable

FEEDS: Final = 'namespace=~"$namespace",feed=~"$feed"'
"""Matchers of the workers' and consumers' series; "All" also matches series without these labels."""
LOWEST: Final = float("-inf")

ZERO_IS_GOOD: Final[tuple[tuple[float, Colour], ...]] = ((LOWEST, "green"), (1, "red"))
ZERO_IS_BAD: Final[tuple[tuple[float, Colour], ...]] = ((LOWEST, "red"), (1, "green"))
NEUTRAL: Final[tuple[tuple[float, Colour], ...]] = ((LOWEST, "blue"),)

NAMESPACE: Final = Variable(
    name="namespace", label="Namespace", query="label_values(marketfeed_worker_ready, namespace)"
)
FEED: Final = Variable(
    name="feed", label="Feed", query='label_values(marketfeed_worker_ready{namespace=~"$namespace"}, feed)'
)

NO_FAULT: Final = "the series exists only after a fault"


def ascending(yellow: float, red: float) -> tuple[tuple[float, Colour], ...]:
    """Return thresholds that are green below `yellow` and red from `red` on."""
    return ((LOWEST, "green"), (yellow, "yellow"), (red, "red"))


def time_series(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    height: int = 7,
    stacked: bool = False,
    thresholds: Sequence[tuple[float, Colour]] = (),
) -> Panel:
    """Return a panel of lines over time; see `Panel` for the arguments."""
    return Panel(
        title=title,
        description=description,
        kind="timeseries",
        unit=unit,
        queries=queries,
        width=width,
        height=height,
        stacked=stacked,
        thresholds=tuple(thresholds),
    )


def stat(
    title: str,
    description: str,
    unit: str,
    query: Query,
    thresholds: tuple[tuple[float, Colour], ...],
    value_mappings: Mapping[float, tuple[str, Colour]] | None = None,
    *,
    width: int = 3,
    height: int = 3,
    decimals: int | None = None,
    no_value: str = "",
) -> Panel:
    """Return a panel of a single value, coloured by its thresholds; see `Panel` for the arguments."""
    return Panel(
        title=title,
        description=description,
        kind="stat",
        unit=unit,
        queries=(query,),
        width=width,
        height=height,
        thresholds=thresholds,
        value_mappings=value_mappings or {},
        decimals=decimals,
        no_value=no_value,
    )


def state_timeline(
    title: str,
    description: str,
    query: Query,
    value_mappings: Mapping[float, tuple[str, Colour]],
    thresholds: tuple[tuple[float, Colour], ...] = ZERO_IS_BAD,
    *,
    width: int = 12,
    height: int = 7,
) -> Panel:
    """Return a panel of one bar per series, coloured by its state over time; see `Panel` for the arguments."""
    return Panel(
        title=title,
        description=description,
        kind="timeline",
        unit="none",
        queries=(query,),
        width=width,
        height=height,
        thresholds=thresholds,
        value_mappings=value_mappings,
    )


def percentiles(histogram: str, matchers: str, by: str, legend: str) -> tuple[Query, Query]:
    """Return the queries of a histogram's median and 99th percentile, by labels.

    Args:
        histogram: Name of the metric family.
        matchers: Label matchers, without braces.
        by: Labels to group by.
        legend: Legend in front of the percentile's name.
    """
    return (
        Query(expr=quantile(0.5, histogram, matchers, by), legend=f"{legend} p50".strip()),
        Query(expr=quantile(0.99, histogram, matchers, by), legend=f"{legend} p99".strip()),
    )


def quantile(q: float, histogram: str, matchers: str, by: str = "") -> str:
    """Return the query of a histogram's quantile over Grafana's rate interval.

    Args:
        q: Quantile, from 0 to 1.
        histogram: Name of the metric family.
        matchers: Label matchers, without braces.
        by: Labels to group by.
    """
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket{{{matchers}}}[$__rate_interval])))"


def per_second(counter: str, matchers: str, by: str) -> str:
    """Return the query of a counter's rate over Grafana's rate interval, summed by labels.

    Args:
        counter: Name of the metric.
        matchers: Label matchers, without braces.
        by: Labels to group by.
    """
    return f"sum by ({by}) (rate({counter}{{{matchers}}}[$__rate_interval]))"


def increase(counter: str, matchers: str, by: str) -> str:
    """Return the query of a counter's increase over Grafana's rate interval, summed by labels.

    Args:
        counter: Name of the metric.
        matchers: Label matchers, without braces.
        by: Labels to group by.
    """
    return f"sum by ({by}) (increase({counter}{{{matchers}}}[$__rate_interval]))"


READY_MAPPINGS: Final[Mapping[float, tuple[str, Colour]]] = {1: ("ready", "green"), 0: ("not ready", "red")}
