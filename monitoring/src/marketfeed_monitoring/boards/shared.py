"""What several dashboards have alike: selectors, colours, and panels of a common shape."""

from collections.abc import Mapping, Sequence
from typing import Final

from marketfeed_monitoring.model import Colour, Panel, Query, Variable

FEEDS: Final = 'namespace=~"$namespace",feed=~"$feed"'
"""Matchers of worker's and consumer's series; where the labels are missing, "All" matches as well."""
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

NOTHING_WRONG: Final = "only something that went wrong makes the series"


def growing(below: float, above: float) -> tuple[tuple[float, Colour], ...]:
    """Green, then yellow from `below`, then red from `above`."""
    return ((LOWEST, "green"), (below, "yellow"), (above, "red"))


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    height: int = 7,
    stacked: bool = False,
    thresholds: Sequence[tuple[float, Colour]] = (),
) -> Panel:
    """A panel of lines over time."""
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


def verdict(
    title: str,
    description: str,
    unit: str,
    query: Query,
    thresholds: tuple[tuple[float, Colour], ...],
    words: Mapping[float, tuple[str, Colour]] | None = None,
    *,
    width: int = 3,
    height: int = 3,
    decimals: int | None = None,
    no_value: str = "",
) -> Panel:
    """A panel of one value whose colour says whether it is good."""
    return Panel(
        title=title,
        description=description,
        kind="stat",
        unit=unit,
        queries=(query,),
        width=width,
        height=height,
        thresholds=thresholds,
        words=words or {},
        decimals=decimals,
        no_value=no_value,
    )


def states(
    title: str,
    description: str,
    query: Query,
    words: Mapping[float, tuple[str, Colour]],
    thresholds: tuple[tuple[float, Colour], ...] = ZERO_IS_BAD,
    *,
    width: int = 12,
    height: int = 7,
) -> Panel:
    """A panel of one bar a series, coloured by its state over time."""
    return Panel(
        title=title,
        description=description,
        kind="timeline",
        unit="none",
        queries=(query,),
        width=width,
        height=height,
        thresholds=thresholds,
        words=words,
    )


def percentiles(histogram: str, matchers: str, by: str, legend: str) -> tuple[Query, Query]:
    """Median and 99th percentile of a histogram, by labels; `legend` stands before the percentile's name."""
    return (
        Query(expr=quantile(0.5, histogram, matchers, by), legend=f"{legend} p50".strip()),
        Query(expr=quantile(0.99, histogram, matchers, by), legend=f"{legend} p99".strip()),
    )


def quantile(part: float, histogram: str, matchers: str, by: str = "") -> str:
    """The query of a quantile over Grafana's own rate interval."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, sum by ({labels}) (rate({histogram}_bucket{{{matchers}}}[$__rate_interval])))"


def per_second(counter: str, matchers: str, by: str) -> str:
    """The query of a counter's rate, summed by labels."""
    return f"sum by ({by}) (rate({counter}{{{matchers}}}[$__rate_interval]))"


def growth(counter: str, matchers: str, by: str) -> str:
    """The query of how much a counter grew over Grafana's own rate interval, summed by labels."""
    return f"sum by ({by}) (increase({counter}{{{matchers}}}[$__rate_interval]))"


READY_WORDS: Final[Mapping[float, tuple[str, Colour]]] = {1: ("ready", "green"), 0: ("not ready", "red")}
