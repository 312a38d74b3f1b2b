"""Table of the consumer's metrics: type, name with unit, help, labels. The values come from `metrics`."""

from typing import Final

from marketfeed_service.metrics import Declaration, counter, gauge, histogram

BATCH_ROWS: Final = histogram("marketfeed_consumer_batch_rows", "Messages in one committed transaction")
COMMIT_SECONDS: Final = histogram(
    "marketfeed_consumer_commit_seconds",
    "Time to write a batch to the database, from BEGIN to the response to COMMIT, retries included",
)

COLLECTED: Final[tuple[Declaration, ...]] = (
    counter("marketfeed_consumer_rows_inserted", "Rows inserted, by table", ("table",)),
    counter(
        "marketfeed_consumer_duplicates",
        "Duplicates skipped: messages already stored, by table",
        ("table",),
    ),
    counter(
        "marketfeed_consumer_expired",
        "Late messages older than the retention limit, which were not stored, by table",
        ("table",),
    ),
    counter(
        "marketfeed_consumer_unverifiable",
        "Duplicates of expired rows, whose content could not be compared, by table",
        ("table",),
    ),
    counter(
        "marketfeed_consumer_conflicts",
        "Messages whose id is stored with another time, price, quantity or side, by table and symbol",
        ("table", "symbol"),
    ),
    counter(
        "marketfeed_consumer_dead_letters", "Messages stored in the table dead_letters, by topic", ("topic",)
    ),
    counter(
        "marketfeed_consumer_database_errors",
        "Transactions that failed with a database error, by SQLSTATE (empty: the connection was lost)",
        ("sqlstate",),
    ),
    gauge(
        "marketfeed_consumer_paused",
        "1 while writes to the database are paused and nothing is read; see /readyz for the reason",
    ),
    gauge(
        "marketfeed_consumer_lag_messages",
        "Consumer lag: log end offset minus the committed offset; NaN while the log end offset is unknown",
        ("topic", "partition"),
    ),
    gauge("marketfeed_consumer_next_offset", "Committed offset in the database", ("topic", "partition")),
    gauge(
        "marketfeed_consumer_kafka_reachable",
        "1 while the Kafka brokers respond, 0 while they do not; see /readyz for the reason",
    ),
    gauge(
        "marketfeed_consumer_topic_exists",
        "1 for a subscribed topic that exists, 0 for one that does not",
        ("topic",),
    ),
    gauge(
        "marketfeed_consumer_lag_seconds",
        "Age of the newest message stored, by table (also grows without new messages of the venue, see lag_messages)",
        ("table",),
    ),
    histogram(
        "marketfeed_consumer_wire_to_commit_seconds",
        "Latency from the worker's socket read to the database's response to COMMIT, by table",
        ("table",),
    ),
    gauge(
        "marketfeed_consumer_missing_trade_ids",
        "Trade ids between the first and the last stored that are not stored; see `marketfeed audit`",
        ("venue", "symbol"),
    ),
    gauge(
        "marketfeed_consumer_last_trade_id",
        "Highest trade id stored of the newest id series, by symbol",
        ("venue", "symbol"),
    ),
    gauge(
        "marketfeed_consumer_id_series",
        "Newest id series stored, by table and symbol: number of times that the venue has restarted the ids",
        ("table", "venue", "symbol"),
    ),
    counter("marketfeed_consumer_audit_failures", "Audits that failed with a database error"),
)
"""Metrics that every process collects at a scrape."""

AUDITED: Final[tuple[Declaration, ...]] = (
    gauge(
        "marketfeed_consumer_audit_timestamp_seconds",
        "Time of the newest audit, seconds since the Unix epoch (AUDIT_INTERVAL_SECONDS)",
    ),
    gauge("marketfeed_consumer_audit_duration_seconds", "Duration of the newest audit"),
    gauge(
        "marketfeed_consumer_audit_missing_trades",
        "Trade ids that are not stored, by resolution: absent (the venue has none), "
        "expired (older than the retention limit), rejected (dead letters) or unresolved",
        ("venue", "symbol", "resolution"),
    ),
    gauge(
        "marketfeed_consumer_audit_open_gaps",
        "Ranges of missing trade ids, neither confirmed absent nor older than the retention limit",
        ("venue", "symbol"),
    ),
    gauge(
        "marketfeed_consumer_audit_completeness_ratio",
        "Ratio of stored to existing trades, 0 to 1; 1 if no trade id is unresolved or rejected",
        ("venue", "symbol"),
    ),
    gauge("marketfeed_consumer_audit_stored_trades", "Trades in the table", ("venue", "symbol")),
    gauge(
        "marketfeed_consumer_audit_newest_trade_timestamp_seconds",
        "Trade time of the newest trade stored, seconds since the Unix epoch",
        ("venue", "symbol"),
    ),
    counter("marketfeed_consumer_retention_deleted_rows", "Rows that retention has deleted", ("table",)),
    gauge(
        "marketfeed_consumer_retention_finished_timestamp_seconds",
        "Time at which retention last completed a symbol, seconds since the Unix epoch",
        ("table",),
    ),
    gauge(
        "marketfeed_consumer_retention_unfinished_symbols",
        "Symbols that the newest run of retention has not completed",
        ("table",),
    ),
    gauge(
        "marketfeed_consumer_retention_impossible_rows",
        "Rows that the newest run of retention kept because their times are impossible",
        ("table", "venue", "symbol"),
    ),
)
"""Metrics of the whole database, by the process that audits it, once it has."""

METRICS: Final = (BATCH_ROWS, COMMIT_SECONDS, *COLLECTED, *AUDITED)
