"""The commands besides `run`: each reads its settings, does its work, says what it did."""

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from confluent_kafka.admin import AdminClient

from marketfeed_consumers.admin import offsets, rebuild, retention
from marketfeed_consumers.database import connections, schema
from marketfeed_consumers.database.tables import dead_letters
from marketfeed_consumers.settings import ConsumerSettings, DatabaseSettings
from marketfeed_consumers.storage.transaction import Connection
from marketfeed_service import logs, settings
from marketfeed_service.errors import SettingsError
from marketfeed_service.kafka import client_config

_DAY_US: Final = 86_400_000_000
_PRINT_SECONDS: Final = 2.0
_CLOCKS_DIFFER_US: Final = 60_000_000
IMPOSSIBLE_TIMES: Final = 3
"""Exit code of a run that did all it could, and has something for a person to look at."""
_RNG: Final = random.Random()  # noqa: S311 - jitter


def time_us(text: str) -> int:
    """Microseconds since the Unix epoch of an ISO 8601 date or time, UTC where it names no zone.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no ISO 8601 time such as 2026-01-31 or 2026-01-31T12:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def check_times(since_us: int | None, until_us: int | None) -> None:
    """See that there is time between --since and --until.

    Raises:
        SettingsError: there is none.
    """
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise SettingsError("--until must be a later time than --since")


def _database() -> DatabaseSettings:
    read = settings.read(DatabaseSettings, os.environ)
    logs.configure(read.log_level, read.log_format)
    return read


def migrate() -> int:
    """Bring the schema to this release's version."""
    read = _database()
    before, after = schema.migrate(read.database_url.get_secret_value(), read.start_deadline_seconds)
    if before == after:
        print(f"the schema is at version {after} already")
    else:
        print(f"the schema was at version {before or 'none'} and is at {after} now")
    return 0


def rebuild_table(arguments: argparse.Namespace) -> int:
    """Make a derived table anew from the rows."""
    check_times(arguments.since, arguments.until)
    read = _database()
    scope = rebuild.Scope(arguments.venue, arguments.symbol, arguments.since, arguments.until)
    make = rebuild.candles if arguments.table == "candles_1m" else rebuild.tops
    with connections.wait_for_database(read.database_url.get_secret_value(), read.start_deadline_seconds) as (
        connection,
        _,
    ):
        schema.check(connection)
        progress = ProgressPrinter(f"{arguments.table}: rows made anew")
        for done in make(connection, scope, connections.retry_conflicts(connection, _RNG)):
            progress.add(done.rows, f"{done.venue} {done.symbol}")
    progress.end()
    return 0


def retain(arguments: argparse.Namespace) -> int:
    """Delete what is older than it is to be kept; 3 when rows were kept because their times are impossible."""
    days = {table: getattr(arguments, f"{table}_days") for table in _RETAINED}
    if not any(value is not None for value in days.values()):
        raise SettingsError("name at least one of " + ", ".join(_option(table) for table in _RETAINED))
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
                "rows are judged by the one that deletes less",
                file=sys.stderr,
            )
        retry = connections.retry_conflicts(connection, _RNG)
        for table, kept in _with_conflicts(days):
            limit = clocks.limit(kept * _DAY_US)
            if dialect.name == "cockroachdb":
                connection.execute(retention.row_level_ttl(table, kept))
                connection.commit()
                retention.note_limit(connection, table, limit, retry)
                print(f"{table}: the database deletes rows older than {kept} days from now on")
            else:
                impossible += _delete(connection, table, limit, retry)
    for (table, venue, symbol), rows in sorted(impossible.items()):
        print(
            f"{table}: {rows:,} rows of {venue} {symbol} have a time that cannot be, and were kept: "
            "see docs/persistence.md, What is deleted",
            file=sys.stderr,
        )
    return IMPOSSIBLE_TIMES if impossible else 0


def _with_conflicts(days: Mapping[str, int | None]) -> Iterator[tuple[str, int]]:
    """Each table of which something is deleted, and for how many days its rows are kept."""
    for table, kept in days.items():
        if kept is not None:
            yield table, kept
            if table in retention.CONFLICTS:
                yield retention.CONFLICTS[table], kept


def _delete(
    connection: Connection, table: str, limit: retention.Limit, retry: connections.Retry
) -> "Counter[tuple[str, str, str]]":
    """Delete the old rows of `table`; (table, venue, symbol) -> rows that were kept for their impossible times."""
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
    """Set stored offsets anew."""
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
    """Says now and then how far long work is."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._rows = 0
        self._printed_at = time.monotonic()

    def add(self, rows: int, where: str) -> None:
        """Count `rows` more."""
        self._rows += rows
        if time.monotonic() - self._printed_at >= _PRINT_SECONDS:
            self._printed_at = time.monotonic()
            print(f"{self._what}: {self._rows:,} … {where}", flush=True)

    def end(self) -> None:
        """Say the sum."""
        print(f"{self._what}: {self._rows:,}", flush=True)


_RETAINED: Final = ("trades", "book_tickers", "candles_1m", "dead_letters")


def _option(table: str) -> str:
    return f"--{table.replace('_', '-')}-days"


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands' own options."""
    rebuilding = commands.add_parser("rebuild", help="make a derived table anew from the rows (DATABASE_URL)")
    rebuilding.add_argument("--table", required=True, choices=["candles_1m", "top_of_book"])
    rebuilding.add_argument("--since", type=time_us, help="only minutes from this time on, ISO 8601 in UTC")
    rebuilding.add_argument("--until", type=time_us, help="only minutes before this time")
    rebuilding.add_argument("--venue")
    rebuilding.add_argument("--symbol")
    keep = commands.add_parser(
        "retain",
        help="delete what is older than so many days (DATABASE_URL)",
        description="Delete rows that are older than so many days, each by its own time. Exit code 3: done, and rows "
        "were kept because their times cannot be (1970, or far ahead); they are named.",
    )
    for table in _RETAINED:
        keep.add_argument(_option(table), dest=f"{table}_days", type=_days, metavar="DAYS")
    reset = commands.add_parser(
        "reset-offsets",
        help="read a topic from another offset on (DATABASE_URL, KAFKA_…)",
        description="Set where KAFKA_GROUP goes on reading a topic. What is stored stays, what is read twice changes "
        "nothing; what is passed over is not stored. A consumer that runs ends at its next commit: start it again.",
    )
    reset.add_argument("--topic", required=True, help="one of the MARKET_…_TOPIC ones")
    reset.add_argument("--partition", type=int, help="only this one")
    reset.add_argument(
        "--to",
        required=True,
        metavar="earliest|latest|OFFSET",
        help="earliest: all that Kafka still has; latest: only what comes; or an offset that the partition has",
    )


def _days(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 100_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 1 on")
