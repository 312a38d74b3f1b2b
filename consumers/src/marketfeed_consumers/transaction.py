"""One batch, one SERIALIZABLE transaction.

In this order, so that who has no right to write finds out before anything is written:

1. the next offset of each partition, compared and set under our ownership epoch;
2. look-up of what may be stored already;
3. the high-water mark of each symbol, compared and set by its version;
4. rows, by COPY;
5. candles and top of book, from the rows that are new;
6. missing ranges opened and closed, and what workers say of gaps;
7. dead letters;
8. COMMIT. Either all of it is visible or nothing.

Nothing here tries again; writer.py does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import psycopg

from marketfeed_consumers.candles import Candle, candles
from marketfeed_consumers.decode import Partition
from marketfeed_consumers.errors import StaleKnowledge
from marketfeed_consumers.knowledge import Key, Missing
from marketfeed_consumers.plan import MarkKey, Plan, Rows
from marketfeed_consumers.tables import (
    book_tickers,
    candles_1m,
    consumer_offsets,
    dead_letters,
    high_water_marks,
    missing_trades,
    top_of_book,
    trade_gaps,
    trades,
)
from marketfeed_wire import BookTicker, Gap, Trade

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

POINTS: Final = (
    "begun",
    "offsets set",
    "looked up",
    "marks set",
    "rows copied",
    "derived",
    "dead letters",
    "committing",
    "committed",
)
"""The names of the places between two steps; tests end the process at each of them."""

_COPY_PIECE_BYTES: Final = 64 * 1024
"""How much is handed to COPY at once: enough to make the call cheap, little enough for the server to begin."""


class OffsetsMoved(Exception):
    """A partition does not stand where the plan goes on from: it is another's now, or the plan is stored."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Under whose name a transaction writes.

    Attributes:
        epochs: partition -> the ownership epoch that the claim gave.
        topic_ids: topic -> its id, "" where the broker does not tell.
    """

    group: str
    epochs: Mapping[Partition, int]
    topic_ids: Mapping[str, str]


@dataclass(slots=True)
class Written:
    """What a transaction added: table -> rows; and messages that were stored already: table -> count."""

    inserted: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)


def write(
    connection: Connection,
    plan: Plan,
    owner: Owner,
    now_us: int,
    at: Callable[[str], None] = lambda _: None,
) -> Written:
    """Do all of `plan` up to, but not including, COMMIT.

    Raises:
        OffsetsMoved, StaleKnowledge: compare-and-set failed; the transaction must be rolled back.
        psycopg.Error: what the database says.
    """
    at("begun")
    advance(connection, plan, owner, now_us)
    at("offsets set")
    looked_up = _look_up(connection, trades.STORED, plan.trades.doubtful, lambda t: t.trade_id)
    quotes_found = _look_up(connection, book_tickers.STORED, plan.quotes.doubtful, lambda q: q.update_id)
    at("looked up")
    _set_marks(connection, plan, looked_up, quotes_found)
    at("marks set")
    written = Written()
    _copy(connection, trades.COPY, [*plan.trades.copy_text, *_texts(trades.copy_text, looked_up)])
    _copy(
        connection, book_tickers.COPY, [*plan.quotes.copy_text, *_texts(book_tickers.copy_text, quotes_found)]
    )
    _count(written, trades.NAME, plan.trades, looked_up)
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
    at("dead letters")
    return written


def advance(connection: Connection, plan: Plan, owner: Owner, now_us: int) -> None:
    """Set each partition's next offset, if it stands where the plan goes on from and is ours.

    Raises:
        OffsetsMoved: one is not.
    """
    rows = [(*step, owner.epochs[step.topic, step.partition]) for step in plan.steps]
    moved = connection.execute(consumer_offsets.ADVANCE, [owner.group, now_us, *_columns(rows)]).fetchall()
    if len(moved) != len(rows) or ("",) in moved:
        raise OffsetsMoved


def _look_up(
    connection: Connection, query: str, doubtful: Mapping[Key, Sequence[Any]], id_of: Callable[[Any], int]
) -> dict[Key, list[Any]]:
    """Of each symbol's doubtful messages those that are not stored."""
    if not doubtful:
        return {}
    with connection.pipeline():
        cursors = [
            (key, messages, connection.execute(query, [*key, [id_of(one) for one in messages]]))
            for key, messages in doubtful.items()
        ]
    new = {}
    for key, messages, cursor in cursors:
        stored = {row[0] for row in cursor}
        new[key] = [one for one in messages if id_of(one) not in stored]
    return new


def _set_marks(
    connection: Connection,
    plan: Plan,
    trades_found: Mapping[Key, Sequence[Trade]],
    quotes_found: Mapping[Key, Sequence[BookTicker]],
) -> None:
    def added(key: MarkKey) -> int:
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
        for key, (_, after) in plan.marks.items()
    ]
    if rows and connection.execute(high_water_marks.SET, _columns(rows)).rowcount != len(rows):
        raise StaleKnowledge


def _texts(copy_text: Callable[[Key, Any], str], found: Mapping[Key, Sequence[Any]]) -> list[bytes]:
    return [copy_text(key, new).encode() for key, new in found.items() if new]


def _copy(connection: Connection, query: str, pieces: Sequence[bytes]) -> None:
    if not pieces:
        return
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for piece in _joined(pieces):
            copy.write(piece)


def _joined(pieces: Sequence[bytes]) -> list[bytes]:
    """The same bytes in pieces of a good size for COPY."""
    whole = b"".join(pieces)
    return [whole[start : start + _COPY_PIECE_BYTES] for start in range(0, len(whole), _COPY_PIECE_BYTES)]


def _count(written: Written, table: str, rows: Rows[Any], found: Mapping[Key, Sequence[Any]]) -> None:
    doubtful = sum(map(len, rows.doubtful.values()))
    late = sum(map(len, found.values()))
    written.inserted[table] = sum(map(len, rows.new.values())) + late
    written.duplicates[table] = rows.duplicates + doubtful - late


def _merge_candles(connection: Connection, made: Sequence[Candle]) -> None:
    if made:
        connection.execute(candles_1m.MERGE, _columns(made))


def _merge_tops(connection: Connection, quotes: Sequence[BookTicker]) -> None:
    if quotes:
        rows = [tuple(getattr(quote, name) for name in top_of_book.COLUMNS) for quote in quotes]
        connection.execute(top_of_book.MERGE, _columns(rows))


def _record_missing(
    connection: Connection,
    opened: Sequence[tuple[Key, Missing]],
    closed: Sequence[tuple[Key, Missing]],
    now_us: int,
) -> None:
    # Closed first: a range that is split leaves one that begins at the same id.
    if closed:
        rows = [(*key, span.first_id) for key, span in closed]
        connection.execute(missing_trades.CLOSE, _columns(rows))
    if opened:
        spans = [(*key, *span) for key, span in opened]
        connection.execute(missing_trades.OPEN, [now_us, *_columns(spans)])


def _record_gaps(connection: Connection, gaps: Sequence[Gap], written: Written) -> None:
    if gaps:
        cursor = connection.cursor()
        cursor.executemany(trade_gaps.MERGE, [trade_gaps.parameters(gap) for gap in gaps])
        written.inserted[trade_gaps.NAME] = max(0, cursor.rowcount)


def _add_dead_letters(connection: Connection, plan: Plan, owner: Owner, now_us: int) -> None:
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
            )
            for d in plan.dead_letters
        ]
        connection.cursor().executemany(dead_letters.ADD, rows)


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows as one list a column, which is what unnest takes."""
    return [list(column) for column in zip(*rows, strict=True)]
