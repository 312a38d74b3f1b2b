"""Metrics are exported as their table declares them."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from marketfeed_service.histogram import LatencyHistogram
from marketfeed_service.metrics import Value, counter, families, gauge, histogram

TABLE = (
    counter("frames", "Frames.", ("stream",)),
    gauge("lag_seconds", "Lag, in seconds."),
    histogram("latency_seconds", "Latency, in seconds.", ("stream",)),
    gauge("refused", "Refused symbols.", ("symbol",)),
)


def exported(*values: Value) -> list[str]:
    class Values(Collector):
        def collect(self):
            return families(TABLE, values)

    registry = CollectorRegistry()
    registry.register(Values())
    return generate_latest(registry).decode().splitlines()


def test_metrics_are_exported_in_the_order_of_the_table() -> None:
    latency = LatencyHistogram((1_000, 2_000))
    latency.observe(1_500, 2)
    assert exported(
        ("latency_seconds", ("trades",), latency),
        ("frames", ("trades",), 3),
        ("lag_seconds", (), 0.5),
        ("frames", ("quotes",), 4),
    ) == [
        "# HELP frames_total Frames.",
        "# TYPE frames_total counter",
        'frames_total{stream="trades"} 3.0',
        'frames_total{stream="quotes"} 4.0',
        "# HELP lag_seconds Lag, in seconds.",
        "# TYPE lag_seconds gauge",
        "lag_seconds 0.5",
        "# HELP latency_seconds Latency, in seconds.",
        "# TYPE latency_seconds histogram",
        'latency_seconds_bucket{le="0.001",stream="trades"} 0.0',
        'latency_seconds_bucket{le="0.002",stream="trades"} 2.0',
        'latency_seconds_bucket{le="+Inf",stream="trades"} 2.0',
        'latency_seconds_count{stream="trades"} 2.0',
        'latency_seconds_sum{stream="trades"} 0.003',
        "# HELP refused Refused symbols.",
        "# TYPE refused gauge",
    ]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        pytest.param(("unknown", (), 1), KeyError, id="undeclared"),
        pytest.param(("frames", (), 1), ValueError, id="label missing"),
        pytest.param(("lag_seconds", ("trades",), 1), ValueError, id="label too many"),
        pytest.param(("latency_seconds", ("trades",), 1), TypeError, id="number of a histogram"),
        pytest.param(("lag_seconds", (), LatencyHistogram((1,))), TypeError, id="histogram of a gauge"),
    ],
)
def test_metrics_that_contradict_the_table_are_an_error(value: Value, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(families(TABLE, [value]))
