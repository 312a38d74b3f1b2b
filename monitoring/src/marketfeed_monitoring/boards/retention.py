"""Panels of the persistence dashboard about retention."""

from typing import Final

from marketfeed_monitoring.boards.shared import FEEDS, time_series
from marketfeed_monitoring.model import Query

_NO_RETENTION: Final = "nothing is deleted unless a retention is set"

RETENTION: Final = (
    time_series(
        "Rows deleted",
        "Rows deleted by retention within the interval, by table.",
        "short",
        Query(
            expr=f"sum by (table) (max by (namespace, feed, table) "
            f"(increase(marketfeed_consumer_retention_deleted_rows_total{{{FEEDS}}}[$__rate_interval])))",
            legend="{{table}}",
            may_be_empty=_NO_RETENTION,
        ),
        width=8,
    ),
    time_series(
        "Retention finished",
        "Time since retention last finished a symbol, by table. It runs once a day.",
        "s",
        Query(
            expr="time() - max by (namespace, feed, table) "
            f"(marketfeed_consumer_retention_finished_timestamp_seconds{{{FEEDS}}})",
            legend="{{feed}} {{table}}",
            may_be_empty=_NO_RETENTION,
        ),
        width=8,
    ),
    time_series(
        "Retention incomplete",
        "Symbols that the newest run did not finish, and rows that are kept because their times are impossible.",
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
