"""Every metric of the worker, in this one file: name, unit, labels, help.

The counters themselves are plain integers (see `counters`); this collector reads them at each scrape.
"""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from marketfeed_wire.status import WorkerStatus
from marketfeed_workers.counters import LATENCY_BOUNDS_US, Counters, LatencyBuckets, StreamCounters
from marketfeed_workers.status import WorkerHealth


class WorkerMetrics(Collector):
    """Collects a worker's metrics; `health` is asked at each scrape."""

    def __init__(self, counters: Counters, health: WorkerHealth) -> None:
        self._counters = counters
        self._health = health

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not checked twice, for a scrape needs a running worker."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric family."""
        status = self._health.worker_status()
        worker = [status.venue, status.shard]
        yield from self._fetching(worker)
        yield from self._publishing(worker, status)
        yield from self._continuity(worker, status)
        yield from self._connections(worker, status)

    def _fetching(self, worker: list[str]) -> Iterator[Metric]:
        fetched = CounterMetricFamily(
            "vendor_fetch_success", "Messages read from the venue.", labels=["venue", "shard", "stream"]
        )
        for stream in self._streams():
            fetched.add_metric([*worker, stream.stream], stream.received)
        yield fetched
        failed = CounterMetricFamily(
            "vendor_fetch_failure",
            "Failures of fetching from the venue: connections that ended or were refused, frames passed over.",
            labels=["venue", "shard", "stream", "reason"],
        )
        for reason, count in sorted(self._counters.failures.items()):
            failed.add_metric([*worker, "all", reason], count)
        yield failed
        outdated = CounterMetricFamily(
            "marketfeed_quotes_outdated",
            "Quotes passed over because a newer or equal update id had come before.",
            labels=["venue", "shard"],
        )
        outdated.add_metric(worker, self._counters.quotes.outdated)
        yield outdated
        unexpected = CounterMetricFamily(
            "marketfeed_messages_unexpected",
            "Messages of symbols that this worker does not read.",
            labels=["venue", "shard"],
        )
        unexpected.add_metric(worker, self._counters.unexpected)
        yield unexpected

    def _publishing(self, worker: list[str], status: WorkerStatus) -> Iterator[Metric]:
        labels = ["venue", "shard", "topic"]
        published = CounterMetricFamily(
            "kafka_publish_success", "Messages that Kafka has acknowledged.", labels=labels
        )
        refused = CounterMetricFamily(
            "kafka_publish_failure", "Messages that Kafka has refused for good.", labels=labels
        )
        latency = HistogramMetricFamily(
            "marketfeed_socket_to_ack_seconds",
            "From the socket's read to Kafka's acknowledgement, in seconds.",
            labels=labels,
        )
        for stream in self._streams():
            published.add_metric([*worker, stream.topic], stream.acknowledged)
            refused.add_metric([*worker, stream.topic], stream.failed)
            latency.add_metric([*worker, stream.topic], *_in_seconds(stream.socket_to_ack))
        yield published
        yield refused
        yield latency
        pending = GaugeMetricFamily(
            "marketfeed_publish_pending_messages",
            "Messages handed to the Kafka client and not answered for.",
            labels=["venue", "shard"],
        )
        pending.add_metric(worker, status.pending)
        yield pending
        paused = CounterMetricFamily(
            "marketfeed_reads_paused",
            "Times that sockets were not read because Kafka's queue was full.",
            labels=["venue", "shard"],
        )
        paused.add_metric(worker, self._counters.paused_reads)
        yield paused

    def _continuity(self, worker: list[str], status: WorkerStatus) -> Iterator[Metric]:
        gaps = CounterMetricFamily(
            "marketfeed_trade_gaps", "Jumps in the trade ids of a symbol.", labels=["venue", "shard"]
        )
        gaps.add_metric(worker, self._counters.gaps)
        yield gaps
        labels = ["venue", "shard", "symbol"]
        missing = GaugeMetricFamily(
            "marketfeed_trade_ids_missing", "Trade ids jumped over and not published since.", labels=labels
        )
        repeated = CounterMetricFamily(
            "marketfeed_trades_duplicate",
            "Trades that came again and were not published again.",
            labels=labels,
        )
        newest = GaugeMetricFamily(
            "marketfeed_last_trade_time_seconds",
            "The venue's time of the newest trade, in seconds since the epoch.",
            labels=labels,
        )
        for symbol, each in status.symbols.items():
            missing.add_metric([*worker, symbol], each.missing)
            repeated.add_metric([*worker, symbol], each.duplicates)
            if each.last_trade_time_us is not None:
                newest.add_metric([*worker, symbol], each.last_trade_time_us / 1e6)
        yield missing
        yield repeated
        yield newest

    def _connections(self, worker: list[str], status: WorkerStatus) -> Iterator[Metric]:
        ready = GaugeMetricFamily(
            "marketfeed_worker_ready", "1 when every stream flows.", labels=["venue", "shard"]
        )
        ready.add_metric(worker, int(status.ready))
        yield ready
        streaming = GaugeMetricFamily(
            "marketfeed_connection_streaming",
            "1 while a WebSocket connection is open.",
            labels=["venue", "shard", "connection"],
        )
        reconnects = CounterMetricFamily(
            "marketfeed_connection_reconnects",
            "Times that a connection was opened again.",
            labels=["venue", "shard", "connection"],
        )
        for connection in status.connections:
            streaming.add_metric([*worker, str(connection.id)], int(connection.state == "streaming"))
            reconnects.add_metric([*worker, str(connection.id)], connection.reconnects)
        yield streaming
        yield reconnects
        refused = GaugeMetricFamily(
            "marketfeed_symbol_refused",
            "1 for a symbol that was asked for and left out.",
            labels=["venue", "shard", "symbol", "reason"],
        )
        for symbol, reason in status.refused_symbols.items():
            refused.add_metric([*worker, symbol, reason], 1)
        yield refused

    def _streams(self) -> tuple[StreamCounters, StreamCounters]:
        return self._counters.trades, self._counters.quotes


def _in_seconds(latency: LatencyBuckets) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets and sum, as `HistogramMetricFamily.add_metric` takes them."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound_us, count in zip([*LATENCY_BOUNDS_US, None], latency.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound_us is None else str(bound_us / 1e6), total))
    return buckets, latency.sum_us / 1e6
