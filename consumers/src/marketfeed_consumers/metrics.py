"""Every metric of the consumer: name, help, unit. Values are read from the consumer's state at each scrape."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from marketfeed_consumers.admin.auditor import Auditor
from marketfeed_consumers.admin.completeness import Figures, Retained
from marketfeed_consumers.database.tables import trades
from marketfeed_consumers.planning.plan import Plan
from marketfeed_consumers.state import LATENCY_BOUNDS_US, State
from marketfeed_consumers.storage.transaction import Stored
from marketfeed_consumers.storage.writer import Writer
from marketfeed_service.histogram import total

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
            "marketfeed_consumer_batch_rows",
            "Messages in one committed transaction",
            buckets=[1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000],
            registry=registry,
        )
        self._commit_seconds = Histogram(
            "marketfeed_consumer_commit_seconds",
            "Time to write a batch to the database, from BEGIN to the response to COMMIT, retries included",
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
        yield from self._counters()
        yield from self._partitions()
        yield from self._latency()
        yield from self._completeness()
        yield from self._audit()

    def _counters(self) -> Iterator[Metric]:
        state = self._state
        for name, text, counts in (
            ("rows_inserted", "Rows inserted, by table", state.inserted),
            ("duplicates", "Duplicates skipped: messages already stored, by table", state.duplicates),
            (
                "expired",
                "Late messages older than the retention limit, which were not stored, by table",
                state.expired,
            ),
            (
                "unverifiable",
                "Duplicates of expired rows, whose content could not be compared, by table",
                state.unverifiable,
            ),
        ):
            family = CounterMetricFamily(f"marketfeed_consumer_{name}", text, labels=["table"])
            for table, count in dict(counts).items():
                family.add_metric([table], count)
            yield family
        conflicts = CounterMetricFamily(
            "marketfeed_consumer_conflicts",
            "Messages whose id is stored with another time, price, quantity or side, by table and symbol",
            labels=["table", "symbol"],
        )
        # Exported as 0 for every assigned symbol: a series that starts at 1 has no increase.
        held = {(key[0], key[2]): 0 for key in state.stored_ranges.copy()}
        for (table, symbol), count in {**held, **state.conflicts}.items():
            conflicts.add_metric([table, symbol], count)
        yield conflicts
        letters = CounterMetricFamily(
            "marketfeed_consumer_dead_letters",
            "Messages stored in the table dead_letters, by topic",
            labels=["topic"],
        )
        # Exported as 0 from the start: alerts use the increase, and a series that starts at 1 has none.
        read = {topic: 0 for topic, _ in state.partitions.copy()}
        for topic, count in {**read, **state.dead_letters}.items():
            letters.add_metric([topic], count)
        yield letters
        retries = CounterMetricFamily(
            "marketfeed_consumer_database_errors",
            "Transactions that failed with a database error, by SQLSTATE (empty: the connection was lost)",
            labels=["sqlstate"],
        )
        for sqlstate, count in {SERIALIZATION_FAILURE: 0, **self._writer.retries}.items():
            retries.add_metric([sqlstate], count)
        yield retries
        yield GaugeMetricFamily(
            "marketfeed_consumer_paused",
            "1 while writes to the database are paused and nothing is read; see /readyz for the reason",
            value=float(bool(self._writer.why_paused())),
        )

    def _partitions(self) -> Iterator[Metric]:
        labels = ["topic", "partition"]
        lag = GaugeMetricFamily(
            "marketfeed_consumer_lag_messages",
            "Consumer lag: log end offset minus the committed offset; NaN while the log end offset is unknown",
            labels=labels,
        )
        stored = GaugeMetricFamily(
            "marketfeed_consumer_next_offset", "Committed offset in the database", labels=labels
        )
        for (topic, number), owned in sorted(self._state.partitions.copy().items()):
            stored.add_metric([topic, str(number)], owned.next_offset)
            end = owned.end_offset
            lag.add_metric([topic, str(number)], math.nan if end is None else max(0, end - owned.next_offset))
        yield lag
        yield stored
        yield GaugeMetricFamily(
            "marketfeed_consumer_kafka_reachable",
            "1 while the Kafka brokers respond, 0 while they do not; see /readyz for the reason",
            value=float(not self._state.kafka_error),
        )
        exists = GaugeMetricFamily(
            "marketfeed_consumer_topic_exists",
            "1 for a subscribed topic that exists, 0 for one that does not",
            labels=["topic"],
        )
        missing = self._state.missing_topics.copy()
        for topic in sorted({topic for topic, _ in self._state.partitions.copy()} | missing):
            exists.add_metric([topic], float(topic not in missing))
        yield exists
        behind = GaugeMetricFamily(
            "marketfeed_consumer_lag_seconds",
            "Age of the newest message stored, by table (also grows without new messages of the venue, "
            "see lag_messages)",
            labels=["table"],
        )
        for table, newest_us in self._state.newest_received_us.copy().items():
            behind.add_metric([table], max(0.0, (self._clock_us() - newest_us) / 1e6))
        yield behind

    def _latency(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "marketfeed_consumer_wire_to_commit_seconds",
            "Latency from the worker's socket read to the database's response to COMMIT, by table",
            labels=["table"],
        )
        latencies = self._state.latencies.copy()
        for table in sorted({key[0] for key in latencies}):
            of_table = (one for key, one in latencies.items() if key[0] == table)
            family.add_metric([table], *total(of_table, LATENCY_BOUNDS_US).in_seconds())
        yield family

    def _completeness(self) -> Iterator[Metric]:
        labels = ["venue", "symbol"]
        missing = GaugeMetricFamily(
            "marketfeed_consumer_missing_trade_ids",
            "Trade ids between the first and the last stored that are not stored; see `marketfeed audit`",
            labels=labels,
        )
        last = GaugeMetricFamily(
            "marketfeed_consumer_last_trade_id",
            "Highest trade id stored of the newest id series, by symbol",
            labels=labels,
        )
        ids: Counter[tuple[str, str]] = Counter()
        newest: dict[tuple[str, str], int] = {}
        for (table, venue, symbol, _), ranges in sorted(self._state.stored_ranges.copy().items()):
            if table == trades.NAME and not ranges.is_empty:
                ids[venue, symbol] += sum(span.last_id - span.first_id + 1 for span in ranges.missing)
                newest[venue, symbol] = ranges.last_id  # of several id series the newest comes last
        for names, last_id in newest.items():
            missing.add_metric(names, ids[names])
            last.add_metric(names, last_id)
        yield missing
        yield last
        series = GaugeMetricFamily(
            "marketfeed_consumer_id_series",
            "Newest id series stored, by table and symbol: number of times that the venue has restarted the ids",
            labels=["table", *labels],
        )
        highest: dict[tuple[str, str, str], int] = {}
        for table, venue, symbol, id_series in sorted(self._state.stored_ranges.copy()):
            highest[table, venue, symbol] = id_series
        for where, id_series in highest.items():
            series.add_metric(where, id_series)
        yield series

    def _audit(self) -> Iterator[Metric]:
        """Yield the figures of the whole database, exported by one process only, see auditor.py."""
        failures = CounterMetricFamily(
            "marketfeed_consumer_audit_failures",
            "Audits that failed with a database error",
        )
        failures.add_metric([], self._auditor.failures)
        yield failures
        taken = self._auditor.taken
        if taken is None:
            return
        yield GaugeMetricFamily(
            "marketfeed_consumer_audit_timestamp_seconds",
            "Time of the newest audit, seconds since the Unix epoch (AUDIT_INTERVAL_SECONDS)",
            value=taken.time_seconds,
        )
        yield GaugeMetricFamily(
            "marketfeed_consumer_audit_duration_seconds",
            "Duration of the newest audit",
            value=taken.seconds,
        )
        labels = ["venue", "symbol"]
        missing = GaugeMetricFamily(
            "marketfeed_consumer_audit_missing_trades",
            "Trade ids that are not stored, by resolution: absent (the venue has none), "
            "expired (older than the retention limit), rejected (dead letters) or unresolved",
            labels=[*labels, "resolution"],
        )
        for one in taken.figures:
            for resolution, count in one.missing.items():
                missing.add_metric([one.venue, one.symbol, resolution], count)
        yield missing
        for name, text, value in _BY_SYMBOL:
            gauge = GaugeMetricFamily(f"marketfeed_consumer_audit_{name}", text, labels=labels)
            for one in taken.figures:
                gauge.add_metric([one.venue, one.symbol], value(one))
            yield gauge
        yield from _retention(taken.retained)


def _retention(retained: Sequence[Retained]) -> Iterator[Metric]:
    """Yield the metrics of `marketfeed-consumer retain`, from its state in the database."""
    prefix = "marketfeed_consumer_retention"
    deleted = CounterMetricFamily(
        f"{prefix}_deleted_rows", "Rows that retention has deleted", labels=["table"]
    )
    finished = GaugeMetricFamily(
        f"{prefix}_finished_timestamp_seconds",
        "Time at which retention last completed a symbol, seconds since the Unix epoch",
        labels=["table"],
    )
    unfinished = GaugeMetricFamily(
        f"{prefix}_unfinished_symbols",
        "Symbols that the newest run of retention has not completed",
        labels=["table"],
    )
    impossible = GaugeMetricFamily(
        f"{prefix}_impossible_rows",
        "Rows that the newest run of retention kept because their times are impossible",
        labels=["table", "venue", "symbol"],
    )
    for one in retained:
        deleted.add_metric([one.table], one.deleted)
        finished.add_metric([one.table], one.finished_time_us / 1e6)
        unfinished.add_metric([one.table], one.unfinished)
        for (venue, symbol), rows in one.impossible.items():
            impossible.add_metric([one.table, venue, symbol], rows)
    yield from (deleted, finished, unfinished, impossible)


_BY_SYMBOL: Final[tuple[tuple[str, str, Callable[[Figures], float]], ...]] = (
    (
        "open_gaps",
        "Ranges of missing trade ids, neither confirmed absent nor older than the retention limit",
        lambda one: one.open_gaps,
    ),
    (
        "completeness_ratio",
        "Ratio of stored to existing trades, 0 to 1; 1 if no trade id is unresolved or rejected",
        lambda one: one.completeness_ratio,
    ),
    ("stored_trades", "Trades in the table", lambda one: one.stored),
    (
        "newest_trade_timestamp_seconds",
        "Trade time of the newest trade stored, seconds since the Unix epoch",
        lambda one: one.newest_trade_time_us / 1e6,
    ),
)
