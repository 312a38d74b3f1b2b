"""Persistence: by topic and partition, from Kafka to the database's COMMIT."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.shared import (
    FEED,
    FEEDS,
    NAMESPACE,
    ZERO_IS_BAD,
    ZERO_IS_GOOD,
    growing,
    growth,
    lines,
    per_second,
    percentiles,
    states,
)
from marketfeed_monitoring.model import Board, Column, Panel, Query, Row, Variable

_TOPICS: Final = f'{FEEDS},topic=~"$topic"'
_PARTITION: Final = "namespace, feed, topic, partition"
_LAG: Final = f"max by ({_PARTITION}) (marketfeed_consumer_lag_messages{{{_TOPICS}}})"
_STORED: Final = (
    f"max by ({_PARTITION}) (rate(marketfeed_consumer_next_offset{{{_TOPICS}}}[$__rate_interval]))"
)
# What arrives is what is stored and what the lag grows by. Below one a second it counts as one: a division by next to
# nothing tells nothing.
_ARRIVING: Final = (
    f"clamp_min({_STORED} + max by ({_PARTITION})"
    f" (deriv(marketfeed_consumer_lag_messages{{{_TOPICS}}}[$__rate_interval])), 1)"
)

_FROM_KAFKA: Final = (
    lines(
        "Lag in messages",
        "Messages of a partition that are not in the database yet.",
        "short",
        Query(expr=_LAG, legend="{{topic}} {{partition}}"),
        thresholds=growing(config.LAG_MESSAGES, 10 * config.LAG_MESSAGES),
    ),
    lines(
        "Lag in seconds",
        "How long ago the newest message that is stored arrived in Kafka, by partition: the lag in messages "
        "by the rate at which messages arrive, which counts as one a second at least.",
        "s",
        Query(expr=f"{_LAG} / {_ARRIVING}", legend="{{topic}} {{partition}}"),
    ),
    lines(
        "Age of the newest message stored",
        "By table, measured on the messages: now minus the time of the worker's socket read. Grows while "
        "the market is silent, too.",
        "s",
        Query(
            expr=f"min by (feed, table) (marketfeed_consumer_lag_seconds{{{FEEDS}}})",
            legend="{{feed}} {{table}}",
        ),
        thresholds=growing(config.FRESH_SECONDS, config.STALE_SECONDS),
    ),
)

_KAFKA: Final = (
    states(
        "Kafka",
        "Whether Kafka responds to each consumer: the topics and their ends are asked for every few seconds.",
        Query(
            expr="max by (feed, component, pod, job, instance)"
            f" (marketfeed_consumer_kafka_reachable{{{FEEDS}}})",
            legend="{{job}} {{pod}}",
        ),
        {1: ("responds", "green"), 0: ("does not respond", "red")},
    ),
    states(
        "Topics",
        "Whether each topic that consumers subscribe to exists.",
        Query(
            expr=f"max by (feed, topic) (marketfeed_consumer_topic_exists{{{_TOPICS}}})",
            legend="{{feed}} {{topic}}",
        ),
        {1: ("exists", "green"), 0: ("missing", "red")},
    ),
)

_TRANSACTIONS: Final = (
    lines(
        "Stored by partition",
        "Messages a second that a partition's stored offset moves on by.",
        "mps",
        Query(expr=_STORED, legend="{{topic}} {{partition}}"),
        width=6,
    ),
    lines(
        "Transactions",
        "Committed transactions a second. Each consumer has at most one under way.",
        "ops",
        Query(
            expr=per_second("marketfeed_consumer_commit_seconds_count", FEEDS, "feed, component, job"),
            legend="{{job}} {{component}}",
        ),
        width=6,
    ),
    lines(
        "Batch size",
        "Messages in one transaction.",
        "short",
        *percentiles("marketfeed_consumer_batch_rows", FEEDS, "component, job", "{{job}} {{component}}"),
        width=6,
    ),
    lines(
        "Commit latency",
        "From a batch's hand-over to the database until its COMMIT was answered, retries included.",
        "s",
        *percentiles("marketfeed_consumer_commit_seconds", FEEDS, "component, job", "{{job}} {{component}}"),
        width=6,
    ),
)

_TROUBLE: Final = (
    lines(
        "Retries and lost connections",
        "Attempts that the database ended with an error, by SQLSTATE. 40001 is a serialization failure: the "
        "whole transaction is done again. Without a code: the connection was lost.",
        "ops",
        Query(
            expr=per_second("marketfeed_consumer_database_errors_total", FEEDS, "sqlstate"),
            legend="SQLSTATE {{sqlstate}}",
        ),
        width=6,
    ),
    states(
        "Database",
        "Whether a consumer stores, or waits because the database does not take rows.",
        Query(
            expr=f"max by (feed, component, pod, job, instance) (marketfeed_consumer_paused{{{FEEDS}}})",
            legend="{{job}} {{pod}}",
        ),
        {0: ("stores", "green"), 1: ("waits", "red")},
        ZERO_IS_GOOD,
        width=6,
    ),
    lines(
        "Dead letters",
        "Messages put into the table dead_letters within the interval, by topic: what could not be decoded "
        "or stored.",
        "short",
        Query(expr=growth("marketfeed_consumer_dead_letters_total", _TOPICS, "topic"), legend="{{topic}}"),
        width=6,
    ),
    lines(
        "Stored already",
        "Messages that were in the database already and changed nothing, by table: redelivery, replicas, "
        "backfill.",
        "mps",
        Query(expr=per_second("marketfeed_consumer_duplicates_total", FEEDS, "table"), legend="{{table}}"),
        width=6,
    ),
)

_IN_THE_DATABASE: Final = (
    lines(
        "Rows added",
        "By table.",
        "rowsps",
        Query(expr=per_second("marketfeed_consumer_rows_inserted_total", FEEDS, "table"), legend="{{table}}"),
        width=6,
    ),
    lines(
        "Socket to COMMIT",
        "From the worker's socket read to the database's answer to COMMIT, by table.",
        "s",
        *percentiles("marketfeed_consumer_wire_to_commit_seconds", FEEDS, "table", "{{table}}"),
        width=6,
    ),
    lines(
        "Audit",
        "When the database was last audited, and how long that took. The figures by symbol are as old as "
        "this.",
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
            expr=growth("marketfeed_consumer_audit_failures_total", FEEDS, "namespace, feed"),
            legend="{{feed}} failures",
        ),
        width=6,
    ),
    Panel(
        title="Audit by symbol",
        description="What is stored of each symbol, and what is not: ranges of ids that are missing and not "
        "proven absent, ids unresolved, trades stored, and what the consumers know to be missing as of "
        "their last batch.",
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
                f" (sum without (verdict) (marketfeed_consumer_audit_missing_trades"
                f'{{{FEEDS},verdict=~"unresolved|rejected"}}))'
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

_NO_RETENTION: Final = "nothing is deleted unless a retention is set"

_RETENTION: Final = (
    lines(
        "Rows deleted",
        "Rows that retention deleted within the interval, by table.",
        "short",
        Query(
            expr=f"sum by (table) (max by (namespace, feed, table) "
            f"(increase(marketfeed_consumer_retention_deleted_rows_total{{{FEEDS}}}[$__rate_interval])))",
            legend="{{table}}",
            may_be_empty=_NO_RETENTION,
        ),
        width=8,
    ),
    lines(
        "Retention finished",
        "Time since retention came to the end of a symbol, by table. It runs once a day.",
        "s",
        Query(
            expr="time() - max by (namespace, feed, table) "
            f"(marketfeed_consumer_retention_finished_timestamp_seconds{{{FEEDS}}})",
            legend="{{feed}} {{table}}",
            may_be_empty=_NO_RETENTION,
        ),
        width=8,
    ),
    lines(
        "Retention incomplete",
        "Symbols of which the newest run did not come to the end, and rows that are kept because their times are "
        "impossible.",
        "short",
        Query(
            expr="max by (namespace, feed, table) "
            f"(marketfeed_consumer_retention_unfinished_symbols{{{FEEDS}}})",
            legend="{{feed}} {{table}} symbols unfinished",
            may_be_empty=_NO_RETENTION,
        ),
        Query(
            expr="sum by (namespace, feed, table) (max by (namespace, feed, table, venue, symbol) "
            f"(marketfeed_consumer_retention_impossible_rows{{{FEEDS}}}))",
            legend="{{feed}} {{table}} rows with impossible times",
            may_be_empty=_NO_RETENTION,
        ),
        width=8,
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
        Row("From Kafka: lag", _FROM_KAFKA),
        Row("Kafka and its topics", _KAFKA),
        Row("Transactions", _TRANSACTIONS),
        Row("Retries, dead letters, repeats", _TROUBLE),
        Row("In the database", _IN_THE_DATABASE),
        Row("Retention", _RETENTION),
    ),
)
