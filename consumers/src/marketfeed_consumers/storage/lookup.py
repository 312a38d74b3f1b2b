"""Lookup of messages that may already be stored, and comparison of duplicates, within a batch's transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple

from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.tables import book_tickers, trades
from marketfeed_consumers.planning.conflicts import Conflict
from marketfeed_consumers.planning.rows import M, Rows
from marketfeed_consumers.planning.stored_ranges import Key
from marketfeed_wire import BookTicker, Trade, same_quote, same_trade


@dataclass(slots=True)
class LookupResult(Generic[M]):
    """The result of looking up a table's unverified messages and possible duplicates.

    Attributes:
        new: by symbol, the unverified messages that are not stored.
    """

    new: dict[Key, list[M]] = field(default_factory=dict)
    duplicates: int = 0
    conflicts: list[Conflict[M]] = field(default_factory=list)
    unverifiable: int = 0


class Lookup(NamedTuple, Generic[M]):
    """Query and functions to look up and compare the messages of a table."""

    query: str
    id_of: Callable[[M], int]
    stored: Callable[[Key, Sequence[Any]], M]
    same: Callable[[M, M], bool]


TRADES: Final = Lookup[Trade](trades.STORED, lambda t: t.trade_id, trades.stored, same_trade)
QUOTES: Final = Lookup[BookTicker](
    book_tickers.STORED, lambda q: q.update_id, book_tickers.stored, same_quote
)


def look_up(connection: DatabaseConnection, how: Lookup[M], rows: Rows[M]) -> LookupResult[M]:
    """Look up the unverified messages and possible duplicates of each symbol, and compare them.

    Args:
        connection: the database, in the batch's transaction.
        how: the table's lookup.
        rows: the messages of the batch for the table.
    """
    found = LookupResult[M]()
    keys: list[Key] = list({**rows.unverified, **rows.possible_duplicates})
    if not keys:
        return found
    id_of = how.id_of
    questions = [_parameters(how, rows, key) for key in keys]
    with connection.pipeline():
        cursors = [connection.execute(how.query, question) for question in questions]
    for key, cursor in zip(keys, cursors, strict=True):
        stored = {row[0]: how.stored(key, row) for row in cursor}
        if key in rows.unverified:
            found.new[key] = [one for one in rows.unverified[key] if id_of(one) not in stored]
            _compare(found, how, (one for one in rows.unverified[key] if id_of(one) in stored), stored)
        # A possible duplicate may also be one of a message that this transaction inserts.
        _compare(
            found,
            how,
            rows.possible_duplicates.get(key, ()),
            {**{id_of(one): one for one in found.new.get(key, ())}, **stored},
        )
    return found


def _parameters(how: Lookup[M], rows: Rows[M], key: Key) -> list[object]:
    """Return the parameters of the query for one symbol."""
    ids = [how.id_of(one) for one in rows.unverified.get(key, ())]
    ids += [how.id_of(one) for one in rows.possible_duplicates.get(key, ())]
    return [*key, ids]


def _compare(found: LookupResult[M], how: Lookup[M], messages: Iterable[M], stored: Mapping[int, M]) -> None:
    for one in messages:
        held = stored.get(how.id_of(one))
        if held is None:
            found.unverifiable += 1
        elif how.same(held, one):
            found.duplicates += 1
        else:
            found.conflicts.append(Conflict(one, held))
