"""PostgreSQL as the database of sessions: real, behind a proxy that injects the plan's faults.

Its time is the machine's and its transactions are real, but only one thread of a session runs at a time, so they
conflict where the plan switches threads: waiting for another process's lock is short, since that process
cannot continue meanwhile.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from marketfeed_consumers.database import connections as consumer_database
from marketfeed_consumers.database import schema
from marketfeed_consumers.database.dialects import Dialect
from marketfeed_devtools.pgproxy import Fault, Proxy
from marketfeed_simtest.consumers.database import Database, MakeDatabase
from marketfeed_simtest.consumers.faults import Statement
from marketfeed_simtest.consumers.store import KEYS, REFUSED_QTY, Changes, Key, Row
from marketfeed_simtest.postgres_server import Postgres, running

_FAULTS: Final = {
    "refused": Fault.REFUSED,
    "done_but_error": Fault.DONE_BUT_ERROR,
    "cut_before": Fault.CUT_BEFORE,
    "cut_after": Fault.CUT_AFTER,
}
_LOCK_MILLISECONDS: Final = 20
_OLDEST: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xmin"
"""Rows committed after this snapshot have an xmin that is no lower."""
_CHANGED: Final = "SELECT * FROM {} WHERE xmin::text::bigint >= %s"


class PostgresDatabase(Database):
    """A database on a server, and the proxy in front of it."""

    def __init__(self, server: Postgres, url: str, report: Callable[[Changes], None]) -> None:
        self._report = report
        self._is_up = True
        self._held: dict[str, dict[Key, Row]] = {name: {} for name in KEYS}
        self._proxy = Proxy(f"{server.folder}/.s.PGSQL.5432")
        host, port = self._proxy.address
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        self._url = f"postgresql://postgres@{host}:{port}/{name}?sslmode=disable&gssencmode=disable"
        self._since = 0
        self._open: list[Any] = []
        self._reading: psycopg.Connection[Row] = psycopg.connect(url, row_factory=dict_row)
        self._reading.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    @property
    def is_up(self) -> bool:
        """Return whether it accepts connections."""
        return self._is_up

    def connect(self) -> tuple[Any, Dialect]:
        """See `database.connect`."""
        if not self._is_up:
            raise psycopg.OperationalError("connection refused")
        connection, dialect = consumer_database.connect(self._url)
        self._open.append(connection)
        return connection, dialect

    def cut(self, connection: Any) -> None:
        """See `database.cut`."""
        consumer_database.cut(connection)

    def strike(self, fault: Statement) -> None:
        """Inject failures of statements."""
        for _ in range(fault.count):
            self._proxy.plan(fault.statement, _FAULTS[fault.how], fault.sqlstate)

    def calm(self) -> None:
        """Remove all injected failures."""
        self._proxy.forget()

    def shut(self) -> None:
        """Reject connections, and close open ones."""
        self._is_up = False
        for connection in self._open:
            if not connection.closed:
                consumer_database.cut(connection)
        self._open.clear()

    def open_again(self) -> None:
        """Take connections."""
        self._is_up = True

    def look(self) -> None:
        """Report the changes since the last call."""
        changes: Changes = {}
        with self._reading.transaction():
            with self._reading.pipeline():
                oldest = self._reading.execute(_OLDEST)
                found = {table: self._ask(_CHANGED, table) for table in KEYS}
                counts = {table: self._ask("SELECT count(*) FROM {}", table) for table in KEYS}
            for table, held in self._held.items():
                rows = {tuple(row[name] for name in KEYS[table]): row for row in found[table]}
                changes |= {(table, key): row for key, row in rows.items() if held.get(key) != row}
                held |= rows
                (count,) = counts[table]
                if count["count"] != len(held):
                    query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
                    left = {tuple(r[name] for name in KEYS[table]) for r in self._reading.execute(query)}
                    for key in held.keys() - left:
                        changes[table, key] = None
                        del held[key]
            (self._since,) = (int(row["xmin"]) for row in oldest)
        if changes:
            self._report(changes)

    def _ask(self, query: LiteralString, table: str) -> "psycopg.Cursor[Row]":
        return self._reading.execute(
            sql.SQL(query).format(sql.Identifier(table)), [self._since] if "%s" in query else None
        )

    def close(self) -> None:
        """Release the session's resources."""
        self._reading.close()
        for connection in self._open:
            connection.close()
        self._proxy.close()


@contextmanager
def databases() -> Iterator[MakeDatabase]:
    """Start a server, and yield a function that creates a database for each session and drops the previous one."""
    with running() as server:
        url = server.new_database()
        schema.migrate(url, 30)
        with psycopg.connect(url, autocommit=True) as connection:
            name = sql.Identifier(connection.info.dbname)
            lock_timeout = sql.SQL("ALTER DATABASE {} SET lock_timeout = {}")
            connection.execute(lock_timeout.format(name, f"{_LOCK_MILLISECONDS}ms"))
            check = sql.SQL("ALTER TABLE trades ADD CONSTRAINT plausible_size CHECK (qty <> {})")
            connection.execute(check.format(REFUSED_QTY))
        before: list[PostgresDatabase] = []

        def make(report: Callable[[Changes], None]) -> Database:
            if before:
                before.pop().close()
            with psycopg.connect(url, autocommit=True) as connection:
                for table in KEYS:
                    connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))
            made = PostgresDatabase(server, url, report)
            before.append(made)
            return made

        try:
            yield make
        finally:
            for one in before:
                one.close()
