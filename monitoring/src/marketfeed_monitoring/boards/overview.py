"""Overview dashboard: completeness and freshness of the data on one screen."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.shared import (
    FEED,
    FEEDS,
    LOWEST,
    NAMESPACE,
    NO_FAULT,
    ZERO_IS_BAD,
    ZERO_IS_GOOD,
    ascending,
    per_second,
    quantile,
    stat,
    time_series,
)
from marketfeed_monitoring.model import Board, Column, Panel, Query, Row
from marketfeed_monitoring.promql import WORKER, up

_MISSING: Final = (
    "sum by (namespace, feed, venue, symbol) (max by (namespace, feed, venue, symbol, resolution)"
    f' (marketfeed_consumer_audit_missing_trades{{{FEEDS},resolution=~"%s"}}))'
)
_READY: Final = f"max by ({WORKER}) (marketfeed_worker_ready{{{FEEDS}}})"
_DOWN: Final = f"sum(({up('worker', f',{FEEDS}')}) == bool 0)"
_STALLED: Final = (
    f"(max by ({WORKER}) (marketfeed_publish_pending_messages{{{FEEDS}}}) > bool 0)"
    f" * (sum by ({WORKER}) (rate(kafka_publish_success_total{{{FEEDS}}}[$__rate_interval])) == bool 0)"
)
_AGE: Final = (
    "time() - max by (namespace, feed, venue, symbol)"
    f" (marketfeed_consumer_audit_newest_trade_timestamp_seconds{{{FEEDS}}})"
)

_STATS: Final = (
    stat(
        "Missing trades",
        "Trade ids between the first and the last stored one that are not in the database and not confirmed "
        "absent by the venue, over all symbols, from the audit of the database.",
        "suffix: missing",
        Query(expr=f"sum({_MISSING % 'unresolved|rejected'})"),
        ZERO_IS_GOOD,
        {0: ("none", "green")},
    ),
    stat(
        "Data freshness",
        "Age of the newest trade in the database. It also grows while the whole market is idle.",
        "s",
        Query(expr=f'min(marketfeed_consumer_lag_seconds{{{FEEDS},table="trades"}})'),
        ascending(config.FRESH_SECONDS, config.STALE_SECONDS),
        decimals=1,
    ),
    stat(
        "Backfill in progress",
        "Trade ids in open gaps, which workers are backfilling over REST. A symbol that two workers read counts once.",
        "suffix: ids",
        Query(expr=f"sum(min by (namespace, feed, venue, symbol) (marketfeed_trade_ids_missing{{{FEEDS}}}))"),
        ((LOWEST, "green"), (1, "yellow"), (10_000, "red")),
        {0: ("none", "green")},
    ),
    stat(
        "Shards ready",
        "Fraction of shards with a worker whose streams are all ready. A shard whose worker cannot be scraped counts "
        "as not ready.",
        "percentunit",
        Query(expr=f"sum({_READY}) / (count({_READY}) + ({_DOWN} or vector(0)))"),
        ZERO_IS_BAD,
        decimals=0,
    ),
    stat(
        "Kafka publishing",
        "Shards with in-flight messages of which Kafka acknowledges none.",
        "suffix: stalled",
        Query(expr=f"sum({_STALLED})"),
        ZERO_IS_GOOD,
        {0: ("OK", "green")},
    ),
    stat(
        "Consumer lag",
        "Messages in Kafka that are not in the database yet, over all partitions.",
        "short",
        Query(
            expr=f"sum(max by (namespace, feed, topic, partition) "
            f"(marketfeed_consumer_lag_messages{{{FEEDS}}}))"
        ),
        ascending(config.LAG_MESSAGES, 10 * config.LAG_MESSAGES),
    ),
    stat(
        "Database writes",
        "Consumers whose writes are paused because the database is unavailable.",
        "suffix: paused",
        Query(expr=f"sum(marketfeed_consumer_paused{{{FEEDS}}})"),
        ZERO_IS_GOOD,
        {0: ("OK", "green")},
    ),
    stat(
        "Alerts",
        "Number of firing marketfeed alerts; the table below lists them.",
        "suffix: firing",
        Query(expr='count(ALERTS{alertname=~"Marketfeed.+",alertstate="firing"}) or vector(0)'),
        ZERO_IS_GOOD,
        {0: ("none", "green")},
    ),
)

_PIPELINE: Final = (
    time_series(
        "1  Venue → worker",
        "Messages read from the venue, by stream. Replicas of a shard each count.",
        "mps",
        Query(expr=per_second("vendor_fetch_success_total", FEEDS, "stream"), legend="{{stream}}"),
        width=6,
        height=6,
    ),
    time_series(
        "2  Worker → Kafka",
        "Messages acknowledged by Kafka, by topic: messages read without duplicate trades and outdated quotes.",
        "mps",
        Query(expr=per_second("kafka_publish_success_total", FEEDS, "topic"), legend="{{topic}}"),
        width=6,
        height=6,
    ),
    time_series(
        "3  Kafka → consumer: lag",
        "Messages in Kafka that are not in the database yet, by topic.",
        "short",
        Query(
            expr="sum by (topic) (max by (namespace, feed, topic, partition)"
            f" (marketfeed_consumer_lag_messages{{{FEEDS}}}))",
            legend="{{topic}}",
        ),
        width=6,
        height=6,
    ),
    time_series(
        "4  Consumer → database",
        "Rows added to the database, by table.",
        "rowsps",
        Query(expr=per_second("marketfeed_consumer_rows_inserted_total", FEEDS, "table"), legend="{{table}}"),
        width=6,
        height=6,
    ),
)

_TRENDS: Final = (
    time_series(
        "Trade ids missing",
        "Ids in open gaps, which workers are backfilling, and ids missing in the database: unresolved, or confirmed "
        "absent by the venue (which is not a loss).",
        "short",
        Query(
            expr=f"sum(min by (namespace, feed, venue, symbol) (marketfeed_trade_ids_missing{{{FEEDS}}}))",
            legend="backfill in progress",
        ),
        Query(expr=f"sum({_MISSING % 'unresolved|rejected'})", legend="unresolved in the database"),
        Query(expr=f"sum({_MISSING % 'absent'})", legend="absent"),
        height=6,
    ),
    time_series(
        "Age of the newest stored message",
        "Now minus the receive time of the newest stored message, by table. It also grows while the market is idle.",
        "s",
        Query(
            expr=f"min by (feed, table) (marketfeed_consumer_lag_seconds{{{FEEDS}}})",
            legend="{{feed}} {{table}}",
        ),
        height=6,
        thresholds=ascending(config.FRESH_SECONDS, config.STALE_SECONDS),
    ),
    time_series(
        "Latency, 99th percentile",
        "Venue event to socket read, socket read to Kafka acknowledgement, socket read to database COMMIT.",
        "s",
        Query(expr=quantile(0.99, "marketfeed_venue_to_socket_seconds", FEEDS), legend="venue to socket"),
        Query(expr=quantile(0.99, "marketfeed_socket_to_ack_seconds", FEEDS), legend="socket to Kafka"),
        Query(
            expr=quantile(0.99, "marketfeed_consumer_wire_to_commit_seconds", FEEDS),
            legend="socket to database",
        ),
        height=6,
    ),
)

_TABLES: Final = (
    Panel(
        title="By symbol",
        description="Completeness of the stored trades, missing ids and age of the newest trade of each symbol, as of "
        "the last audit.",
        kind="table",
        unit="none",
        queries=(
            Query(
                expr="min by (namespace, feed, venue, symbol)"
                f" (marketfeed_consumer_audit_completeness_ratio{{{FEEDS}}})"
            ),
            Query(expr=_MISSING % "unresolved|rejected"),
            Query(expr=_MISSING % "absent"),
            Query(expr=_AGE),
        ),
        columns=(
            Column("feed", "Feed"),
            Column("venue", "Venue"),
            Column("symbol", "Symbol"),
            Column("Value #A", "Complete", "percentunit", ZERO_IS_BAD),
            Column("Value #B", "Unresolved", "none", ZERO_IS_GOOD),
            Column("Value #C", "Absent", "none"),
            Column("Value #D", "Newest trade, age", "s"),
        ),
        width=14,
        height=7,
    ),
    Panel(
        title="Firing alerts",
        description="Firing alerts. The annotation runbook_url of each alert is the path of its runbook page.",
        kind="table",
        unit="none",
        queries=(
            Query(
                expr="count by (alertname, severity, namespace, feed, shard, symbol)"
                ' (ALERTS{alertname=~"Marketfeed.+",alertstate="firing"})',
                may_be_empty=NO_FAULT,
            ),
        ),
        columns=(
            Column("severity", "Severity"),
            Column("alertname", "Alert"),
            Column("feed", "Feed"),
            Column("shard", "Shard"),
            Column("symbol", "Symbol"),
        ),
        width=10,
        height=7,
        no_value="no alert is firing",
    ),
)

OVERVIEW: Final = Board(
    uid="marketfeed-overview",
    title="Marketfeed / Overview",
    description="Completeness and freshness of the data, then the pipeline from left to right.",
    variables=(NAMESPACE, FEED),
    rows=(
        Row("Summary", _STATS),
        Row("Pipeline", _PIPELINE),
        Row("Completeness, freshness, latency", _TRENDS),
        Row("Symbols and alerts", _TABLES),
    ),
)
