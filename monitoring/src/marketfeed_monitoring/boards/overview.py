"""Overview: is my data complete and fresh? One screen, red or green."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.shared import (
    FEED,
    FEEDS,
    LOWEST,
    NAMESPACE,
    NOTHING_WRONG,
    ZERO_IS_BAD,
    ZERO_IS_GOOD,
    growing,
    lines,
    per_second,
    quantile,
    verdict,
)
from marketfeed_monitoring.model import Board, Column, Panel, Query, Row
from marketfeed_monitoring.promql import WORKER, up

_MISSING: Final = (
    "sum by (namespace, feed, venue, symbol) (max by (namespace, feed, venue, symbol, verdict)"
    f' (marketfeed_consumer_audit_missing_trades{{{FEEDS},verdict=~"%s"}}))'
)
_READY: Final = f"max by ({WORKER}) (marketfeed_worker_ready{{{FEEDS}}})"
_DOWN: Final = f"sum(({up('worker', f',{FEEDS}')}) == bool 0)"
_STUCK: Final = (
    f"(max by ({WORKER}) (marketfeed_publish_pending_messages{{{FEEDS}}}) > bool 0)"
    f" * (sum by ({WORKER}) (rate(kafka_publish_success_total{{{FEEDS}}}[$__rate_interval])) == bool 0)"
)
_AGE: Final = (
    "time() - max by (namespace, feed, venue, symbol)"
    f" (marketfeed_consumer_audit_newest_trade_timestamp_seconds{{{FEEDS}}})"
)

_VERDICTS: Final = (
    verdict(
        "Complete?",
        "Trade ids between the first and the last stored that are not in the database and that the venue "
        "has not proven absent, all symbols together. Taken from the database every minute. 0 means that "
        "nothing is missing.",
        "suffix: missing",
        Query(expr=f"sum({_MISSING % 'unresolved|rejected'})"),
        ZERO_IS_GOOD,
        {0: ("complete", "green")},
    ),
    verdict(
        "Fresh?",
        "Age of the newest trade in the database. A market that is quiet as a whole makes it grow too.",
        "s",
        Query(expr=f'min(marketfeed_consumer_lag_seconds{{{FEEDS},table="trades"}})'),
        growing(config.FRESH_SECONDS, config.STALE_SECONDS),
        decimals=1,
    ),
    verdict(
        "In repair",
        "Trade ids that workers have jumped over and are fetching over REST now. Those of a symbol that two "
        "workers read count once.",
        "suffix: ids",
        Query(expr=f"sum(min by (namespace, feed, venue, symbol) (marketfeed_trade_ids_missing{{{FEEDS}}}))"),
        ((LOWEST, "green"), (1, "yellow"), (10_000, "red")),
        {0: ("nothing", "green")},
    ),
    verdict(
        "Shards ready",
        "Part of the shards that have a worker whose streams all flow; one whose worker does not answer "
        "counts as not ready.",
        "percentunit",
        Query(expr=f"sum({_READY}) / (count({_READY}) + ({_DOWN} or vector(0)))"),
        ZERO_IS_BAD,
        decimals=0,
    ),
    verdict(
        "Kafka takes?",
        "Shards that have messages waiting for Kafka of which it acknowledges none.",
        "suffix: stuck",
        Query(expr=f"sum({_STUCK})"),
        ZERO_IS_GOOD,
        {0: ("takes", "green")},
    ),
    verdict(
        "Not stored yet",
        "Messages in Kafka that are not in the database yet: the consumers' lag, all partitions together.",
        "short",
        Query(
            expr=f"sum(max by (namespace, feed, topic, partition) "
            f"(marketfeed_consumer_lag_messages{{{FEEDS}}}))"
        ),
        growing(config.LAG_MESSAGES, 10 * config.LAG_MESSAGES),
    ),
    verdict(
        "Database takes?",
        "Consumers that store nothing because the database does not take rows.",
        "suffix: paused",
        Query(expr=f"sum(marketfeed_consumer_paused{{{FEEDS}}})"),
        ZERO_IS_GOOD,
        {0: ("takes", "green")},
    ),
    verdict(
        "Alerts",
        "Alerts of marketfeed that are firing; the table below names them.",
        "suffix: firing",
        Query(expr='count(ALERTS{alertname=~"Marketfeed.+",alertstate="firing"}) or vector(0)'),
        ZERO_IS_GOOD,
        {0: ("none", "green")},
    ),
)

_WAY: Final = (
    lines(
        "1  Venue → worker",
        "Messages read from the venue, by stream. Replicas of a shard each count.",
        "mps",
        Query(expr=per_second("vendor_fetch_success_total", FEEDS, "stream"), legend="{{stream}}"),
        width=6,
        height=6,
    ),
    lines(
        "2  Worker → Kafka",
        "Messages that Kafka has acknowledged, by topic. What is read, less repeated trades and outdated "
        "quotes.",
        "mps",
        Query(expr=per_second("kafka_publish_success_total", FEEDS, "topic"), legend="{{topic}}"),
        width=6,
        height=6,
    ),
    lines(
        "3  Kafka → consumer: lag",
        "Messages that are in Kafka and not in the database yet, by topic.",
        "short",
        Query(
            expr="sum by (topic) (max by (namespace, feed, topic, partition)"
            f" (marketfeed_consumer_lag_messages{{{FEEDS}}}))",
            legend="{{topic}}",
        ),
        width=6,
        height=6,
    ),
    lines(
        "4  Consumer → database",
        "Rows added to the database, by table.",
        "rowsps",
        Query(expr=per_second("marketfeed_consumer_rows_inserted_total", FEEDS, "table"), legend="{{table}}"),
        width=6,
        height=6,
    ),
)

_TRENDS: Final = (
    lines(
        "Trade ids missing",
        "What workers are repairing now, and what is missing in the database: unresolved, or proven absent "
        "at the venue (which is not a loss).",
        "short",
        Query(
            expr=f"sum(min by (namespace, feed, venue, symbol) (marketfeed_trade_ids_missing{{{FEEDS}}}))",
            legend="in repair",
        ),
        Query(expr=f"sum({_MISSING % 'unresolved|rejected'})", legend="unresolved in the database"),
        Query(expr=f"sum({_MISSING % 'absent'})", legend="absent at the venue"),
        height=6,
    ),
    lines(
        "Age of the newest message stored",
        "How far each table is behind the venue. Grows while the market is silent, too.",
        "s",
        Query(
            expr=f"min by (feed, table) (marketfeed_consumer_lag_seconds{{{FEEDS}}})",
            legend="{{feed}} {{table}}",
        ),
        height=6,
        thresholds=growing(config.FRESH_SECONDS, config.STALE_SECONDS),
    ),
    lines(
        "Latency, 99th percentile",
        "Venue's event to our socket, socket to Kafka's acknowledgement, socket to the database's COMMIT.",
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
        description="What is stored of each symbol: part of what exists as far as is known, ids missing, "
        "age of the newest trade as of the last audit.",
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
            Column("Value #C", "Absent at the venue", "none"),
            Column("Value #D", "Newest trade, age", "s"),
        ),
        width=14,
        height=7,
    ),
    Panel(
        title="Firing alerts",
        description="Each has a runbook page; the alert's annotation runbook_url names it.",
        kind="table",
        unit="none",
        queries=(
            Query(
                expr="count by (alertname, severity, namespace, feed, shard, symbol)"
                ' (ALERTS{alertname=~"Marketfeed.+",alertstate="firing"})',
                may_be_empty=NOTHING_WRONG,
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
    description="Is my data complete and fresh? Red or green first, then the way of the data from left to "
    "right.",
    variables=(NAMESPACE, FEED),
    rows=(
        Row("Is my data complete and fresh?", _VERDICTS),
        Row("The way of the data", _WAY),
        Row("How complete, how fresh, how late", _TRENDS),
        Row("Where to look", _TABLES),
    ),
)
