"""Values of the worker's metrics, which `metric_table` declares.

They are plain integers (see `counters`); the collector reads them at each scrape.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from marketfeed_service.metrics import Value, families
from marketfeed_wire.status import WorkerStatus
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.metric_table import METRICS
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
        worker = (status.venue, status.shard)
        values = chain(
            self._fetching(),
            self._publishing(status),
            self._gaps(),
            self._symbols(status),
            self._connections(status),
            self._venue(),
        )
        return families(METRICS, ((name, (*worker, *labels), value) for name, labels, value in values))

    def _fetching(self) -> Iterator[Value]:
        counters = self._counters
        for stream in (counters.trades, counters.quotes):
            yield "vendor_fetch_success", (stream.stream,), stream.received
        for reason, count in sorted({**dict.fromkeys(INITIAL_REASONS, 0), **counters.failures}.items()):
            yield "vendor_fetch_failure", ("all", reason), count
        for reason, count in sorted({"impossible_time": 0, **counters.rejections}.items()):
            yield "marketfeed_messages_rejected", (reason,), count
        yield "marketfeed_quotes_outdated", (), counters.quotes.outdated
        yield "marketfeed_quotes_conflated", (), counters.quotes.conflated
        yield "marketfeed_messages_unexpected", (), counters.unexpected
        trades = counters.trades
        yield "marketfeed_venue_to_socket_seconds", (trades.stream,), trades.venue_to_socket

    def _publishing(self, status: WorkerStatus) -> Iterator[Value]:
        for stream in self._counters.topics:
            yield "kafka_publish_success", (stream.topic,), stream.acknowledged
            yield "kafka_publish_failure", (stream.topic,), stream.failed
            yield "marketfeed_socket_to_ack_seconds", (stream.topic,), stream.socket_to_ack
        yield "marketfeed_publish_pending_messages", (), status.pending
        yield "marketfeed_publish_oldest_unacknowledged_seconds", (), status.oldest_unacknowledged_seconds
        for name, count in sorted({**dict.fromkeys(INITIAL_ERRORS, 0), **self._publisher.errors}.items()):
            yield "marketfeed_kafka_client_errors", (name,), count
        yield "marketfeed_reads_paused", (), self._counters.paused_reads

    def _gaps(self) -> Iterator[Value]:
        yield "marketfeed_trade_gaps_detected", (), self._counters.gaps_opened
        for outcome in ("backfilled", "absent", "unresolved", "reordered"):
            yield "marketfeed_trade_gaps", (outcome,), self._counters.gap_outcomes[outcome]
        yield "marketfeed_trades_backfilled", (), self._counters.backfilled

    def _symbols(self, status: WorkerStatus) -> Iterator[Value]:
        names = {"trades": self._counters.trades.stream, "quotes": self._counters.quotes.stream}
        for symbol, each in status.symbols.items():
            for kind, stream in each.streams.items():
                is_ready = stream.state in ("live", "idle")
                yield "marketfeed_stream_ready", (symbol, names[kind]), int(is_ready)
                yield "marketfeed_stream_silent_seconds", (symbol, names[kind]), stream.silent_seconds
            yield "marketfeed_symbol_messages", (symbol, names["trades"]), each.trades
            yield "marketfeed_symbol_messages", (symbol, names["quotes"]), each.quotes
            yield "marketfeed_trade_ids_missing", (symbol,), each.missing
            yield "marketfeed_trades_duplicate", (symbol,), each.duplicates
            yield "marketfeed_trades_unproven", (symbol, "conflict"), each.conflicts
            yield "marketfeed_trades_unproven", (symbol, "unknown"), each.unproven
            yield "marketfeed_trades_held", (symbol,), each.held
            for name, number in ((names["trades"], each.id_series), (names["quotes"], each.quote_series)):
                yield "marketfeed_id_series", (symbol, name), number
                begun = self._counters.series_begun[name, symbol]
                yield "marketfeed_id_series_begun", (symbol, name), begun
            if each.last_trade_time_us is not None:
                yield "marketfeed_last_trade_time_seconds", (symbol,), each.last_trade_time_us / 1e6

    def _connections(self, status: WorkerStatus) -> Iterator[Value]:
        yield "marketfeed_worker_ready", (), int(status.ready)
        for each in status.connections:
            connection = (str(each.id),)
            yield "marketfeed_connection_streaming", connection, int(each.state == "streaming")
            yield "marketfeed_connection_refused", connection, int(each.state == "refused")
            yield "marketfeed_connection_reconnects", connection, each.reconnects
        for symbol, reason in status.refused_symbols.items():
            yield "marketfeed_symbol_refused", (symbol, reason), 1

    def _venue(self) -> Iterator[Value]:
        counters = self._counters
        for reason, count in sorted(counters.rotations.items()):
            yield "marketfeed_connection_rotations", (reason,), count
        for kind in ("command", "ping", "pong"):
            yield "marketfeed_control_frames_sent", (kind,), counters.control_frames[kind]
        yield "marketfeed_clock_offset_seconds", (), counters.clock_offset_us / 1e6
        yield "marketfeed_request_weight_used", (), self._weight.used_now
        yield "marketfeed_request_weight_limit", (), self._weight.limit or 0
        yield "marketfeed_venue_blocked_seconds", (), self._weight.blocked_seconds
        yield "marketfeed_connection_attempts_used", (), self._attempts.used
        yield "marketfeed_connection_attempts_limit", (), self._attempts.limit
