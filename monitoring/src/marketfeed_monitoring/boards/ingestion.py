"""Ingestion dashboard: from the venue's socket to Kafka's acknowledgement, by venue, shard and symbol."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.ingestion_symbols import BY_SYMBOL, GAPS, SHARDS
from marketfeed_monitoring.boards.shared import (
    FEED,
    FEEDS,
    LOWEST,
    NAMESPACE,
    READY_MAPPINGS,
    ascending,
    increase,
    per_second,
    percentiles,
    state_timeline,
    time_series,
)
from marketfeed_monitoring.model import Board, Query, Row, Variable
from marketfeed_monitoring.promql import WORKER

_VENUE: Final = (
    state_timeline(
        "Connections",
        "State of each WebSocket connection: streaming, reconnecting, or refused by the venue (451, 403).",
        Query(
            expr=f"max by ({WORKER}, connection) (marketfeed_connection_streaming{{{SHARDS}}})"
            f" - max by ({WORKER}, connection) (marketfeed_connection_refused{{{SHARDS}}})",
            legend="{{shard}} #{{connection}}",
        ),
        {1: ("streaming", "green"), 0: ("reconnecting", "yellow"), -1: ("refused", "red")},
        ((LOWEST, "red"), (0, "yellow"), (1, "green")),
        width=8,
        height=6,
    ),
    time_series(
        "Reconnects and rotations",
        "Reconnects after a closed connection, and make-before-break rotations by reason, since the workers started.",
        "short",
        Query(
            expr=f"sum by (venue) (marketfeed_connection_reconnects_total{{{SHARDS}}})",
            legend="{{venue}} reconnects",
        ),
        Query(
            expr=f"sum by (venue, reason) (marketfeed_connection_rotations_total{{{SHARDS}}})",
            legend="{{venue}} rotation: {{reason}}",
            may_be_empty="a connection is rotated once in 24 h or when the venue announces a shutdown",
        ),
        height=6,
    ),
    time_series(
        "Failures by reason",
        "Closed or refused connections, failed requests and skipped frames, since the workers started. "
        "rate_limited is HTTP 429, banned 418, region_refused 451, forbidden 403.",
        "short",
        Query(
            expr=f"sum by (venue, reason) (vendor_fetch_failure_total{{{SHARDS}}})",
            legend="{{venue}} {{reason}}",
        ),
        height=6,
    ),
    time_series(
        "Request weight used",
        "Fraction of the venue's request weight per minute that this IP address has used, as reported by the venue. "
        "Workers stop at 90 % and wait for the next minute.",
        "percentunit",
        Query(
            expr=f"max by ({WORKER}) (marketfeed_request_weight_used{{{SHARDS}}})"
            f" / (max by ({WORKER}) (marketfeed_request_weight_limit{{{SHARDS}}}) > 0)",
            legend="{{venue}} {{shard}}",
        ),
        height=6,
        thresholds=ascending(config.WEIGHT_NEAR_END, 0.9),
    ),
    time_series(
        "Connection attempts used",
        "Fraction of the connection attempts that the venue allows per window.",
        "percentunit",
        Query(
            expr=f"max by ({WORKER}) (marketfeed_connection_attempts_used{{{SHARDS}}})"
            f" / max by ({WORKER}) (marketfeed_connection_attempts_limit{{{SHARDS}}})",
            legend="{{venue}} {{shard}}",
        ),
        height=6,
        thresholds=ascending(0.8, 1),
    ),
    time_series(
        "Clock and bans",
        "Venue clock minus local clock, and remaining time until a rate limit or ban ends (429, 418).",
        "s",
        Query(
            expr=f"max by ({WORKER}) (marketfeed_clock_offset_seconds{{{SHARDS}}})",
            legend="{{shard}} clock offset",
        ),
        Query(
            expr=f"max by ({WORKER}) (marketfeed_venue_blocked_seconds{{{SHARDS}}})",
            legend="{{shard}} blocked",
        ),
        height=6,
    ),
)

_BY_SHARD: Final = (
    state_timeline(
        "Shards",
        "Whether a worker of the shard is ready: every stream is ready and Kafka acknowledges its messages.",
        Query(expr=f"max by ({WORKER}) (marketfeed_worker_ready{{{SHARDS}}})", legend="{{venue}} {{shard}}"),
        READY_MAPPINGS,
        width=8,
        height=6,
    ),
    time_series(
        "Rate by shard",
        "Messages read from the venue. Replicas of a shard each count.",
        "mps",
        Query(
            expr=per_second("vendor_fetch_success_total", SHARDS, "venue, shard, stream"),
            legend="{{venue}} {{shard}} {{stream}}",
        ),
        height=6,
    ),
    time_series(
        "Venue to socket",
        "From the venue's event time of a trade to the socket read, corrected by the clock offset.",
        "s",
        *percentiles("marketfeed_venue_to_socket_seconds", SHARDS, "venue, shard", "{{venue}} {{shard}}"),
        height=6,
    ),
)

_PUBLISH: Final = (
    time_series(
        "Acknowledged by Kafka",
        "Messages acknowledged by Kafka, by topic.",
        "mps",
        Query(expr=per_second("kafka_publish_success_total", SHARDS, "topic"), legend="{{topic}}"),
        width=6,
    ),
    time_series(
        "Rejected by Kafka",
        "Messages that Kafka has rejected permanently within the interval. The worker then stops, so that none is "
        "skipped, and restarts after the last acknowledged message.",
        "short",
        Query(expr=increase("kafka_publish_failure_total", SHARDS, "topic"), legend="{{topic}}"),
        width=6,
    ),
    time_series(
        "In-flight messages",
        "Messages passed to the Kafka client and not acknowledged yet, and how often socket reads were paused at the "
        "limit.",
        "short",
        Query(
            expr=f"sum by (venue, shard) (marketfeed_publish_pending_messages{{{SHARDS}}})",
            legend="{{venue}} {{shard}} in flight",
        ),
        Query(
            expr=increase("marketfeed_reads_paused_total", SHARDS, "venue, shard"),
            legend="{{venue}} {{shard}} reads paused",
        ),
        width=6,
    ),
    time_series(
        "Socket to acknowledgement",
        "From the socket read to Kafka's acknowledgement, by topic.",
        "s",
        *percentiles("marketfeed_socket_to_ack_seconds", SHARDS, "topic", "{{topic}}"),
        width=6,
    ),
)

INGESTION: Final = Board(
    uid="marketfeed-ingestion",
    title="Marketfeed / Ingestion",
    description="From the venue's socket to Kafka's acknowledgement, by venue, shard and symbol.",
    variables=(
        NAMESPACE,
        FEED,
        Variable(
            name="venue", label="Venue", query=f"label_values(marketfeed_worker_ready{{{FEEDS}}}, venue)"
        ),
        Variable(
            name="shard",
            label="Shard",
            query=f'label_values(marketfeed_worker_ready{{{FEEDS},venue=~"$venue"}}, shard)',
        ),
        Variable(
            name="symbol",
            label="Symbol",
            query=f"label_values(marketfeed_symbol_messages_total{{{SHARDS}}}, symbol)",
        ),
    ),
    rows=(
        Row("Venue and connections", _VENUE),
        Row("Shards", _BY_SHARD),
        Row("Symbols", BY_SYMBOL),
        Row("Gaps and backfill", GAPS),
        Row("Publishing to Kafka", _PUBLISH),
    ),
)
