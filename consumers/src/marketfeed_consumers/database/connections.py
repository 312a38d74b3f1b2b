"""The connection to the database, and the one place where its errors are judged.

Judged by SQLSTATE, never by text: https://www.postgresql.org/docs/current/errcodes-appendix.html, and for
CockroachDB https://www.cockroachlabs.com/docs/stable/common-errors (40001, 40003).
"""

import os
import random
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import errors as sql
from psycopg.generators import execute
from psycopg.pq import ExecStatus, TransactionStatus

from marketfeed_consumers.database.authentication import authentication_error
from marketfeed_consumers.database.dialects import Dialect, dialect_of
from marketfeed_consumers.storage.transaction import Connection
from marketfeed_service import logs
from marketfeed_service.backoff import delays
from marketfeed_service.errors import StartupError

log = logs.get(__name__)

T = TypeVar("T")
Retry: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Runs a transaction, again when it met another one: one that only reads can meet one too. See `retry_conflicts`."""
_OPTIONS: Final = {
    "application_name": "marketfeed-consumer",
    "connect_timeout": 10,
    # A server that is gone without a word (power, network) is noticed within half a minute, not after two hours.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""What libpq is told where the URL says nothing; times are seconds, the last one milliseconds."""


_NOT_AUTHORIZED: Final = "28"
"""The class of SQLSTATEs that says who we are is not who may connect."""


_HOT_STANDBY: Final = (
    "it is a hot standby, which takes no rows; name the primary, "
    "or several hosts and target_session_attrs=read-write"
)


class Remedy(Enum):
    """What to do about a database error."""

    RETRY = auto()
    """Roll back and run the whole transaction again, soon: it met another one (class 40)."""
    RECONNECT = auto()
    """The outcome is unknown (40003, connection lost): connect again and read the stored offsets."""
    WAIT = auto()
    """The server is in trouble or misconfigured: connect again with growing pauses, say why, lose nothing."""
    VERIFY_ROWS = auto()
    """A row that should be new is stored (unique key): look every row up."""
    QUARANTINE = auto()
    """The content is refused (classes 22, 23, and P0: a trigger's RAISE): find the message at fault."""
    SPLIT = auto()
    """A timeout of the server's has ended the transaction: less at once, then wait."""


def remedy(error: psycopg.Error) -> Remedy:
    """What to do about `error`."""
    state = error.sqlstate
    if isinstance(error, sql.UniqueViolation):
        return Remedy.VERIFY_ROWS
    if state == "40003" or (state is None and isinstance(error, psycopg.OperationalError)):
        return Remedy.RECONNECT
    if state is None:
        # psycopg refused the value before it was sent, or has a connection in a state it cannot use.
        return Remedy.QUARANTINE if isinstance(error, psycopg.DataError) else Remedy.RECONNECT
    return _BY_CODE.get(state) or _BY_CLASS.get(state[:2], Remedy.WAIT)


_BY_CODE = {
    "57014": Remedy.SPLIT,  # statement_timeout
    "25P03": Remedy.SPLIT,  # idle_in_transaction_session_timeout
    "25P04": Remedy.SPLIT,  # transaction_timeout
}
_BY_CLASS = {
    "40": Remedy.RETRY,
    "22": Remedy.QUARANTINE,
    "23": Remedy.QUARANTINE,
    "P0": Remedy.QUARANTINE,
    "08": Remedy.RECONNECT,
    "57": Remedy.RECONNECT,
}


def explain(error: psycopg.Error) -> str:
    """`error` in one line for a person: what the server said first, and its code."""
    text = (error.diag.message_primary or str(error)).strip().split("\n")[0]
    return f"{text} (SQLSTATE {error.sqlstate})" if error.sqlstate else text


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection each of whose transactions begins with our settings, in the same round trip as BEGIN.

    Nothing of it is left in the session: see `Dialect.transaction`. psycopg has no hook for it, so this replaces the
    method that begins its implicit transactions; test_consumer_pooler.py notices when psycopg goes another way.
    """

    settings = b""

    def _start_query(self) -> Generator[Any, Any, None]:
        if self.autocommit or self.pgconn.transaction_status != TransactionStatus.IDLE:
            return
        self._check_connection_ok()
        self.pgconn.send_query(self._get_tx_start_command() + self.settings)
        for result in (yield from execute(self.pgconn)):
            if result.status != ExecStatus.COMMAND_OK:
                raise sql.error_from_result(result)


def connect(url: str) -> tuple[Connection, Dialect]:
    """A connection whose transactions are SERIALIZABLE, and what it leads to.

    It prepares no statement: behind a pooler the next transaction may run in a session without it, or with another
    client's of the same name.

    Raises:
        psycopg.Error: it cannot be had.
    """
    connection = _Connection.connect(autocommit=True, prepare_threshold=None, **_options(url))
    try:
        row = connection.execute("SELECT version()").fetchone()
        dialect = dialect_of(str(row[0]) if row else "")
        connection.settings = "".join(f"; {statement}" for statement in dialect.transaction).encode()
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    except psycopg.Error:
        connection.close()
        raise
    return connection, dialect


def _options(url: str) -> dict[str, Any]:
    # Ours are the encoding that rows are copied in, and what else the URL does not say.
    return {**_OPTIONS, **psycopg.conninfo.conninfo_to_dict(url), "client_encoding": "UTF8"}


def set_read_only(connection: Connection) -> None:
    """Make the transactions of `connection`, which is in none, read only, each in one snapshot and in nobody's way.

    Under SERIALIZABLE a long reading could fail, and make writers fail for its sake; and a hot standby has no
    SERIALIZABLE at all (0A000: https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-CAVEATS).
    """
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ


def begin_read_only(connection: Connection, dialect: Dialect) -> None:
    """Begin a transaction as of `set_read_only`."""
    set_read_only(connection)
    if dialect.snapshot:
        connection.execute(dialect.snapshot)


def retry_conflicts(connection: Connection, rng: random.Random) -> Callable[[Callable[[], T]], T]:
    """A function that runs a transaction of `connection`, whole, until it meets no other one (class 40)."""

    def run(action: Callable[[], T]) -> T:
        for pause in delays(0.005, 0.5, rng):
            try:
                return action()
            except psycopg.Error as error:
                connection.rollback()
                if remedy(error) is not Remedy.RETRY:
                    raise
                time.sleep(pause)
        raise AssertionError("delays never end")

    return run


@contextmanager
def wait_for_database(
    url: str,
    deadline_seconds: float,
    stopping: Callable[[], bool] = lambda: False,
    *,
    only_reads: bool = False,
) -> Iterator[tuple[Connection, Dialect]]:
    """A connection for a command: waits for a database that is not up yet, and says so.

    Args:
        only_reads: a hot standby will do; otherwise it is waited for like one that is not up, as it may be promoted.

    Raises:
        StartupError: none within the deadline, or the server ends the work done on the connection with an error that
            nobody else has met.
    """
    connection, dialect = _wait_for_database(url, deadline_seconds, stopping, only_reads=only_reads)
    try:
        with connection:
            yield connection, dialect
    except psycopg.Error as error:
        raise StartupError(f"the database at {server(url)} ended this: {explain(error)}") from error


def _wait_for_database(
    url: str, deadline_seconds: float, stopping: Callable[[], bool], *, only_reads: bool = False
) -> tuple[Connection, Dialect]:
    deadline = time.monotonic() + deadline_seconds
    where, said = server(url), ""
    waiting = logs.Episode(log, "waiting for the database", "database reached")
    while True:
        try:
            connection, dialect = connect(url)
            if only_reads or not _is_hot_standby(connection, dialect):
                waiting.end(server=where)
                return connection, dialect
            connection.close()
            reason = _HOT_STANDBY
        except psycopg.Error as error:
            reason = explain(error)
            if reason != said:
                _check_credentials(error, url, reason)
        said = reason
        # A database that does not exist is waited for like silence: who creates it will be done before long.
        remaining = deadline - time.monotonic()
        if remaining <= 0 or stopping():
            raise StartupError(
                f"no connection to the database at {where} within {deadline_seconds:g} s ({reason}); "
                "check DATABASE_URL, or raise START_DEADLINE_SECONDS"
            )
        waiting.begin(server=where, reason=reason, seconds_left=round(remaining))
        time.sleep(min(1.0, max(0.0, remaining)))


def _is_hot_standby(connection: Connection, dialect: Dialect) -> bool:
    """Whether the server takes no rows until it is promoted; `connection` is in no transaction."""
    if dialect.name == "cockroachdb":
        return False
    connection.autocommit = True  # a hot standby has no transaction of the isolation level that is set
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    connection.autocommit = False
    return row == (True,)


def _check_credentials(error: psycopg.Error, url: str, reason: str) -> None:
    """See that the server has not refused who we are, which waiting does not change.

    Raises:
        StartupError: it has.
    """
    code = error.sqlstate or authentication_error(psycopg.conninfo.make_conninfo(**_options(url)))
    if code.startswith(_NOT_AUTHORIZED):
        raise StartupError(
            f"the database at {server(url)} refuses this user or password ({reason}): correct user and password in "
            "DATABASE_URL, or what the server allows that user (pg_hba.conf, LOGIN)"
        ) from None


def cut(connection: Connection) -> None:
    """Make what waits for an answer in another thread end with an error; to close from here would not."""
    with (
        suppress(OSError, psycopg.OperationalError),
        socket.socket(fileno=os.dup(connection.fileno())) as wire,
    ):
        wire.shutdown(socket.SHUT_RDWR)


def server(url: str) -> str:
    """Host, port and database of a connection URL, without its secrets."""
    try:
        parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "DATABASE_URL"
    host = parts.get("host", "localhost")
    return f"{host}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
