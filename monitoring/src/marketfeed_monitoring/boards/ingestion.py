"""Ingestion: by venue, shard and symbol, from the venue's socket to Kafka's acknowledgement."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.boards.shared import (
    FEED,
    FEEDS,
    LOWEST,
    NAMESPACE,
    NOTHING_WRONG,
    READY_WORDS,
    ZERO_IS_GOOD,
    growing,
    growth,
    lines,
    per_second,
    percentiles,
    states,
)
from marketfeed_monitoring.model import Board, Column, Panel, Query, Row, Variable
from marketfeed_monitoring.promql import WORKER

_SHARDS: Final = f'{FEEDS},venue=~"$venue",shard=~"$shard"'
_SYMBOLS: Final = f'{_SHARDS},symbol=~"$symbol"'
_TOP: Final = 20
"""Lines in a panel by symbol: more cannot be told apart; the table has all of them."""

_VENUE: Final = (
    states(
        "Connections",
        "Each WebSocket connection: streaming, between two attempts, or refused by the venue for good (451, "
        "403).",
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
    lines(
        "Reconnects and rotations",
        "Connections opened again after an end, and connections replaced without a break, by reason, since "
        "the workers started.",
        "short",
        Query(
            expr=f"sum by (venue) (marketfeed_connection_reconnects_total{{{_SHARDS}}})",
            legend="{{venue}} reconnects",
        ),
        Query(
            expr=f"sum by (venue, reason) (marketfeed_connection_rotations_total{{{_SHARDS}}})",
            legend="{{venue}} rotation: {{reason}}",
            may_be_empty="a connection is replaced once in 24 h or when the venue announces its end",
        ),
        height=6,
    ),
    lines(
        "Failures by reason",
        "Connections that ended or were refused, requests that failed, frames passed over, since the "
        "workers started. rate_limited is HTTP 429, banned 418, region_refused 451, forbidden 403.",
        "short",
        Query(
            expr=f"sum by (venue, reason) (vendor_fetch_failure_total{{{_SHARDS}}})",
            legend="{{venue}} {{reason}}",
        ),
        height=6,
    ),
    lines(
        "Request weight used",
        "Part of the venue's request weight a minute that this address has used, as the venue says. Workers "
        "stop at 90 % and wait for the next minute.",
        "percentunit",
        Query(
            expr=f"max by ({WORKER}) (marketfeed_request_weight_used{{{_SHARDS}}})"
            f" / (max by ({WORKER}) (marketfeed_request_weight_limit{{{_SHARDS}}}) > 0)",
            legend="{{venue}} {{shard}}",
        ),
        height=6,
        thresholds=growing(config.WEIGHT_NEAR_END, 0.9),
    ),
    lines(
        "Connection attempts used",
        "Part of the connection attempts that the worker may make within the venue's window.",
        "percentunit",
        Query(
            expr=f"max by ({WORKER}) (marketfeed_connection_attempts_used{{{_SHARDS}}})"
            f" / max by ({WORKER}) (marketfeed_connection_attempts_limit{{{_SHARDS}}})",
            legend="{{venue}} {{shard}}",
        ),
        height=6,
        thresholds=growing(0.8, 1),
    ),
    lines(
        "Clock and bans",
        "The venue's clock minus ours, and for how long the venue still wants to be left alone (429, 418).",
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
    states(
        "Shards",
        "Whether a worker of the shard is ready: every stream flows and Kafka takes what it brings.",
        Query(expr=f"max by ({WORKER}) (marketfeed_worker_ready{{{_SHARDS}}})", legend="{{venue}} {{shard}}"),
        READY_WORDS,
        width=8,
        height=6,
    ),
    lines(
        "Rate by shard",
        "Messages read from the venue. Replicas of a shard each count.",
        "mps",
        Query(
            expr=per_second("vendor_fetch_success_total", _SHARDS, "venue, shard, stream"),
            legend="{{venue}} {{shard}} {{stream}}",
        ),
        height=6,
    ),
    lines(
        "Venue to socket",
        "From the venue's event time of a trade to the socket's read, corrected by the clock offset.",
        "s",
        *percentiles("marketfeed_venue_to_socket_seconds", _SHARDS, "venue, shard", "{{venue}} {{shard}}"),
        height=6,
    ),
)

_SYMBOL_RATE: Final = per_second("marketfeed_symbol_messages_total", _SYMBOLS, "venue, symbol, stream")

_BY_SYMBOL: Final = (
    lines(
        f"Rate by symbol, busiest {_TOP}",
        "Messages of a symbol, by stream. Replicas of a shard each count.",
        "mps",
        Query(
            expr=f"topk({_TOP}, {_SYMBOL_RATE})",
            legend="{{symbol}} {{stream}}",
        ),
    ),
    lines(
        f"Age of the newest trade, oldest {_TOP}",
        "Now minus the venue's time of the newest trade read. A symbol that is not traded gets old without "
        "anything being wrong: the worker asks the venue before it believes a silence.",
        "s",
        Query(
            expr=f"topk({_TOP}, time() - max by (venue, symbol) "
            f"(marketfeed_last_trade_time_seconds{{{_SYMBOLS}}}))",
            legend="{{symbol}}",
        ),
    ),
    states(
        f"Streams, {_TOP} that deliver least",
        "Whether each stream of a symbol delivers, or REST shows that the venue has nothing newer. Those that do not "
        "come first; of several workers that read a symbol the best counts.",
        Query(
            expr=f"bottomk({_TOP}, max by (venue, symbol, stream) (marketfeed_stream_ready{{{_SYMBOLS}}}))",
            legend="{{symbol}} {{stream}}",
        ),
        {1: ("delivers or idle", "green"), 0: ("not delivering", "red")},
        width=8,
    ),
    lines(
        f"Silence by stream, longest {_TOP}",
        "Since the newest message of a stream, counted from its subscription at most. A quiet symbol is silent without "
        "anything being wrong.",
        "s",
        Query(
            expr=f"topk({_TOP}, min by (venue, symbol, stream) (marketfeed_stream_silent_seconds{{{_SYMBOLS}}}))",
            legend="{{symbol}} {{stream}}",
        ),
    ),
    lines(
        "Trades held back",
        "Trades of a symbol that are held back until it is known whether the venue has begun its ids again; shown "
        "while there are any.",
        "short",
        Query(
            expr=f"topk({_TOP}, min by (venue, symbol) (marketfeed_trades_held{{{_SYMBOLS}}}) > 0)",
            legend="{{symbol}}",
            may_be_empty=NOTHING_WRONG,
        ),
    ),
    Panel(
        title="Symbols",
        description="Every symbol: messages a second, age of the newest trade, trade ids missing and "
        "repeated.",
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
            Column("Value #D", "Repeated", "none"),
        ),
        width=8,
        height=7,
    ),
)

_CONTINUITY: Final = (
    lines(
        "Gaps by what became of them",
        "Jumps in trade ids, and what they ended as within the interval: filled over REST, absent at the "
        "venue, unresolved (trades went on without them), reordered (they came by themselves).",
        "short",
        Query(
            expr=growth("marketfeed_trade_gaps_detected_total", _SHARDS, "venue"), legend="{{venue}} detected"
        ),
        Query(
            expr=growth("marketfeed_trade_gaps_total", _SHARDS, "venue, outcome"),
            legend="{{venue}} {{outcome}}",
        ),
        width=6,
    ),
    lines(
        "Trade ids missing by symbol",
        "Ids jumped over and not published since; shown while there are any.",
        "short",
        Query(
            expr=f"topk({_TOP}, min by (venue, symbol) (marketfeed_trade_ids_missing{{{_SYMBOLS}}}) > 0)",
            legend="{{symbol}}",
            may_be_empty=NOTHING_WRONG,
        ),
        width=6,
    ),
    lines(
        "Trades fetched over REST",
        "Repairs after gaps, reconnects and restarts.",
        "recps",
        Query(
            expr=per_second("marketfeed_trades_backfilled_total", _SHARDS, "venue, shard"),
            legend="{{venue}} {{shard}}",
        ),
        width=6,
    ),
    lines(
        "Passed over",
        "Trades that came again, quotes older than one before them, quotes conflated under pressure, "
        "messages of symbols that nobody asked for.",
        "mps",
        Query(
            expr=per_second("marketfeed_trades_duplicate_total", _SYMBOLS, "venue"),
            legend="{{venue}} trades again",
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
    lines(
        "Acknowledged by Kafka",
        "Messages that Kafka has acknowledged, by topic.",
        "mps",
        Query(expr=per_second("kafka_publish_success_total", _SHARDS, "topic"), legend="{{topic}}"),
        width=6,
    ),
    lines(
        "Refused by Kafka",
        "Messages that Kafka has refused for good, within the interval. The worker then stops, so that "
        "nothing is skipped, and begins again where Kafka's acknowledgements end.",
        "short",
        Query(expr=growth("kafka_publish_failure_total", _SHARDS, "topic"), legend="{{topic}}"),
        width=6,
    ),
    lines(
        "Waiting for Kafka",
        "Messages handed to the Kafka client and not acknowledged yet, and how often sockets were not read "
        "because there was no room for more.",
        "short",
        Query(
            expr=f"sum by (venue, shard) (marketfeed_publish_pending_messages{{{_SHARDS}}})",
            legend="{{venue}} {{shard}} waiting",
        ),
        Query(
            expr=growth("marketfeed_reads_paused_total", _SHARDS, "venue, shard"),
            legend="{{venue}} {{shard}} reads paused",
        ),
        width=6,
    ),
    lines(
        "Socket to acknowledgement",
        "From the socket's read to Kafka's acknowledgement, by topic.",
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
        Row("Continuity: gaps and their repair", _CONTINUITY),
        Row("Publishing to Kafka", _PUBLISH),
    ),
)
