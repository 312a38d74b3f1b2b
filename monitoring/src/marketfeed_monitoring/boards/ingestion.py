"""Ingestion dashboard: from the venue's socket to Kafka's acknowledgement, by venue, shard and symbol."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.shared import (
    FEED,
    FEEDS,
    LOWEST,
    NAMESPACE,
    NO_FAULT,
    READY_MAPPINGS,
    ZERO_IS_GOOD,
    ascending,
    increase,
    per_second,
    percentiles,
    state_timeline,
    time_series,
)
from marketfeed_monitoring.model import Board, Column, Panel, Query, Row, Variable
from marketfeed_monitoring.promql import WORKER

_SHARDS: Final = f'{FEEDS},venue=~"$venue",shard=~"$shard"'
_SYMBOLS: Final = f'{_SHARDS},symbol=~"$symbol"'
_TOP: Final = 20
"""Maximum number of lines in a panel by symbol: more are hard to distinguish. The table lists all symbols."""

_VENUE: Final = (
    state_timeline(
        "Connections",
        "State of each WebSocket connection: streaming, reconnecting, or refused by the venue (451, 403).",
        Query(
            expr=f"max by ({WORKER}, connection) (marketfeed_connection_streaming{{{_SHARDS}}})"
            f" - max by ({WORKER}, connection) (marketfeed_connection_refused{{{_SHARDS}}})",
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
            expr=f"sum by (venue) (marketfeed_connection_reconnects_total{{{_SHARDS}}})",
            legend="{{venue}} reconnects",
        ),
        Query(
            expr=f"sum by (venue, reason) (marketfeed_connection_rotations_total{{{_SHARDS}}})",
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
            expr=f"sum by (venue, reason) (vendor_fetch_failure_total{{{_SHARDS}}})",
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
            expr=f"max by ({WORKER}) (marketfeed_request_weight_used{{{_SHARDS}}})"
            f" / (max by ({WORKER}) (marketfeed_request_weight_limit{{{_SHARDS}}}) > 0)",
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
            expr=f"max by ({WORKER}) (marketfeed_connection_attempts_used{{{_SHARDS}}})"
            f" / max by ({WORKER}) (marketfeed_connection_attempts_limit{{{_SHARDS}}})",
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
            expr=f"max by ({WORKER}) (marketfeed_clock_offset_seconds{{{_SHARDS}}})",
            legend="{{shard}} clock offset",
        ),
        Query(
            expr=f"max by ({WORKER}) (marketfeed_venue_blocked_seconds{{{_SHARDS}}})",
            legend="{{shard}} blocked",
        ),
        height=6,
    ),
)

_BY_SHARD: Final = (
    state_timeline(
        "Shards",
        "Whether a worker of the shard is ready: every stream is ready and Kafka acknowledges its messages.",
        Query(expr=f"max by ({WORKER}) (marketfeed_worker_ready{{{_SHARDS}}})", legend="{{venue}} {{shard}}"),
        READY_MAPPINGS,
        width=8,
        height=6,
    ),
    time_series(
        "Rate by shard",
        "Messages read from the venue. Replicas of a shard each count.",
        "mps",
        Query(
            expr=per_second("vendor_fetch_success_total", _SHARDS, "venue, shard, stream"),
            legend="{{venue}} {{shard}} {{stream}}",
        ),
        height=6,
    ),
    time_series(
        "Venue to socket",
        "From the venue's event time of a trade to the socket read, corrected by the clock offset.",
        "s",
        *percentiles("marketfeed_venue_to_socket_seconds", _SHARDS, "venue, shard", "{{venue}} {{shard}}"),
        height=6,
    ),
)

_SYMBOL_RATE: Final = per_second("marketfeed_symbol_messages_total", _SYMBOLS, "venue, symbol, stream")

_BY_SYMBOL: Final = (
    time_series(
        f"Rate by symbol, busiest {_TOP}",
        "Messages of a symbol, by stream. Replicas of a shard each count.",
        "mps",
        Query(
            expr=f"topk({_TOP}, {_SYMBOL_RATE})",
            legend="{{symbol}} {{stream}}",
        ),
    ),
    time_series(
        f"Age of the newest trade, oldest {_TOP}",
        "Now minus the venue's time of the newest trade received. The age of an idle symbol grows without a fault: "
        "the worker verifies an idle stream over REST.",
        "s",
        Query(
            expr=f"topk({_TOP}, time() - max by (venue, symbol) "
            f"(marketfeed_last_trade_time_seconds{{{_SYMBOLS}}}))",
            legend="{{symbol}}",
        ),
    ),
    state_timeline(
        f"Stream state, {_TOP} least ready",
        "Whether each stream of a symbol delivers, or is idle because the venue has no newer data. Streams that are "
        "not ready come first; of several workers that read a symbol, the best state applies.",
        Query(
            expr=f"bottomk({_TOP}, max by (venue, symbol, stream) (marketfeed_stream_ready{{{_SYMBOLS}}}))",
            legend="{{symbol}} {{stream}}",
        ),
        {1: ("delivers or idle", "green"), 0: ("not delivering", "red")},
        width=8,
    ),
    time_series(
        f"Time since the last message by stream, longest {_TOP}",
        "Time since the last message of a stream, or since its subscription. It grows for an idle symbol without a "
        "fault.",
        "s",
        Query(
            expr=f"topk({_TOP}, min by (venue, symbol, stream) (marketfeed_stream_silent_seconds{{{_SYMBOLS}}}))",
            legend="{{symbol}} {{stream}}",
        ),
    ),
    time_series(
        "Trades held",
        "Trades of a symbol that are held until it is decided whether the venue has restarted its ids; shown while "
        "there are any.",
        "short",
        Query(
            expr=f"topk({_TOP}, min by (venue, symbol) (marketfeed_trades_held{{{_SYMBOLS}}}) > 0)",
            legend="{{symbol}}",
            may_be_empty=NO_FAULT,
        ),
    ),
    Panel(
        title="Symbols",
        description="Message rate, age of the newest trade, missing trade ids and duplicates of each symbol.",
        kind="table",
        unit="none",
        queries=(
            Query(
                expr=f"sum by (venue, shard, symbol) "
                f"(rate(marketfeed_symbol_messages_total{{{_SYMBOLS}}}[5m]))"
            ),
            Query(
                expr="time() - max by (venue, shard, symbol)"
                f" (marketfeed_last_trade_time_seconds{{{_SYMBOLS}}})"
            ),
            Query(expr=f"min by (venue, shard, symbol) (marketfeed_trade_ids_missing{{{_SYMBOLS}}})"),
            Query(expr=f"max by (venue, shard, symbol) (marketfeed_trades_duplicate_total{{{_SYMBOLS}}})"),
        ),
        columns=(
            Column("venue", "Venue"),
            Column("shard", "Shard"),
            Column("symbol", "Symbol"),
            Column("Value #A", "Rate", "mps"),
            Column("Value #B", "Newest trade, age", "s"),
            Column("Value #C", "Missing", "none", ZERO_IS_GOOD),
            Column("Value #D", "Duplicates", "none"),
        ),
        width=8,
        height=7,
    ),
)

_GAPS: Final = (
    time_series(
        "Gaps by resolution",
        "Gaps in trade ids within the interval, detected and by resolution: filled (backfilled over REST), absent "
        "(confirmed by the venue), unresolved (published without them), reordered (received out of order).",
        "short",
        Query(
            expr=increase("marketfeed_trade_gaps_detected_total", _SHARDS, "venue"),
            legend="{{venue}} detected",
        ),
        Query(
            expr=increase("marketfeed_trade_gaps_total", _SHARDS, "venue, outcome"),
            legend="{{venue}} {{outcome}}",
        ),
        width=6,
    ),
    time_series(
        "Trade ids missing by symbol",
        "Trade ids in open or unresolved gaps; shown while there are any.",
        "short",
        Query(
            expr=f"topk({_TOP}, min by (venue, symbol) (marketfeed_trade_ids_missing{{{_SYMBOLS}}}) > 0)",
            legend="{{symbol}}",
            may_be_empty=NO_FAULT,
        ),
        width=6,
    ),
    time_series(
        "Trades backfilled",
        "Trades fetched over REST after gaps, reconnects and restarts.",
        "recps",
        Query(
            expr=per_second("marketfeed_trades_backfilled_total", _SHARDS, "venue, shard"),
            legend="{{venue}} {{shard}}",
        ),
        width=6,
    ),
    time_series(
        "Duplicates skipped",
        "Duplicate trades, outdated quotes, quotes conflated under backpressure, and messages of symbols that are not "
        "assigned.",
        "mps",
        Query(
            expr=per_second("marketfeed_trades_duplicate_total", _SYMBOLS, "venue"),
            legend="{{venue}} duplicate trades",
        ),
        Query(
            expr=per_second("marketfeed_quotes_outdated_total", _SHARDS, "venue"), legend="{{venue}} outdated"
        ),
        Query(
            expr=per_second("marketfeed_quotes_conflated_total", _SHARDS, "venue"),
            legend="{{venue}} conflated",
        ),
        Query(
            expr=per_second("marketfeed_messages_unexpected_total", _SHARDS, "venue"),
            legend="{{venue}} unexpected",
        ),
        width=6,
    ),
)

_PUBLISH: Final = (
    time_series(
        "Acknowledged by Kafka",
        "Messages acknowledged by Kafka, by topic.",
        "mps",
        Query(expr=per_second("kafka_publish_success_total", _SHARDS, "topic"), legend="{{topic}}"),
        width=6,
    ),
    time_series(
        "Rejected by Kafka",
        "Messages that Kafka has rejected permanently within the interval. The worker then stops, so that none is "
        "skipped, and restarts after the last acknowledged message.",
        "short",
        Query(expr=increase("kafka_publish_failure_total", _SHARDS, "topic"), legend="{{topic}}"),
        width=6,
    ),
    time_series(
        "In-flight messages",
        "Messages passed to the Kafka client and not acknowledged yet, and how often socket reads were paused at the "
        "limit.",
        "short",
        Query(
            expr=f"sum by (venue, shard) (marketfeed_publish_pending_messages{{{_SHARDS}}})",
            legend="{{venue}} {{shard}} in flight",
        ),
        Query(
            expr=increase("marketfeed_reads_paused_total", _SHARDS, "venue, shard"),
            legend="{{venue}} {{shard}} reads paused",
        ),
        width=6,
    ),
    time_series(
        "Socket to acknowledgement",
        "From the socket read to Kafka's acknowledgement, by topic.",
        "s",
        *percentiles("marketfeed_socket_to_ack_seconds", _SHARDS, "topic", "{{topic}}"),
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
            query=f"label_values(marketfeed_symbol_messages_total{{{_SHARDS}}}, symbol)",
        ),
    ),
    rows=(
        Row("Venue and connections", _VENUE),
        Row("Shards", _BY_SHARD),
        Row("Symbols", _BY_SYMBOL),
        Row("Gaps and backfill", _GAPS),
        Row("Publishing to Kafka", _PUBLISH),
    ),
)
