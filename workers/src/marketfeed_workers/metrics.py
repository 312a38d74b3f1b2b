"""Declaration of the worker's metrics: name, unit, labels, help.

The values are plain integers (see `counters`); the collector reads them at each scrape.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from marketfeed_wire.status import WorkerStatus
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.rate_limit import AttemptBudget, WeightBudget
from marketfeed_workers.status import WorkerHealth

INITIAL_REASONS: Final = ("rate_limited", "banned", "region_refused", "forbidden")
"""Failure reasons that are exported as 0 from the start: a series that begins at 1 has no increase for alerts."""


INITIAL_ERRORS: Final = ("_AUTHENTICATION", "_TRANSPORT")
"""Likewise for errors of the Kafka client: failed authentication and failed connections."""


class WorkerMetrics(Collector):
    """Collector of a worker's metrics."""

    def __init__(
        self,
        counters: Counters,
        publisher: Publisher,
        health: WorkerHealth,
        weight: WeightBudget,
        attempts: AttemptBudget,
    ) -> None:
        self._counters = counters
        self._publisher = publisher
        self._weight = weight
        self._attempts = attempts
        self._health = health

    def describe(self) -> Iterable[Metric]:
        """Return nothing: `collect` needs a running worker, which the registration does not have."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        status = self._health.worker_status()
        worker = [status.venue, status.shard]
        yield from self._fetching(worker)
        yield from self._publishing(worker, status)
        yield from self._continuity(worker, status)
        yield from self._connections(worker, status)
        yield from self._venue(worker)

    def _fetching(self, worker: list[str]) -> Iterator[Metric]:
        fetched = CounterMetricFamily(
            "vendor_fetch_success", "Messages read from the venue.", labels=["venue", "shard", "stream"]
        )
        for stream in (self._counters.trades, self._counters.quotes):
            fetched.add_metric([*worker, stream.stream], stream.received)
        yield fetched
        failed = CounterMetricFamily(
            "vendor_fetch_failure",
            "Failures of fetching from the venue: closed or rejected connections, failed requests, skipped frames.",
            labels=["venue", "shard", "stream", "reason"],
        )
        failures = {**dict.fromkeys(INITIAL_REASONS, 0), **self._counters.failures}
        for reason, count in sorted(failures.items()):
            failed.add_metric([*worker, "all", reason], count)
        yield failed
        rejected = CounterMetricFamily(
            "marketfeed_messages_rejected",
            "Messages rejected as impossible, for example by their time, and stored unchanged.",
            labels=["venue", "shard", "reason"],
        )
        for reason, count in sorted({"impossible_time": 0, **self._counters.rejections}.items()):
            rejected.add_metric([*worker, reason], count)
        yield rejected
        quotes = self._counters.quotes
        yield _counter(
            "marketfeed_quotes_outdated",
            "Quotes skipped because a newer or equal update id was received before.",
            worker,
            quotes.outdated,
        )
        yield _counter(
            "marketfeed_quotes_conflated",
            "Quotes skipped under back-pressure in favour of a newer one of the same symbol.",
            worker,
            quotes.conflated,
        )
        yield _counter(
            "marketfeed_messages_unexpected",
            "Messages of symbols or streams that are not subscribed.",
            worker,
            self._counters.unexpected,
        )
        delay = HistogramMetricFamily(
            "marketfeed_venue_to_socket_seconds",
            "Latency from the venue's event time to the socket read, in seconds, corrected by the clock offset.",
            labels=["venue", "shard", "stream"],
        )
        trades = self._counters.trades
        delay.add_metric([*worker, trades.stream], *trades.venue_to_socket.in_seconds())
        yield delay

    def _publishing(self, worker: list[str], status: WorkerStatus) -> Iterator[Metric]:
        labels = ["venue", "shard", "topic"]
        published = CounterMetricFamily(
            "kafka_publish_success", "Messages acknowledged by Kafka.", labels=labels
        )
        refused = CounterMetricFamily(
            "kafka_publish_failure", "Messages permanently rejected by Kafka.", labels=labels
        )
        latency = HistogramMetricFamily(
            "marketfeed_socket_to_ack_seconds",
            "Latency from the socket read to Kafka's acknowledgement, in seconds.",
            labels=labels,
        )
        for stream in self._counters.topics:
            published.add_metric([*worker, stream.topic], stream.acknowledged)
            refused.add_metric([*worker, stream.topic], stream.failed)
            latency.add_metric([*worker, stream.topic], *stream.socket_to_ack.in_seconds())
        yield published
        yield refused
        yield latency
        pending = GaugeMetricFamily(
            "marketfeed_publish_pending_messages",
            "Messages in flight to Kafka: handed to the client and not acknowledged.",
            labels=["venue", "shard"],
        )
        pending.add_metric(worker, status.pending)
        yield pending
        yield _gauge(
            "marketfeed_publish_oldest_unacknowledged_seconds",
            "Age of the oldest unacknowledged message, in seconds; 0 if there is none.",
            worker,
            status.oldest_unacknowledged_seconds,
        )
        errors = CounterMetricFamily(
            "marketfeed_kafka_client_errors",
            "Errors of the Kafka client's connections by librdkafka's name; the client retries.",
            labels=["venue", "shard", "error"],
        )
        for name, count in sorted({**dict.fromkeys(INITIAL_ERRORS, 0), **self._publisher.errors}.items()):
            errors.add_metric([*worker, name], count)
        yield errors
        yield _counter(
            "marketfeed_reads_paused",
            "Pauses of reading sockets because the queue to Kafka was full.",
            worker,
            self._counters.paused_reads,
        )

    def _continuity(self, worker: list[str], status: WorkerStatus) -> Iterator[Metric]:
        yield _counter(
            "marketfeed_trade_gaps_detected",
            "Gaps detected in trade ids.",
            worker,
            self._counters.gaps_opened,
        )
        outcomes = CounterMetricFamily(
            "marketfeed_trade_gaps",
            "Gaps in trade ids by outcome: backfilled, absent at the venue, unresolved, reordered.",
            labels=["venue", "shard", "outcome"],
        )
        for outcome in ("backfilled", "absent", "unresolved", "reordered"):
            outcomes.add_metric([*worker, outcome], self._counters.gap_outcomes[outcome])
        yield outcomes
        yield _counter(
            "marketfeed_trades_backfilled", "Trades fetched over REST.", worker, self._counters.backfilled
        )
        labels = ["venue", "shard", "symbol"]
        taken = CounterMetricFamily(
            "marketfeed_symbol_messages",
            "Messages read from the venue by symbol.",
            labels=[*labels, "stream"],
        )
        missing = GaugeMetricFamily(
            "marketfeed_trade_ids_missing", "Trade ids in gaps that are not backfilled.", labels=labels
        )
        repeated = CounterMetricFamily(
            "marketfeed_trades_duplicate",
            "Duplicate trades skipped.",
            labels=labels,
        )
        unproven = CounterMetricFamily(
            "marketfeed_trades_unproven",
            "Published trades with a known id: with other content, or without a copy left to compare.",
            labels=[*labels, "kind"],
        )
        held = GaugeMetricFamily(
            "marketfeed_trades_held",
            "Trades held until an id reset is confirmed or excluded.",
            labels=labels,
        )
        series = GaugeMetricFamily(
            "marketfeed_id_series",
            "Id series of a stream: number of id resets by the venue.",
            labels=[*labels, "stream"],
        )
        begun = CounterMetricFamily(
            "marketfeed_id_series_begun",
            "Id series begun by this worker after an id reset of the stream.",
            labels=[*labels, "stream"],
        )
        newest = GaugeMetricFamily(
            "marketfeed_last_trade_time_seconds",
            "Time of the newest trade by the venue's clock, in seconds since the epoch.",
            labels=labels,
        )
        delivering = GaugeMetricFamily(
            "marketfeed_stream_ready",
            "1 while a stream delivers or the venue has nothing newer, else 0.",
            labels=[*labels, "stream"],
        )
        silent = GaugeMetricFamily(
            "marketfeed_stream_silent_seconds",
            "Time since the newest message or the subscription of a stream, in seconds.",
            labels=[*labels, "stream"],
        )
        names = {"trades": self._counters.trades.stream, "quotes": self._counters.quotes.stream}
        for symbol, each in status.symbols.items():
            for kind, stream in each.streams.items():
                stream_labels = [*worker, symbol, names[kind]]
                delivering.add_metric(stream_labels, int(stream.state in ("live", "idle")))
                silent.add_metric(stream_labels, stream.silent_seconds)
            taken.add_metric([*worker, symbol, self._counters.trades.stream], each.trades)
            taken.add_metric([*worker, symbol, self._counters.quotes.stream], each.quotes)
            missing.add_metric([*worker, symbol], each.missing)
            repeated.add_metric([*worker, symbol], each.duplicates)
            unproven.add_metric([*worker, symbol, "conflict"], each.conflicts)
            unproven.add_metric([*worker, symbol, "unknown"], each.unproven)
            held.add_metric([*worker, symbol], each.held)
            for name, number in ((names["trades"], each.id_series), (names["quotes"], each.quote_series)):
                series.add_metric([*worker, symbol, name], number)
                begun.add_metric([*worker, symbol, name], self._counters.series_begun[name, symbol])
            if each.last_trade_time_us is not None:
                newest.add_metric([*worker, symbol], each.last_trade_time_us / 1e6)
        yield taken
        yield delivering
        yield silent
        yield missing
        yield repeated
        yield unproven
        yield held
        yield series
        yield begun
        yield newest

    def _connections(self, worker: list[str], status: WorkerStatus) -> Iterator[Metric]:
        ready = GaugeMetricFamily(
            "marketfeed_worker_ready", "1 if the worker is ready.", labels=["venue", "shard"]
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
            "Attempts to reopen a WebSocket connection.",
            labels=["venue", "shard", "connection"],
        )
        shut_out = GaugeMetricFamily(
            "marketfeed_connection_refused",
            "1 for a connection that the venue rejects (451, 403); it is retried every few minutes.",
            labels=["venue", "shard", "connection"],
        )
        for connection in status.connections:
            streaming.add_metric([*worker, str(connection.id)], int(connection.state == "streaming"))
            shut_out.add_metric([*worker, str(connection.id)], int(connection.state == "refused"))
            reconnects.add_metric([*worker, str(connection.id)], connection.reconnects)
        yield streaming
        yield shut_out
        yield reconnects
        refused = GaugeMetricFamily(
            "marketfeed_symbol_refused",
            "1 for an assigned symbol that is not subscribed or does not trade.",
            labels=["venue", "shard", "symbol", "reason"],
        )
        for symbol, reason in status.refused_symbols.items():
            refused.add_metric([*worker, symbol, reason], 1)
        yield refused

    def _venue(self, worker: list[str]) -> Iterator[Metric]:
        counters = self._counters
        rotations = CounterMetricFamily(
            "marketfeed_connection_rotations",
            "Connection rotations by reason.",
            labels=["venue", "shard", "reason"],
        )
        for reason, count in sorted(counters.rotations.items()):
            rotations.add_metric([*worker, reason], count)
        yield rotations
        frames = CounterMetricFamily(
            "marketfeed_control_frames_sent",
            "Frames sent to the venue, by kind: command, ping, pong. The venue limits them per connection.",
            labels=["venue", "shard", "kind"],
        )
        for kind in ("command", "ping", "pong"):
            frames.add_metric([*worker, kind], counters.control_frames[kind])
        yield frames
        yield _gauge(
            "marketfeed_clock_offset_seconds",
            "Offset of the venue's clock from the host's, in seconds.",
            worker,
            counters.clock_offset_us / 1e6,
        )
        yield _gauge(
            "marketfeed_request_weight_used",
            "Request weight used by this address in the current minute, as reported by the venue.",
            worker,
            self._weight.used_now,
        )
        yield _gauge(
            "marketfeed_request_weight_limit",
            "The venue's limit on request weight per minute and address; 0 until it is known.",
            worker,
            self._weight.limit or 0,
        )
        yield _gauge(
            "marketfeed_venue_blocked_seconds",
            "Remaining time of a rate limit or ban (429, 418), in seconds.",
            worker,
            self._weight.blocked_seconds,
        )
        yield _gauge(
            "marketfeed_connection_attempts_used",
            "Connection attempts in the venue's window.",
            worker,
            self._attempts.used,
        )
        yield _gauge(
            "marketfeed_connection_attempts_limit",
            "Limit on this worker's connection attempts in the venue's window.",
            worker,
            self._attempts.limit,
        )


def _counter(name: str, text: str, worker: list[str], value: float) -> Metric:
    family = CounterMetricFamily(name, text, labels=["venue", "shard"])
    family.add_metric(worker, value)
    return family


def _gauge(name: str, text: str, worker: list[str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["venue", "shard"])
    family.add_metric(worker, value)
    return family
