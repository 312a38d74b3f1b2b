"""Declaration of metrics: a service has them in one table; its collector only gives their values."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Literal, NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from marketfeed_service.histogram import LatencyHistogram


class Declaration(NamedTuple):
    """A metric.

    Attributes:
        name: with the unit as its suffix; "_total" is appended to that of a counter.
        help: a noun phrase, with the unit.
    """

    type: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


counter: Final = partial(Declaration, "counter")
gauge: Final = partial(Declaration, "gauge")
histogram: Final = partial(Declaration, "histogram")

Value: TypeAlias = tuple[str, Sequence[str], float | LatencyHistogram]
"""Name of the metric, values of its labels, and value; that of a histogram is a LatencyHistogram."""


def families(table: Sequence[Declaration], values: Iterable[Value]) -> Iterator[Metric]:
    """Yield a family for each metric of `table`, in its order, with `values`, which may be in any order.

    Raises:
        KeyError: `table` does not declare the metric of a value.
        ValueError: a value has another number of labels than declared.
        TypeError: a value is not of the type declared.
    """
    made = {
        each.name: (each, _FAMILIES[each.type](each.name, each.help, labels=each.labels)) for each in table
    }
    for name, labels, value in values:
        declared, family = made[name]
        if len(labels) != len(declared.labels):
            raise ValueError(f"{name} has the labels {declared.labels}, not {labels}")
        if isinstance(family, HistogramMetricFamily) and isinstance(value, LatencyHistogram):
            family.add_metric(labels, *value.in_seconds())
        elif not isinstance(family, HistogramMetricFamily) and not isinstance(value, LatencyHistogram):
            family.add_metric(labels, value)
        else:
            raise TypeError(f"{name} is a {declared.type}, and its value is {value!r}")
    for _, family in made.values():
        yield family


_FAMILIES: Final[dict[str, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
