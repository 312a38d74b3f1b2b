"""Command ``marketfeed audit``: verify completeness of the database by symbol and hour."""

import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from marketfeed_consumers.admin.audit import Scope
from marketfeed_consumers.admin.audit import audit as audited
from marketfeed_consumers.admin.audit_report import ConflictReport, HourReport, Report
from marketfeed_consumers.admin.commands import check_times
from marketfeed_consumers.database import connections, schema
from marketfeed_consumers.settings import DatabaseSettings
from marketfeed_service import settings


def audit(options: Namespace, environment: Mapping[str, str]) -> int:
    """Print the audit of DATABASE_URL; return 0 if the data is complete, otherwise 1.

    Raises:
        SettingsError: DATABASE_URL or the time range is invalid.
        StartupError: The database is unreachable, or its schema is of another release.
    """
    read = settings.read(DatabaseSettings, environment)
    scope = Scope(options.venue, options.symbol, options.since, options.until)
    check_times(options.since, options.until)
    with connections.wait_for_database(
        read.database_url.get_secret_value(), read.start_deadline_seconds, only_reads=True
    ) as (connection, dialect):
        connections.set_read_only(connection)
        schema.check(connection)
        report = audited(connection, dialect, scope, deep=options.deep)
    if options.output == "json":
        json.dump(as_json(report), sys.stdout, indent=2)
        print()
    else:
        show(report)
    return 0 if report.is_complete else 1


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as for ``--output json``; times are ISO 8601, ids are integers."""
    return {
        "complete": report.is_complete,
        "deep": report.deep,
        "hours": [
            {
                "venue": hour.venue,
                "symbol": hour.symbol,
                "id_series": hour.id_series,
                "hour": _hour(hour),
                "first_id": hour.first_id,
                "last_id": hour.last_id,
                "stored": hour.stored,
                "missing": [span._asdict() for span in hour.missing],
                "duplicates": hour.duplicates,
                "uncounted": hour.uncounted,
                "expired": hour.expired,
                "completeness_percent": hour.completeness_percent,
            }
            for hour in report.hours
        ],
        "conflicts": [each._asdict() for each in report.conflicts],
    }


def show(report: Report) -> None:
    """Print the report as a table with a summary line."""
    table = Table("venue", "symbol", "hour (UTC)", box=None, pad_edge=False)
    for title in ("first id", "last id", "stored", "duplicates", "complete"):
        table.add_column(title, justify="right")
    table.add_column("missing")
    for hour in report.hours:
        table.add_row(
            hour.venue,
            f"{hour.symbol} (id series {hour.id_series})" if hour.id_series else hour.symbol,
            _hour(hour),
            _id(hour.first_id),
            _id(hour.last_id),
            f"{hour.stored:,}",
            str(hour.duplicates),
            _percent(hour.completeness_percent),
            ", ".join(_remarks(hour)),
        )
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    for each in report.conflicts:
        console.print(_conflict(each))
    console.print(summary(report))


def _conflict(each: ConflictReport) -> str:
    series = f" (id series {each.id_series})" if each.id_series else ""
    table = "trade_conflicts" if each.table == "trades" else "quote_conflicts"
    return (
        f"conflicts: {each.messages:,} messages conflict with {each.ids:,} rows of {each.table}: {each.venue} "
        f"{each.symbol}{series}, ids {each.first_id}-{each.last_id}; see the table {table}"
    )


def _remarks(hour: HourReport) -> list[str]:
    remarks = [
        f"{span.first_id}-{span.last_id} {span.resolution} {span.proof}".rstrip() for span in hour.missing
    ]
    if hour.uncounted:
        remarks.append(f"{hour.uncounted:,} rows differ from candles_1m")
    if hour.expired:
        remarks.append("expired: deleted by retention")
    return remarks


def summary(report: Report) -> str:
    """Return the summary line."""
    if not report.any_stored:
        return "NOT complete: no trades of this scope are stored; venue and symbol are as in the rows, such as BTCUSDT"
    how = "rows counted" if report.deep else "from the stored ranges; --deep counts the rows"
    ids: Counter[str] = Counter()
    for hour in report.hours:
        for span in hour.missing:
            ids[span.resolution] += span.size
    if report.is_complete:
        expired = f"; {ids['expired']:,} expired ids were never stored" if ids["expired"] else ""
        return f"complete: {sum(hour.stored for hour in report.hours):,} trades{expired} ({how})"
    sums = {
        "ids are unresolved": ids["unresolved"],
        "ids were rejected": ids["rejected"],
        "rows are duplicates": sum(hour.duplicates for hour in report.hours),
        "ids have conflicting messages": sum(each.ids for each in report.conflicts),
        "rows differ from candles_1m": sum(hour.uncounted for hour in report.hours),
    }
    return f"NOT complete: {', '.join(f'{count:,} {problem}' for problem, count in sums.items() if count)} ({how})"


def _hour(hour: HourReport) -> str:
    if hour.hour_us > _LAST_US:
        return f"{hour.hour_us} us"
    return datetime.fromtimestamp(hour.hour_us / 1e6, UTC).strftime("%Y-%m-%dT%H:00Z")


_LAST_US: Final = 253_402_300_799_999_999
"""End of the year 9999, the maximum of `datetime`: a time beyond it is in another unit."""


def _id(trade_id: int | None) -> str:
    return "-" if trade_id is None else str(trade_id)


def _percent(percent: float) -> str:
    """Format a percentage, rounded down so that a single missing trade never shows as 100 %."""
    return "100 %" if percent == 100.0 else f"{min(percent, 99.999):.3f} %"
