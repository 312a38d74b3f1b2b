"""Values of the consumer's metrics, which `metric_table` declares: read from its state at each scrape."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from marketfeed_consumers.admin.auditor import AuditFigures, Auditor
from marketfeed_consumers.admin.completeness import Retained
from marketfeed_consumers.database.tables import trades
from marketfeed_consumers.metric_table import AUDITED, BATCH_ROWS, COLLECTED, COMMIT_SECONDS
from marketfeed_consumers.planning.plan import Plan
from marketfeed_consumers.state import LATENCY_BOUNDS_US, State
from marketfeed_consumers.storage.transaction import Stored
from marketfeed_consumers.storage.writer import Writer
from marketfeed_service.histogram import total
from marketfeed_service.metrics import Value, families

SERIALIZATION_FAILURE: Final = "40001"


class Metrics(Collector):
    """The collector of a consumer process's metrics."""

    def __init__(
        self,
        registry: CollectorRegistry,
        state: State,
        writer: Writer,
        auditor: Auditor,
        clock_us: Callable[[], int],
    ) -> None:
        self._state = state
        self._writer = writer
        self._auditor = auditor
        self._clock_us = clock_us
        self._batch_rows = Histogram(
            BATCH_ROWS.name,
            BATCH_ROWS.help,
            buckets=[1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000],
            registry=registry,
        )
        self._commit_seconds = Histogram(
            COMMIT_SECONDS.name,
            COMMIT_SECONDS.help,
            buckets=[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120],
            registry=registry,
        )
        registry.register(self)

    def stored(self, plan: Plan, result: Stored) -> None:
        """Observe a committed batch."""
        self._batch_rows.observe(plan.size)
        self._commit_seconds.observe(result.seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of a scrape."""
        yield from families(
            COLLECTED, chain(self._counters(), self._partitions(), self._latency(), self._completeness())
        )
        taken = self._auditor.taken
        if taken is not None:
            yield from families(AUDITED, chain(_audited(taken), _retention(taken.retained)))

    def _counters(self) -> Iterator[Value]:
        state = self._state
        for name, counts in (
            ("marketfeed_consumer_rows_inserted", state.inserted),
            ("marketfeed_consumer_duplicates", state.duplicates),
            ("marketfeed_consumer_expired", state.expired),
            ("marketfeed_consumer_unverifiable", state.unverifiable),
        ):
            for table, count in dict(counts).items():
                yield name, (table,), count
        # Exported as 0 for every assigned symbol: a series that starts at 1 has no increase.
        held = {(key[0], key[2]): 0 for key in state.stored_ranges.copy()}
        for (table, symbol), count in {**held, **state.conflicts}.items():
            yield "marketfeed_consumer_conflicts", (table, symbol), count
        # Exported as 0 from the start: alerts use the increase, and a series that starts at 1 has none.
        read = {topic: 0 for topic, _ in state.partitions.copy()}
        for topic, count in {**read, **state.dead_letters}.items():
            yield "marketfeed_consumer_dead_letters", (topic,), count
        for sqlstate, count in {SERIALIZATION_FAILURE: 0, **self._writer.retries}.items():
            yield "marketfeed_consumer_database_errors", (sqlstate,), count
        yield "marketfeed_consumer_paused", (), float(bool(self._writer.why_paused()))
        yield "marketfeed_consumer_audit_failures", (), self._auditor.failures

    def _partitions(self) -> Iterator[Value]:
        for (topic, number), owned in sorted(self._state.partitions.copy().items()):
            partition, end = (topic, str(number)), owned.end_offset
            lag = math.nan if end is None else max(0, end - owned.next_offset)
            yield "marketfeed_consumer_lag_messages", partition, lag
            yield "marketfeed_consumer_next_offset", partition, owned.next_offset
        yield "marketfeed_consumer_kafka_reachable", (), float(not self._state.kafka_error)
        missing = self._state.missing_topics.copy()
        for topic in sorted({topic for topic, _ in self._state.partitions.copy()} | missing):
            yield "marketfeed_consumer_topic_exists", (topic,), float(topic not in missing)
        for table, newest_us in self._state.newest_received_us.copy().items():
            age_seconds = max(0.0, (self._clock_us() - newest_us) / 1e6)
            yield "marketfeed_consumer_lag_seconds", (table,), age_seconds

    def _latency(self) -> Iterator[Value]:
        latencies = self._state.latencies.copy()
        for table in sorted({key[0] for key in latencies}):
            of_table = (one for key, one in latencies.items() if key[0] == table)
            whole = total(of_table, LATENCY_BOUNDS_US)
            yield "marketfeed_consumer_wire_to_commit_seconds", (table,), whole

    def _completeness(self) -> Iterator[Value]:
        missing: Counter[tuple[str, str]] = Counter()
        last_ids: dict[tuple[str, str], int] = {}
        id_series: dict[tuple[str, str, str], int] = {}
        # Sorted: of several id series of a symbol the newest comes last.
        for (table, venue, symbol, series), ranges in sorted(self._state.stored_ranges.copy().items()):
            id_series[table, venue, symbol] = series
            if table == trades.NAME and not ranges.is_empty:
                missing[venue, symbol] += sum(span.last_id - span.first_id + 1 for span in ranges.missing)
                last_ids[venue, symbol] = ranges.last_id
        for where, last_id in last_ids.items():
            yield "marketfeed_consumer_missing_trade_ids", where, missing[where]
            yield "marketfeed_consumer_last_trade_id", where, last_id
        for of_table, series in id_series.items():
            yield "marketfeed_consumer_id_series", of_table, series


def _audited(taken: AuditFigures) -> Iterator[Value]:
    """Yield the figures of the whole database, exported by one process only, see auditor.py."""
    yield "marketfeed_consumer_audit_timestamp_seconds", (), taken.time_seconds
    yield "marketfeed_consumer_audit_duration_seconds", (), taken.seconds
    for one in taken.figures:
        symbol = (one.venue, one.symbol)
        for resolution, count in one.missing.items():
            yield "marketfeed_consumer_audit_missing_trades", (*symbol, resolution), count
        yield "marketfeed_consumer_audit_open_gaps", symbol, one.open_gaps
        yield "marketfeed_consumer_audit_completeness_ratio", symbol, one.completeness_ratio
        yield "marketfeed_consumer_audit_stored_trades", symbol, one.stored
        newest_seconds = one.newest_trade_time_us / 1e6
        yield "marketfeed_consumer_audit_newest_trade_timestamp_seconds", symbol, newest_seconds


def _retention(retained: Sequence[Retained]) -> Iterator[Value]:
    """Yield the values of `marketfeed-consumer retain`, from its state in the database."""
    prefix = "marketfeed_consumer_retention"
    for one in retained:
        yield f"{prefix}_deleted_rows", (one.table,), one.deleted
        yield f"{prefix}_finished_timestamp_seconds", (one.table,), one.finished_time_us / 1e6
        yield f"{prefix}_unfinished_symbols", (one.table,), one.unfinished
        for (venue, symbol), rows in one.impossible.items():
            yield f"{prefix}_impossible_rows", (one.table, venue, symbol), rows
