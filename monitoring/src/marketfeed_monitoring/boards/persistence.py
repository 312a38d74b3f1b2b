"""Persistence: by topic and partition, from Kafka to the database's COMMIT."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.retention import RETENTION
from marketfeed_monitoring.boards.shared import (
    FEED,
    FEEDS,
    NAMESPACE,
    ZERO_IS_BAD,
    ZERO_IS_GOOD,
    ascending,
    increase,
    per_second,
    percentiles,
    state_timeline,
    time_series,
)
from marketfeed_monitoring.model import Board, Column, Panel, Query, Row, Variable

_TOPICS: Final = f'{FEEDS},topic=~"$topic"'
_PARTITION: Final = "namespace, feed, topic, partition"
_LAG: Final = f"max by ({_PARTITION}) (marketfeed_consumer_lag_messages{{{_TOPICS}}})"
_STORED: Final = (
    f"max by ({_PARTITION}) (rate(marketfeed_consumer_next_offset{{{_TOPICS}}}[$__rate_interval]))"
)
# Arrival rate: rate of stored messages plus slope of the lag. At least one a second, so that the quotient stays finite
# on an idle topic.
_ARRIVING: Final = (
    f"clamp_min({_STORED} + max by ({_PARTITION})"
    f" (deriv(marketfeed_consumer_lag_messages{{{_TOPICS}}}[$__rate_interval])), 1)"
)

_LAG_PANELS: Final = (
    time_series(
        "Lag in messages",
        "Messages of a partition between the committed offset and the log end offset.",
        "short",
        Query(expr=_LAG, legend="{{topic}} {{partition}}"),
        thresholds=ascending(config.LAG_MESSAGES, 10 * config.LAG_MESSAGES),
    ),
    time_series(
        "Lag in seconds",
        "Lag in messages divided by the arrival rate (at least one message a second), by partition.",
        "s",
        Query(expr=f"{_LAG} / {_ARRIVING}", legend="{{topic}} {{partition}}"),
    ),
    time_series(
        "Age of the newest stored message",
        "Now minus the worker's receive time of the newest stored message, by table. It also grows while the market "
        "is idle.",
        "s",
        Query(
            expr=f"min by (feed, table) (marketfeed_consumer_lag_seconds{{{FEEDS}}})",
            legend="{{feed}} {{table}}",
        ),
        thresholds=ascending(config.FRESH_SECONDS, config.STALE_SECONDS),
    ),
)

_KAFKA: Final = (
    state_timeline(
        "Kafka",
        "Whether Kafka responds to each consumer's metadata and log end offset requests.",
        Query(
            expr="max by (feed, component, pod, job, instance)"
            f" (marketfeed_consumer_kafka_reachable{{{FEEDS}}})",
            legend="{{job}} {{pod}}",
        ),
        {1: ("responds", "green"), 0: ("does not respond", "red")},
    ),
    state_timeline(
        "Topics",
        "Whether each subscribed topic exists.",
        Query(
            expr=f"max by (feed, topic) (marketfeed_consumer_topic_exists{{{_TOPICS}}})",
            legend="{{feed}} {{topic}}",
        ),
        {1: ("exists", "green"), 0: ("missing", "red")},
    ),
)

_TRANSACTIONS: Final = (
    time_series(
        "Stored by partition",
        "Rate of the committed offset in the database, by partition.",
        "mps",
        Query(expr=_STORED, legend="{{topic}} {{partition}}"),
        width=6,
    ),
    time_series(
        "Transactions",
        "Committed transactions. Each consumer has at most one in progress.",
        "ops",
        Query(
            expr=per_second("marketfeed_consumer_commit_seconds_count", FEEDS, "feed, component, job"),
            legend="{{job}} {{component}}",
        ),
        width=6,
    ),
    time_series(
        "Batch size",
        "Messages per transaction.",
        "short",
        *percentiles("marketfeed_consumer_batch_rows", FEEDS, "component, job", "{{job}} {{component}}"),
        width=6,
    ),
    time_series(
        "Commit latency",
        "From the start of a batch's transaction to the response to COMMIT, retries included.",
        "s",
        *percentiles("marketfeed_consumer_commit_seconds", FEEDS, "component, job", "{{job}} {{component}}"),
        width=6,
    ),
)

_FAULTS: Final = (
    time_series(
        "Retries and lost connections",
        "Transactions that ended with an error, by SQLSTATE. 40001 is a serialization failure: the whole transaction "
        "is retried. Without a code, the connection was lost.",
        "ops",
        Query(
            expr=per_second("marketfeed_consumer_database_errors_total", FEEDS, "sqlstate"),
            legend="SQLSTATE {{sqlstate}}",
        ),
        width=6,
    ),
    state_timeline(
        "Database writes",
        "Whether the writes of a consumer are OK, or paused because the database is unavailable.",
        Query(
            expr=f"max by (feed, component, pod, job, instance) (marketfeed_consumer_paused{{{FEEDS}}})",
            legend="{{job}} {{pod}}",
        ),
        {0: ("OK", "green"), 1: ("paused", "red")},
        ZERO_IS_GOOD,
        width=6,
    ),
    time_series(
        "Dead letters",
        "Messages that could not be decoded or stored, written to the table dead_letters within the interval, by "
        "topic.",
        "short",
        Query(expr=increase("marketfeed_consumer_dead_letters_total", _TOPICS, "topic"), legend="{{topic}}"),
        width=6,
    ),
    time_series(
        "Duplicates skipped",
        "Messages that were already stored, by table: redelivery, replicas, backfill.",
        "mps",
        Query(expr=per_second("marketfeed_consumer_duplicates_total", FEEDS, "table"), legend="{{table}}"),
        width=6,
    ),
)

_DATABASE: Final = (
    time_series(
        "Rows inserted",
        "Rows inserted, by table.",
        "rowsps",
        Query(expr=per_second("marketfeed_consumer_rows_inserted_total", FEEDS, "table"), legend="{{table}}"),
        width=6,
    ),
    time_series(
        "Socket to COMMIT",
        "From the worker's socket read to the database's response to COMMIT, by table.",
        "s",
        *percentiles("marketfeed_consumer_wire_to_commit_seconds", FEEDS, "table", "{{table}}"),
        width=6,
    ),
    time_series(
        "Audit",
        "Time since the last audit of the database, its duration, and failed audits. Figures by symbol have this age.",
        "s",
        Query(
            expr=f"time() - max by (namespace, feed) "
            f"(marketfeed_consumer_audit_timestamp_seconds{{{FEEDS}}})",
            legend="{{feed}} age",
        ),
        Query(
            expr=f"max by (namespace, feed) (marketfeed_consumer_audit_duration_seconds{{{FEEDS}}})",
            legend="{{feed}} duration",
        ),
        Query(
            expr=increase("marketfeed_consumer_audit_failures_total", FEEDS, "namespace, feed"),
            legend="{{feed}} failures",
        ),
        width=6,
    ),
    Panel(
        title="Audit by symbol",
        description="Completeness, open gaps, unresolved ids and stored trades of each symbol as of the last audit, "
        "and missing ids as of the consumers' last batch.",
        kind="table",
        unit="none",
        queries=(
            Query(
                expr="min by (namespace, feed, venue, symbol)"
                f" (marketfeed_consumer_audit_completeness_ratio{{{FEEDS}}})"
            ),
            Query(
                expr=f"max by (namespace, feed, venue, symbol) "
                f"(marketfeed_consumer_audit_open_gaps{{{FEEDS}}})"
            ),
            Query(
                expr="max by (namespace, feed, venue, symbol)"
                f" (sum without (resolution) (marketfeed_consumer_audit_missing_trades"
                f'{{{FEEDS},resolution=~"unresolved|rejected"}}))'
            ),
            Query(
                expr="max by (namespace, feed, venue, symbol)"
                f" (marketfeed_consumer_audit_stored_trades{{{FEEDS}}})"
            ),
            Query(
                expr="min by (namespace, feed, venue, symbol)"
                f" (marketfeed_consumer_missing_trade_ids{{{FEEDS}}})"
            ),
        ),
        columns=(
            Column("venue", "Venue"),
            Column("symbol", "Symbol"),
            Column("Value #A", "Complete", "percentunit", ZERO_IS_BAD),
            Column("Value #B", "Open gaps", "none", ZERO_IS_GOOD),
            Column("Value #C", "Unresolved", "none", ZERO_IS_GOOD),
            Column("Value #D", "Stored", "short"),
            Column("Value #E", "Missing now", "none"),
        ),
        width=6,
        height=7,
    ),
)

PERSISTENCE: Final = Board(
    uid="marketfeed-persistence",
    title="Marketfeed / Persistence",
    description="From Kafka to the database's COMMIT, by topic and partition.",
    variables=(
        NAMESPACE,
        FEED,
        Variable(
            name="topic",
            label="Topic",
            query=f"label_values(marketfeed_consumer_next_offset{{{FEEDS}}}, topic)",
        ),
    ),
    rows=(
        Row("Consumer lag", _LAG_PANELS),
        Row("Kafka and its topics", _KAFKA),
        Row("Transactions", _TRANSACTIONS),
        Row("Retries, dead letters, duplicates", _FAULTS),
        Row("Database", _DATABASE),
        Row("Retention", RETENTION),
    ),
)
