"""The transaction of a batch, SERIALIZABLE.

In this order, so that a fenced consumer fails before it writes anything:

1. the next offset of each partition, compared and set under the ownership epoch;
2. lookup of unverified messages and possible duplicates;
3. the high-water mark of each symbol, compared and set by its version;
4. rows, by COPY;
5. candles and top of book, from the new rows;
6. missing ranges opened and closed, and gap records;
7. dead letters, and conflicts;
8. COMMIT: all of it becomes visible at once.

No retries here; see writer.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.tables import (
    book_tickers,
    candles_1m,
    consumer_offsets,
    dead_letters,
    high_water_marks,
    missing_trades,
    quote_conflicts,
    top_of_book,
    trade_conflicts,
    trade_gaps,
    trades,
)
from marketfeed_consumers.errors import StaleRanges
from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.planning.candles import Candle, candles
from marketfeed_consumers.planning.conflicts import Conflict
from marketfeed_consumers.planning.plan import Plan, RangesKey
from marketfeed_consumers.planning.rows import M, Rows
from marketfeed_consumers.planning.stored_ranges import Key, MissingRange
from marketfeed_consumers.storage.lookup import QUOTES, TRADES, LookupResult, look_up
from marketfeed_wire import BookTicker, Gap, Trade

FAILPOINTS: Final = (
    "begun", "offsets set", "looked up", "high-water marks set", "rows copied", "derived",
    "dead letters", "committing", "committed",
)  # fmt: skip
"""Failpoints between two steps; tests kill the process at each of them."""

_COPY_PIECE_BYTES: Final = 64 * 1024
"""Size of the pieces passed to COPY: large enough to amortise the call, small enough for the server to start early."""


class OffsetConflict(Exception):
    """The stored offset or epoch of a partition differs: another consumer owns it, or the plan is committed already."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of the leases under which a transaction writes.

    Attributes:
        epochs: partition -> ownership epoch of the lease (the fencing token).
        topic_ids: topic -> topic id, "" if the broker has none.
    """

    group: str
    epochs: Mapping[Partition, int]
    topic_ids: Mapping[str, str]


@dataclass(slots=True)
class Written:
    """The result of a transaction: table -> inserted rows, and table -> messages that were not inserted.

    Attributes:
        duplicates: already stored with the same content.
        conflicts: already stored with another content.
        unverifiable: duplicates of expired rows, which cannot be compared.
        expired: late messages older than the retention limit.
    """

    inserted: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    conflicts: list[Conflict[Trade] | Conflict[BookTicker]] = field(default_factory=list)
    unverifiable: dict[str, int] = field(default_factory=dict)
    expired: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """A committed plan.

    Attributes:
        committed_time_us: time of the response to COMMIT.
        seconds: duration, retries included.
    """

    written: Written
    committed_time_us: int
    seconds: float


def write(
    connection: DatabaseConnection,
    plan: Plan,
    owner: Owner,
    now_us: int,
    at: Callable[[str], None] = lambda _: None,
) -> Written:
    """Execute `plan` up to, but not including, COMMIT.

    Args:
        connection: the connection; begins a transaction.
        plan: the content.
        owner: the owner of the leases.
        now_us: time of the transaction, for the rows.
        at: failpoint, called with each of FAILPOINTS.

    Raises:
        OffsetConflict, StaleRanges: compare-and-set failed; the transaction must be rolled back.
        psycopg.Error: a statement failed.
    """
    at("begun")
    advance(connection, plan, owner, now_us)
    at("offsets set")
    trades_found = look_up(connection, TRADES, plan.trades)
    quotes_found = look_up(connection, QUOTES, plan.quotes)
    looked_up, new_quotes = trades_found.new, quotes_found.new
    at("looked up")
    _set_high_water_marks(connection, plan, looked_up, new_quotes)
    at("high-water marks set")
    written = Written()
    _copy(connection, trades.COPY, [*plan.trades.copy_text, *_texts(trades.copy_text, looked_up)])
    _copy(
        connection, book_tickers.COPY, [*plan.quotes.copy_text, *_texts(book_tickers.copy_text, new_quotes)]
    )
    _count(written, trades.NAME, plan.trades, trades_found)
    _count(written, book_tickers.NAME, plan.quotes, quotes_found)
    at("rows copied")
    _merge_candles(
        connection,
        [*plan.candles, *(one for key, new in looked_up.items() if new for one in candles(key, new))],
    )
    _merge_tops(connection, plan.tops)
    _record_missing(connection, plan.opened, plan.closed, now_us)
    _record_gaps(connection, plan.gaps, written)
    at("derived")
    _add_dead_letters(connection, plan, owner, now_us)
    _add_conflicts(connection, written, now_us)
    at("dead letters")
    return written


def advance(connection: DatabaseConnection, plan: Plan, owner: Owner, now_us: int) -> None:
    """Advance each partition's next offset by compare-and-set of the expected offset and the ownership epoch.

    Raises:
        OffsetConflict: the stored offset or epoch of a partition differs.
    """
    rows = [(*step, owner.epochs[step.topic, step.partition]) for step in plan.offset_advances]
    moved = connection.execute(consumer_offsets.ADVANCE, [owner.group, now_us, *_columns(rows)]).fetchall()
    if len(moved) != len(rows) or ("",) in moved:
        raise OffsetConflict


def _set_high_water_marks(
    connection: DatabaseConnection,
    plan: Plan,
    trades_found: Mapping[Key, Sequence[Trade]],
    quotes_found: Mapping[Key, Sequence[BookTicker]],
) -> None:
    def added(key: RangesKey) -> int:
        symbol = key[1:]
        if key[0] == trades.NAME:
            return len(plan.trades.new.get(symbol, ())) + len(trades_found.get(symbol, ()))
        return len(plan.quotes.new.get(symbol, ())) + len(quotes_found.get(symbol, ()))

    rows = [
        (
            *key,
            after.version,
            after.first_id,
            after.last_id,
            after.first_time_us,
            after.last_time_us,
            added(key),
        )
        for key, (_, after) in plan.ranges.items()
    ]
    if rows and connection.execute(high_water_marks.SET, _columns(rows)).rowcount != len(rows):
        raise StaleRanges


def _texts(copy_text: Callable[[Key, Any], str], found: Mapping[Key, Sequence[Any]]) -> list[bytes]:
    return [copy_text(key, new).encode() for key, new in found.items() if new]


def _copy(connection: DatabaseConnection, query: str, pieces: Sequence[bytes]) -> None:
    if not pieces:
        return
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for piece in _joined(pieces):
            copy.write(piece)


def _joined(pieces: Sequence[bytes]) -> list[bytes]:
    """Return the same bytes in pieces for COPY."""
    whole = b"".join(pieces)
    return [whole[start : start + _COPY_PIECE_BYTES] for start in range(0, len(whole), _COPY_PIECE_BYTES)]


def _count(written: Written, table: str, rows: Rows[M], found: LookupResult[M]) -> None:
    late = sum(map(len, found.new.values()))
    written.inserted[table] = sum(map(len, rows.new.values())) + late
    written.duplicates[table] = rows.duplicates + found.duplicates
    written.conflicts += rows.conflicts
    written.conflicts += found.conflicts
    written.unverifiable[table] = rows.unverifiable + found.unverifiable
    written.expired[table] = rows.expired


def _merge_candles(connection: DatabaseConnection, made: Sequence[Candle]) -> None:
    if made:
        connection.execute(candles_1m.MERGE, _columns(made))


def _merge_tops(connection: DatabaseConnection, quotes: Sequence[BookTicker]) -> None:
    if quotes:
        rows = [tuple(getattr(quote, name) for name in top_of_book.COLUMNS) for quote in quotes]
        connection.execute(top_of_book.MERGE, _columns(rows))


def _record_missing(
    connection: DatabaseConnection,
    opened: Sequence[tuple[Key, MissingRange]],
    closed: Sequence[tuple[Key, MissingRange]],
    now_us: int,
) -> None:
    # Deleted first: the remainder of a split range may have the same first id.
    if closed:
        rows = [(*key, span.first_id) for key, span in closed]
        connection.execute(missing_trades.CLOSE, _columns(rows))
    if opened:
        spans = [(*key, *span) for key, span in opened]
        connection.execute(missing_trades.OPEN, [now_us, *_columns(spans)])


def _record_gaps(connection: DatabaseConnection, gaps: Sequence[Gap], written: Written) -> None:
    if gaps:
        cursor = connection.cursor()
        cursor.executemany(trade_gaps.MERGE, [trade_gaps.parameters(gap) for gap in gaps])
        written.inserted[trade_gaps.NAME] = max(0, cursor.rowcount)


def _add_dead_letters(connection: DatabaseConnection, plan: Plan, owner: Owner, now_us: int) -> None:
    if plan.dead_letters:
        rows = [
            (
                d.topic,
                owner.topic_ids[d.topic],
                d.partition,
                d.kafka_offset,
                d.message_key,
                d.value,
                d.reason,
                now_us,
                *(d.trade if d.trade and _has_encodable_names(connection, d.trade) else [None] * 4),
            )
            for d in plan.dead_letters
        ]
        connection.cursor().executemany(dead_letters.ADD, rows)


def _add_conflicts(connection: DatabaseConnection, written: Written, now_us: int) -> None:
    of_trades: list[list[object]] = []
    of_quotes: list[list[object]] = []
    for received, stored in written.conflicts:
        if isinstance(received, Trade) and isinstance(stored, Trade):
            of_trades.append(trade_conflicts.parameters(received, stored, now_us))
        elif isinstance(received, BookTicker) and isinstance(stored, BookTicker):
            of_quotes.append(quote_conflicts.parameters(received, stored, now_us))
    if of_trades:
        connection.cursor().executemany(trade_conflicts.ADD, of_trades)
    if of_quotes:
        connection.cursor().executemany(quote_conflicts.ADD, of_quotes)


def _has_encodable_names(connection: DatabaseConnection, trade: tuple[str, str, int, int]) -> bool:
    """Return whether the database can encode a trade's names; if not, that may be why it was rejected."""
    encoding = connection.info.parameter_status("server_encoding")
    return encoding == "UTF8" or (trade[0].isascii() and trade[1].isascii())


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return rows as one list per column, for unnest."""
    return [list(column) for column in zip(*rows, strict=True)]
