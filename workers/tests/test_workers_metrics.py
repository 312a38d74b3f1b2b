"""Metrics: declared in one table, each with help and unit, and scraped as declared."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from workers_line import Line, Worker

import marketfeed_workers
from marketfeed_devtools.waiting import until
from marketfeed_workers.counters import LATENCY_BOUNDS_US
from marketfeed_workers.metric_table import METRICS
from marketfeed_workers.metrics import INITIAL_REASONS

SOURCES = Path(marketfeed_workers.__file__).parent
WORKER_LABELS = {"venue", "shard"}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Metric]]:
    """Return the metric families of a worker that has counted every event, by name."""
    with Line(tmp_path_factory.mktemp("metrics")) as line:
        worker = line.worker(SHARD="7", BINANCE_SYMBOLS="BTCUSDT,ETHUSDT,NOPEUSDT")
        line.fault("drop", streams=["btcusdt@trade"], count=2)
        line.fault("corrupt", streams=["ethusdt@trade"], how="bad_price")
        line.fault("server_shutdown", close_after_seconds=60)
        until(lambda: worker.metric("marketfeed_trade_gaps_total", outcome="backfilled") >= 2, "backfills")
        until(lambda: worker.metric("marketfeed_connection_rotations_total") >= 1, "a rotation")
        yield {family.name: family for family in text_string_to_metric_families(_scrape(worker))}


def _scrape(worker: Worker) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.port()}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


DECLARED = {each.name: each for each in METRICS}


def test_metrics_are_declared_in_one_file() -> None:
    users = {
        str(file.relative_to(SOURCES))
        for file in SOURCES.rglob("*.py")
        if re.search(r"^(from|import) prometheus_client", file.read_text(), re.MULTILINE)
    }
    assert users == {"metrics.py", "worker.py", "world.py"}, "the last two only create the registry"
    assert "CollectorRegistry" in (SOURCES / "worker.py").read_text()


def test_metrics_declared_are_those_scraped(scraped: dict[str, Metric]) -> None:
    assert set(scraped) == set(DECLARED)


def test_metrics_have_help_and_conventional_names(scraped: dict[str, Metric]) -> None:
    for name, family in scraped.items():
        assert re.fullmatch(r"(vendor|kafka|marketfeed)_[a-z_]+[a-z]", name)
        assert (family.type, family.documentation) == (DECLARED[name].type, DECLARED[name].help)
        assert family.documentation.endswith("."), name
        if "second" in family.documentation.lower() and family.type != "counter":
            assert name.endswith("_seconds"), f"{name} has its unit in its help and not in its name"
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)


def test_metrics_samples_have_the_worker_labels(scraped: dict[str, Metric]) -> None:
    for name, family in scraped.items():
        assert family.samples, f"{name} says nothing, even where there was something to say"
        for sample in family.samples:
            assert set(sample.labels) >= WORKER_LABELS, name
            assert (sample.labels["venue"], sample.labels["shard"]) == ("binance_us", "7")


@pytest.mark.parametrize(
    ("name", "further_labels"),
    [
        ("vendor_fetch_success", {"stream"}),
        ("vendor_fetch_failure", {"stream", "reason"}),
        ("kafka_publish_success", {"topic"}),
        ("kafka_publish_failure", {"topic"}),
        ("marketfeed_symbol_messages", {"symbol", "stream"}),
        ("marketfeed_trade_ids_missing", {"symbol"}),
        ("marketfeed_last_trade_time_seconds", {"symbol"}),
        ("marketfeed_trade_gaps", {"outcome"}),
        ("marketfeed_connection_streaming", {"connection"}),
        ("marketfeed_connection_refused", {"connection"}),
        ("marketfeed_symbol_refused", {"symbol", "reason"}),
        ("marketfeed_publish_pending_messages", set()),
        ("marketfeed_publish_oldest_unacknowledged_seconds", set()),
        ("marketfeed_stream_ready", {"symbol", "stream"}),
        ("marketfeed_stream_silent_seconds", {"symbol", "stream"}),
        ("marketfeed_messages_rejected", {"reason"}),
        ("marketfeed_request_weight_limit", set()),
    ],
)
def test_metrics_labels_used_by_dashboards_and_alerts(
    scraped: dict[str, Metric], name: str, further_labels: set[str]
) -> None:
    for sample in scraped[name].samples:
        assert set(sample.labels) == WORKER_LABELS | further_labels


def test_metrics_histograms_are_cumulative(scraped: dict[str, Metric]) -> None:
    latency = scraped["marketfeed_socket_to_ack_seconds"]
    topics = {sample.labels["topic"] for sample in latency.samples}
    assert len(topics) == 5
    for topic in topics:
        of_topic = [sample for sample in latency.samples if sample.labels["topic"] == topic]
        buckets = [sample for sample in of_topic if sample.name.endswith("_bucket")]
        assert [sample.labels["le"] for sample in buckets] == [
            *(str(bound / 1e6) for bound in LATENCY_BOUNDS_US),
            "+Inf",
        ]
        counts = [sample.value for sample in buckets]
        assert counts == sorted(counts)
        (count,) = [sample.value for sample in of_topic if sample.name.endswith("_count")]
        assert counts[-1] == count


def value(scraped: dict[str, Metric], name: str, **labels: str) -> float:
    return sum(
        sample.value
        for sample in scraped[name].samples
        if not sample.name.endswith("_created") and labels.items() <= sample.labels.items()
    )


def test_metrics_count_what_happened(scraped: dict[str, Metric]) -> None:
    assert value(scraped, "vendor_fetch_failure", reason="bad_frame") >= 1, "over one connection or over two"
    assert value(scraped, "marketfeed_trades_backfilled") >= 3
    assert value(scraped, "marketfeed_trade_gaps", outcome="unresolved") == 0
    assert value(scraped, "marketfeed_trade_ids_missing") == 0
    assert value(scraped, "marketfeed_connection_rotations", reason="announced") == 1
    assert value(scraped, "marketfeed_connection_reconnects") == 0
    assert value(scraped, "marketfeed_symbol_refused", symbol="NOPEUSDT") == 1
    assert value(scraped, "marketfeed_connection_refused") == 0
    assert {
        reason: value(scraped, "vendor_fetch_failure", reason=reason) for reason in INITIAL_REASONS
    } == dict.fromkeys(INITIAL_REASONS, 0)
    assert value(scraped, "marketfeed_worker_ready") == 1
    assert value(scraped, "marketfeed_request_weight_limit") == 1200
    assert 0 < value(scraped, "marketfeed_request_weight_used") < 1200
    assert value(scraped, "marketfeed_connection_attempts_used") == 2
    assert abs(value(scraped, "marketfeed_clock_offset_seconds")) < 5
    received = value(scraped, "vendor_fetch_success", stream="trade")
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert 0 < value(scraped, "marketfeed_symbol_messages", symbol=symbol, stream="trade") < received
    acknowledged = value(scraped, "kafka_publish_success")
    assert received > 0
    assert acknowledged > 0
    assert value(scraped, "kafka_publish_failure") == 0
