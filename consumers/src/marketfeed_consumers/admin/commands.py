"""The commands besides `run`: each reads its settings, does its work and prints the result."""

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from confluent_kafka.admin import AdminClient

from marketfeed_consumers.admin import offsets, rebuild, retention
from marketfeed_consumers.admin.row_level_ttl import row_level_ttl
from marketfeed_consumers.database import connections, schema
from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.tables import dead_letters
from marketfeed_consumers.settings import ConsumerSettings, DatabaseSettings
from marketfeed_service import logs, settings
from marketfeed_service.errors import SettingsError
from marketfeed_service.kafka import client_config

_DAY_US: Final = 86_400_000_000
_PRINT_SECONDS: Final = 2.0
_CLOCKS_DIFFER_US: Final = 60_000_000
IMPOSSIBLE_TIMES: Final = 3
"""Exit code of a retention run that kept rows with impossible times."""
_RNG: Final = random.Random()  # noqa: S311 - jitter


def time_us(text: str) -> int:
    """Parse an ISO 8601 date or time, UTC without a zone; return microseconds since the Unix epoch.

    Raises:
        argparse.ArgumentTypeError: `text` is not ISO 8601.
    """
    try:
        return settings.parse_time_us(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an ISO 8601 time such as 2026-01-31 or 2026-01-31T12:00Z"
        ) from None


def check_times(since_us: int | None, until_us: int | None) -> None:
    """Check that --since is before --until.

    Raises:
        SettingsError: it is not.
    """
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise SettingsError("--until must be a later time than --since")


def _database() -> DatabaseSettings:
    read = settings.read(DatabaseSettings, os.environ)
    logs.configure(read.log_level, read.log_format)
    return read


def migrate() -> int:
    """Migrate the schema to this release's version."""
    read = _database()
    before, after = schema.migrate(read.database_url.get_secret_value(), read.start_deadline_seconds)
    if before == after:
        print(f"the schema is at version {after} already")
    else:
        print(f"the schema was at version {before or 'none'} and is at {after} now")
    return 0


def rebuild_table(arguments: argparse.Namespace) -> int:
    """Rebuild a derived table from the rows."""
    check_times(arguments.since, arguments.until)
    read = _database()
    scope = rebuild.Scope(arguments.venue, arguments.symbol, arguments.since, arguments.until)
    make = rebuild.candles if arguments.table == "candles_1m" else rebuild.tops
    with connections.wait_for_database(read.database_url.get_secret_value(), read.start_deadline_seconds) as (
        connection,
        _,
    ):
        schema.check(connection)
        progress = ProgressPrinter(f"{arguments.table}: rows rebuilt")
        for done in make(connection, scope, connections.retry_conflicts(connection, _RNG)):
            progress.add(done.rows, f"{done.venue} {done.symbol}")
    progress.end()
    return 0


def retain(arguments: argparse.Namespace) -> int:
    """Delete rows older than the given days; return 3 if rows with impossible times were kept."""
    days = {table: getattr(arguments, f"{table}_days") for table in _RETAINED}
    if not any(value is not None for value in days.values()):
        raise SettingsError("give at least one of " + ", ".join(_option(table) for table in _RETAINED))
    read = _database()
    impossible: Counter[tuple[str, str, str]] = Counter()
    with connections.wait_for_database(read.database_url.get_secret_value(), read.start_deadline_seconds) as (
        connection,
        dialect,
    ):
        schema.check(connection)
        clocks = retention.clocks(connection, time.time_ns() // 1000)
        if abs(clocks.here_us - clocks.there_us) > _CLOCKS_DIFFER_US:
            print(
                f"this machine's clock and the database's differ by {(clocks.here_us - clocks.there_us) / 1e6:,.0f} s: "
                "rows expire by the clock that deletes less",
                file=sys.stderr,
            )
        retry = connections.retry_conflicts(connection, _RNG)
        for table, kept in _with_conflicts(days):
            limit = clocks.limit(kept * _DAY_US)
            if dialect.name == "cockroachdb":
                connection.execute(row_level_ttl(table, kept))
                connection.commit()
                retention.note_limit(connection, table, limit, retry)
                print(f"{table}: CockroachDB now deletes rows older than {kept} days")
            else:
                impossible += _delete(connection, table, limit, retry)
    for (table, venue, symbol), rows in sorted(impossible.items()):
        print(
            f"{table}: {rows:,} rows of {venue} {symbol} have an impossible time and were kept: "
            "see docs/persistence.md, What is deleted",
            file=sys.stderr,
        )
    return IMPOSSIBLE_TIMES if impossible else 0


def _with_conflicts(days: Mapping[str, int | None]) -> Iterator[tuple[str, int]]:
    """Yield each table with a retention limit, its conflicts' table included, and the days."""
    for table, kept in days.items():
        if kept is not None:
            yield table, kept
            if table in retention.CONFLICTS:
                yield retention.CONFLICTS[table], kept


def _delete(
    connection: DatabaseConnection, table: str, limit: retention.Limit, retry: connections.Retry
) -> "Counter[tuple[str, str, str]]":
    """Delete the old rows of `table`; return (table, venue, symbol) -> rows kept because of impossible times."""
    progress = ProgressPrinter(f"{table}: rows deleted")
    impossible: Counter[tuple[str, str, str]] = Counter()
    if table == dead_letters.NAME:
        steps = retention.expire_dead_letters(connection, limit, retry)
    elif table in retention.CONFLICTS.values():
        steps = retention.expire_conflicts(connection, table, limit, retry)
    else:
        steps = retention.expire(connection, table, limit, retry)
    for done in steps:
        progress.add(done.deleted, f"{done.venue} {done.symbol}".strip())
        if done.impossible:
            impossible[table, done.venue, done.symbol] += done.impossible
    progress.end()
    return impossible


def reset_offsets(arguments: argparse.Namespace) -> int:
    """Reset the stored offsets of a topic."""
    read = settings.read(ConsumerSettings, os.environ)
    logs.configure(read.log_level, read.log_format)
    if arguments.topic not in read.tables_by_topic():
        raise SettingsError(
            f"--topic {arguments.topic}: must be one of {', '.join(read.tables_by_topic())} "
            "(MARKET_TRADES_TOPIC, MARKET_BOOK_TOPIC, MARKET_GAPS_TOPIC)"
        )
    admin = AdminClient({**client_config(read), "log_level": 2})
    with connections.wait_for_database(read.database_url.get_secret_value(), read.start_deadline_seconds) as (
        connection,
        _,
    ):
        schema.check(connection)
        retry: Callable[[Callable[[], list[offsets.Moved]]], list[offsets.Moved]]
        retry = connections.retry_conflicts(connection, _RNG)  # a consumer may be committing to the same rows
        moved = retry(
            lambda: offsets.reset(
                connection,
                admin,
                read.kafka_group,
                arguments.topic,
                arguments.to,
                arguments.partition,
                time.time_ns() // 1000,
            )
        )
    for one in moved:
        before = "nothing" if one.before is None else one.before
        cleared = f"; no longer refused: {one.refusal}" if one.refusal else ""
        print(f"{one.topic}[{one.partition}]: {before} -> {one.after}{cleared}")
    return 0


class ProgressPrinter:
    """Printer of the progress of long work."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._rows = 0
        self._printed_at = time.monotonic()

    def add(self, rows: int, where: str) -> None:
        """Count `rows` more, and print the sum every few seconds."""
        self._rows += rows
        if time.monotonic() - self._printed_at >= _PRINT_SECONDS:
            self._printed_at = time.monotonic()
            print(f"{self._what}: {self._rows:,} … {where}", flush=True)

    def end(self) -> None:
        """Print the sum."""
        print(f"{self._what}: {self._rows:,}", flush=True)


_RETAINED: Final = ("trades", "book_tickers", "candles_1m", "dead_letters")


def _option(table: str) -> str:
    return f"--{table.replace('_', '-')}-days"


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands and their options."""
    rebuilding = commands.add_parser("rebuild", help="rebuild a derived table from the rows (DATABASE_URL)")
    rebuilding.add_argument("--table", required=True, choices=["candles_1m", "top_of_book"])
    rebuilding.add_argument("--since", type=time_us, help="only minutes from this time on, ISO 8601 in UTC")
    rebuilding.add_argument("--until", type=time_us, help="only minutes before this time")
    rebuilding.add_argument("--venue")
    rebuilding.add_argument("--symbol")
    keep = commands.add_parser(
        "retain",
        help="delete rows older than the given days (DATABASE_URL)",
        description="Delete rows that are older than the given days, each by its own time. Exit code 3: done, but rows "
        "with impossible times (1970, or far ahead) were kept; they are listed.",
    )
    for table in _RETAINED:
        keep.add_argument(_option(table), dest=f"{table}_days", type=_days, metavar="DAYS")
    reset = commands.add_parser(
        "reset-offsets",
        help="reset the stored offsets of a topic (DATABASE_URL, KAFKA_…)",
        description="Set the offsets from which KAFKA_GROUP consumes a topic. Stored rows stay, duplicates are "
        "skipped, records below the offsets are not stored. A running consumer is fenced at its next commit: restart "
        "it.",
    )
    reset.add_argument("--topic", required=True, help="one of the MARKET_…_TOPIC ones")
    reset.add_argument("--partition", type=int, help="only this one")
    reset.add_argument(
        "--to",
        required=True,
        metavar="earliest|latest|OFFSET",
        help="earliest: the log start offset; latest: the log end offset; or an offset in the partition's log",
    )


def _days(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 100_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of days of at least 1")
