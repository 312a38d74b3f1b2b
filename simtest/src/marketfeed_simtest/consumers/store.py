"""A small database behind the consumer's connection: atomic transactions, and every way in which one can fail.

It has no SQL: `statements.py` implements each statement of the consumer. A transaction works on a
snapshot; one that read or wrote rows that another has committed since ends in a serialization failure, as does one that
would have to wait for another's row. That is stricter than PostgreSQL, so transactions are retried more often here.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from marketfeed_consumers.database.dialects import POSTGRESQL, Dialect
from marketfeed_simtest.consumers.faults import Strikes

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = dict[str, Any]
Changes: TypeAlias = dict[tuple[str, Key], Row | None]

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "trades": ("venue", "symbol", "id_series", "trade_id"),
    "book_tickers": ("venue", "symbol", "id_series", "update_id"),
    "candles_1m": ("venue", "symbol", "id_series", "open_time_us"),
    "top_of_book": ("venue", "symbol"),
    "high_water_marks": ("table_name", "venue", "symbol", "id_series"),
    "missing_trades": ("venue", "symbol", "id_series", "first_trade_id"),
    "trade_gaps": ("venue", "symbol", "id_series", "first_id"),
    "dead_letters": ("topic", "topic_id", "partition", "kafka_offset", "content_hash"),
    "consumer_offsets": ("consumer_group", "topic", "partition"),
    "retention_state": ("table_name", "venue", "symbol", "id_series"),
    "trade_conflicts": (
        *("venue", "symbol", "id_series", "trade_id"), "trade_time_us", "price", "qty", "buyer_is_maker",
    ),
    "quote_conflicts": (
        *("venue", "symbol", "id_series", "update_id"), "bid_price", "bid_qty", "ask_price", "ask_qty",
    ),
}  # fmt: skip
"""Table -> the columns of its key."""


def _scope(table: str, key: Key) -> tuple[str, Key]:
    """Unit of conflict detection between two transactions."""
    return table, key[:3] if table not in ("high_water_marks", "retention_state") else key[:4]


class Store:
    """The tables.

    Attributes:
        on_commit: called with the changes of each transaction: None is a deleted row.
        is_up: whether it accepts connections.
    """

    def __init__(self, strikes: Strikes) -> None:
        self.tables: dict[str, dict[Key, Row]] = {name: {} for name in KEYS}
        self.on_commit: list[Callable[[Changes], None]] = []
        self.strikes = strikes
        self.is_up = True
        self.open: list[Connection] = []
        self.commits = 0
        self._versions: dict[tuple[str, Key], int] = {}

    def connect(self, _url: str = "") -> tuple["Connection", Dialect]:
        """See `database.connect`."""
        if not self.is_up:
            raise psycopg.OperationalError("connection refused")
        connection = Connection(self)
        self.open.append(connection)
        return connection, POSTGRESQL

    def shut(self) -> None:
        """Reject connections, and close open ones."""
        self.is_up = False
        for connection in list(self.open):
            connection.break_off()

    def apply(self, changes: Changes) -> None:
        """Commit."""
        self.commits += 1
        for (table, key), row in changes.items():
            self._versions[_scope(table, key)] = self.commits
            if row is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = row
        for call in self.on_commit:
            call(changes)

    def changed_since(self, scopes: Iterable[tuple[str, Key]], commit: int) -> bool:
        """Return whether a change in `scopes` was committed after `commit`."""
        return any(self._versions.get(one, 0) > commit for one in scopes)


class Transaction:
    """One transaction's view of the rows."""

    def __init__(self, store: Store) -> None:
        self.changes: Changes = {}
        self.seen: set[tuple[str, Key]] = set()
        self.begun = 0
        self._store = store
        self._tables: dict[str, dict[Key, Row]] = {}
        self.look()

    def look(self) -> None:
        """Take a new snapshot."""
        self.begun = self._store.commits
        self._tables = {name: dict(rows) for name, rows in self._store.tables.items()}
        for (table, key), row in self.changes.items():
            self._put(table, key, row)

    def get(self, table: str, *key: Any) -> Row | None:
        """A row."""
        self.seen.add(_scope(table, key))
        return self._tables[table].get(key)

    def rows(self, table: str, **where: Any) -> list[Row]:
        """Return the rows with these values, by their key."""
        found = [
            (key, row)
            for key, row in self._tables[table].items()
            if all(row[name] == value for name, value in where.items())
        ]
        self.seen.update(_scope(table, key) for key, _ in found)
        if set(where) >= set(KEYS[table][:3]):
            self.seen.add(_scope(table, tuple(where[name] for name in KEYS[table] if name in where)))
        return [row for _, row in sorted(found, key=lambda one: one[0])]

    def put(self, table: str, row: Row, *, is_new: bool = False) -> None:
        """Write a row.

        Raises:
            psycopg.Error: its key exists, the content is rejected, or another transaction holds it.
        """
        key = tuple(row[name] for name in KEYS[table])
        if is_new and key in self._tables[table]:
            raise errors.UniqueViolation(f"{table}: {key}")
        if table == "trades" and row["qty"] == REFUSED_QTY:
            raise errors.CheckViolation("trades_are_of_a_plausible_size")
        self._write(table, key, row)

    def delete(self, table: str, row: Row) -> None:
        """Delete a row."""
        self._write(table, tuple(row[name] for name in KEYS[table]), None)

    def _write(self, table: str, key: Key, row: Row | None) -> None:
        others = (one.transaction for one in self._store.open if one.transaction not in (None, self))
        if any((table, key) in other.changes for other in others if other) or self._is_outdated(table, key):
            raise errors.SerializationFailure("could not serialize access due to concurrent update")
        self.changes[table, key] = row
        self._put(table, key, row)

    def _is_outdated(self, table: str, key: Key) -> bool:
        if (table, key) in self.changes:
            return False
        return self._store.tables[table].get(key) is not self._tables[table].get(key)

    def _put(self, table: str, key: Key, row: Row | None) -> None:
        if row is None:
            self._tables[table].pop(key, None)
        else:
            self._tables[table][key] = row


REFUSED_QTY: Final = 666
"""Quantity of trades that a constraint of the database rejects; represents every rejected content."""


class Connection:
    """Model of the consumer's `psycopg.Connection`."""

    def __init__(self, store: Store) -> None:
        self.isolation_level: Any = psycopg.IsolationLevel.SERIALIZABLE
        self.read_only = False
        self.autocommit = False
        self.closed = False
        self.transaction: Transaction | None = None
        self.info = SimpleNamespace(parameter_status=lambda _: "UTF8")
        self.pgconn = SimpleNamespace(transaction_status=TransactionStatus.IDLE)
        self._store = store
        self._failed = False

    def execute(self, query: Any, parameters: Any = None) -> "Cursor":
        """See `psycopg.Connection.execute`."""
        cursor = Cursor(self)
        cursor.run(query, parameters)
        return cursor

    def cursor(self) -> "Cursor":
        """See `psycopg.Connection.cursor`."""
        return Cursor(self)

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """See `psycopg.Connection.pipeline`."""
        yield

    def begun(self, text: str) -> Transaction:
        """Return the transaction of a statement, after its injected faults."""
        self._alive()
        if self._failed:
            raise errors.InFailedSqlTransaction("current transaction is aborted")
        if self.transaction is None:
            self.transaction = Transaction(self._store)
        elif self.isolation_level == psycopg.IsolationLevel.READ_COMMITTED:
            self.transaction.look()
        strike = self._store.strikes.strike(text)
        if strike is not None:
            self.fail(strike.cuts, strike.sqlstate)
        return self.transaction

    def fail(self, cuts: bool, sqlstate: str) -> None:
        """End a statement, or the connection, with an error."""
        if cuts:
            self.break_off()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        self._failed = True
        raise errors.lookup(sqlstate)("made by the store")

    def spoiled(self) -> None:
        """Mark the transaction as failed."""
        self._failed = True

    def commit(self) -> None:
        """See `psycopg.Connection.commit`."""
        self._alive()
        if self.transaction is None:
            return
        strike = self._store.strikes.strike("COMMIT")
        if strike is not None and not strike.is_done:
            self._end()
            self.fail(strike.cuts, strike.sqlstate)
        transaction, failed = self.transaction, self._failed
        self._end()
        if not failed and transaction.changes:
            self._check(transaction)
            self._store.apply(transaction.changes)
        if strike is not None:
            self.fail(strike.cuts, strike.sqlstate)

    def _check(self, transaction: Transaction) -> None:
        serializable = self.isolation_level == psycopg.IsolationLevel.SERIALIZABLE
        if serializable and self._store.changed_since(transaction.seen, transaction.begun):
            raise errors.SerializationFailure("could not serialize access due to read/write dependencies")

    def rollback(self) -> None:
        """See `psycopg.Connection.rollback`."""
        self._alive()
        self._end()

    def close(self) -> None:
        """See `psycopg.Connection.close`."""
        self._end()
        self.closed = True
        if self in self._store.open:
            self._store.open.remove(self)

    break_off = close

    def _end(self) -> None:
        self.transaction, self._failed = None, False

    def _alive(self) -> None:
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if not self.closed:
            if kind is None:
                self.commit()
            self.close()


class Cursor:
    """Model of `psycopg.Cursor`."""

    def __init__(self, connection: Connection) -> None:
        self.rowcount = -1
        self._connection = connection
        self._found: deque[Sequence[Any]] = deque()
        self._copied: list[bytes] = []
        self._query = ""

    def run(self, query: Any, parameters: Any) -> None:
        """Run a statement."""
        from marketfeed_simtest.consumers.statements import run

        text = query.as_string(None) if isinstance(query, sql.Composable) else str(query)
        transaction = self._connection.begun(text.lstrip())
        try:
            found = run(transaction, text, parameters)
        except psycopg.Error:
            self._connection.spoiled()
            raise
        if isinstance(found, int):
            self.rowcount = found
        else:
            self._found = deque(copy.copy(found))
            self.rowcount = len(found)

    def executemany(self, query: Any, parameters: Sequence[Any]) -> None:
        """See `psycopg.Cursor.executemany`."""
        count = 0
        for one in parameters:
            self.run(query, one)
            count += max(0, self.rowcount)
        self.rowcount = count

    @contextmanager
    def copy(self, query: str) -> Iterator["Cursor"]:
        """See `psycopg.Cursor.copy`."""
        self._query, self._copied = query, []
        yield self
        self.run(self._query, b"".join(self._copied))

    def write(self, piece: bytes) -> None:
        """See `psycopg.Copy.write`."""
        self._copied.append(piece)

    def fetchone(self) -> Sequence[Any] | None:
        """See `psycopg.Cursor.fetchone`."""
        return self._found.popleft() if self._found else None

    def fetchall(self) -> list[Sequence[Any]]:
        """See `psycopg.Cursor.fetchall`."""
        found, self._found = list(self._found), deque()
        return found

    def __iter__(self) -> Iterator[Sequence[Any]]:
        while self._found:
            yield self._found.popleft()

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        return None
