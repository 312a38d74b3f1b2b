"""Panels of the ingestion dashboard by symbol, and about gaps and backfill."""

from typing import Final

from marketfeed_monitoring.boards.shared import (
    FEEDS,
    NO_FAULT,
    ZERO_IS_GOOD,
    increase,
    per_second,
    state_timeline,
    time_series,
)
from marketfeed_monitoring.model import Column, Panel, Query

SHARDS: Final = f'{FEEDS},venue=~"$venue",shard=~"$shard"'
SYMBOLS: Final = f'{SHARDS},symbol=~"$symbol"'
_TOP: Final = 20
"""Maximum number of lines in a panel by symbol: more are hard to distinguish. The table lists all symbols."""

_SYMBOL_RATE: Final = per_second("marketfeed_symbol_messages_total", SYMBOLS, "venue, symbol, stream")

BY_SYMBOL: Final = (
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
            f"(marketfeed_last_trade_time_seconds{{{SYMBOLS}}}))",
            legend="{{symbol}}",
        ),
    ),
    state_timeline(
        f"Stream state, {_TOP} least ready",
        "Whether each stream of a symbol delivers, or is idle because the venue has no newer data. Streams that are "
        "not ready come first; of several workers that read a symbol, the best state applies.",
        Query(
            expr=f"bottomk({_TOP}, max by (venue, symbol, stream) (marketfeed_stream_ready{{{SYMBOLS}}}))",
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
            expr=f"topk({_TOP}, min by (venue, symbol, stream) (marketfeed_stream_silent_seconds{{{SYMBOLS}}}))",
            legend="{{symbol}} {{stream}}",
        ),
    ),
    time_series(
        "Trades held",
        "Trades of a symbol that are held until it is decided whether the venue has restarted its ids; shown while "
        "there are any.",
        "short",
        Query(
            expr=f"topk({_TOP}, min by (venue, symbol) (marketfeed_trades_held{{{SYMBOLS}}}) > 0)",
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
                f"(rate(marketfeed_symbol_messages_total{{{SYMBOLS}}}[5m]))"
            ),
            Query(
                expr="time() - max by (venue, shard, symbol)"
                f" (marketfeed_last_trade_time_seconds{{{SYMBOLS}}})"
            ),
            Query(expr=f"min by (venue, shard, symbol) (marketfeed_trade_ids_missing{{{SYMBOLS}}})"),
            Query(expr=f"max by (venue, shard, symbol) (marketfeed_trades_duplicate_total{{{SYMBOLS}}})"),
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

GAPS: Final = (
    time_series(
        "Gaps by resolution",
        "Gaps in trade ids within the interval, detected and by resolution: backfilled over REST, absent "
        "(confirmed by the venue), unresolved (published without them), reordered (received out of order).",
        "short",
        Query(
            expr=increase("marketfeed_trade_gaps_detected_total", SHARDS, "venue"),
            legend="{{venue}} detected",
        ),
        Query(
            expr=increase("marketfeed_trade_gaps_total", SHARDS, "venue, outcome"),
            legend="{{venue}} {{outcome}}",
        ),
        width=6,
    ),
    time_series(
        "Trade ids missing by symbol",
        "Trade ids in open or unresolved gaps; shown while there are any.",
        "short",
        Query(
            expr=f"topk({_TOP}, min by (venue, symbol) (marketfeed_trade_ids_missing{{{SYMBOLS}}}) > 0)",
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
            expr=per_second("marketfeed_trades_backfilled_total", SHARDS, "venue, shard"),
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
            expr=per_second("marketfeed_trades_duplicate_total", SYMBOLS, "venue"),
            legend="{{venue}} duplicate trades",
        ),
        Query(
            expr=per_second("marketfeed_quotes_outdated_total", SHARDS, "venue"), legend="{{venue}} outdated"
        ),
        Query(
            expr=per_second("marketfeed_quotes_conflated_total", SHARDS, "venue"),
            legend="{{venue}} conflated",
        ),
        Query(
            expr=per_second("marketfeed_messages_unexpected_total", SHARDS, "venue"),
            legend="{{venue}} unexpected",
        ),
        width=6,
    ),
)
