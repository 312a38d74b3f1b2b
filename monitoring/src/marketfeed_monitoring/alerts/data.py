"""Alerts about completeness and freshness of the data."""

from typing import Final

from marketfeed_monitoring import config
from marketfeed_monitoring.alerts.model import SYMBOL, WHERE, Alert
from marketfeed_monitoring.promql import FEED, WORKER

DATA: Final[tuple[Alert, ...]] = (
    Alert(
        name="MarketfeedDataMissing",
        group="data",
        severity="critical",
        expr=f"""
max by ({SYMBOL}) (
  sum without (resolution, verdict) (
    marketfeed_consumer_audit_missing_trades{{resolution=~"unresolved|rejected"}}
    or marketfeed_consumer_audit_missing_trades{{verdict=~"unresolved|rejected"}}  # consumers of the version before
  )
) > 0
or
min by ({SYMBOL}) (marketfeed_trade_ids_missing) > 0
""",
        wait=config.MISSING_FOR,
        reason="A backfill takes seconds, or some minutes when it waits for request weight; ids that are missing for "
        "longer are not backfilled without intervention. The database comes first. The workers' count is for "
        "installations without consumers; of several workers that read a symbol, the lowest count applies.",
        summary=f"{WHERE}{{{{ $labels.symbol }}}}: {{{{ $value }}}} trades are missing",
        description="Trade ids have gaps that were not backfilled and are not confirmed absent by the venue. "
        "The data stays incomplete without intervention.",
    ),
    Alert(
        name="MarketfeedFeedStale",
        group="data",
        severity="critical",
        expr=f"max by ({WORKER}, symbol, stream) (marketfeed_stream_ready) == 0",
        wait=config.STALE_FOR,
        reason="A stream without data although the venue has newer data (stalled), or whose state REST cannot verify. "
        "An idle market does not fire: the worker verifies it over REST. Of several workers that read a symbol, "
        "the best state applies. The wait excludes reconnects, rotations and rollouts.",
        summary=f"{WHERE}shard {{{{ $labels.shard }}}}: the {{{{ $labels.stream }}}} stream of "
        "{{ $labels.symbol }} does not deliver",
        description="The stream is stalled, or has no data while REST does not respond. Missed trades are backfilled "
        "over REST as long as it responds; missed quotes are lost.",
    ),
    Alert(
        name="MarketfeedMessagesRejected",
        group="data",
        severity="warning",
        expr=f"sum by ({WORKER}, reason) (increase(marketfeed_messages_rejected_total[{config.REJECTED_WINDOW}])) > 0",
        wait="0m",
        reason="Each is a message of the venue with impossible content, so one is enough and there is no wait. "
        "The window keeps the alert visible after a single event.",
        summary=f"{WHERE}shard {{{{ $labels.shard }}}}: messages were rejected ({{{{ $labels.reason }}}})",
        description="They are stored unchanged on the topic of rejected messages and in the table dead_letters. "
        "Their trade ids are gaps, which REST may backfill.",
    ),
    Alert(
        name="MarketfeedConflictingMessages",
        group="data",
        severity="warning",
        expr=f"sum by ({FEED}, table, symbol)"
        f" (increase(marketfeed_consumer_conflicts_total[{config.IDENTITY_WINDOW}])) > 0",
        wait="0m",
        reason="One is enough: the venue, or another producer on the topics, has sent two different messages with "
        "one id. The window keeps the alert visible after a single event.",
        summary=f"{WHERE}{{{{ $labels.symbol }}}}: messages conflict with rows of {{{{ $labels.table }}}}",
        description="The stored rows are unchanged; the messages are in trade_conflicts or quote_conflicts.",
    ),
    Alert(
        name="MarketfeedIdSeriesBegun",
        group="data",
        severity="warning",
        expr=f"max by (namespace, feed, venue, symbol, stream)"
        f" (increase(marketfeed_id_series_begun_total[{config.IDENTITY_WINDOW}])) > 0",
        wait="0m",
        reason="A venue restarts ids when a test network is reset or a symbol is relisted; queries by id have to take "
        "it into account. Every worker that reads a symbol counts the new series, so the highest count applies.",
        summary=f"{WHERE}{{{{ $labels.symbol }}}}: the venue has restarted the ids of its {{{{ $labels.stream }}}} "
        "stream",
        description="The symbol continues in a new id series. Gaps of the old series that were still open stay "
        "unresolved.",
    ),
    Alert(
        name="MarketfeedTradesHeld",
        group="data",
        severity="warning",
        expr=f"min by ({SYMBOL}) (marketfeed_trades_held) > 0",
        wait=config.HELD_FOR,
        reason="A worker holds trades while it is undecided whether the venue has restarted their ids. REST decides "
        "within seconds, and without REST ten trades decide: the symbol trades rarely and REST does not respond. "
        "Of several workers that read a symbol, the one that publishes counts.",
        summary=f"{WHERE}{{{{ $labels.symbol }}}}: {{{{ $value }}}} trades are held",
        description="The venue may have restarted their ids, and its REST API does not respond. They are published "
        "when it responds, or after ten trades.",
    ),
)
