"""Connections to the database, and the classification of its errors.

By SQLSTATE, never by text: https://www.postgresql.org/docs/current/errcodes-appendix.html, and for
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
from marketfeed_service import logs
from marketfeed_service.backoff import delays
from marketfeed_service.errors import StartupError

log = logs.get(__name__)

T = TypeVar("T")
DatabaseConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Retry: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Runs a transaction with retries after serialization failures, read-only ones included; see `retry_conflicts`."""
_OPTIONS: Final = {
    "application_name": "marketfeed-consumer",
    "connect_timeout": 10,
    # A server that is gone without a FIN or RST (power, network) is detected within half a minute, not two hours.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Default libpq options, overridden by the URL; times are seconds, the last one milliseconds."""


_NOT_AUTHORIZED: Final = "28"
"""SQLSTATE class of authorization failures."""


_HOT_STANDBY: Final = (
    "it is a hot standby, which is read-only; use the primary, "
    "or several hosts and target_session_attrs=read-write"
)


class Remedy(Enum):
    """How to handle a database error."""

    RETRY = auto()
    """Roll back and retry the transaction soon: a serialization failure or deadlock (class 40)."""
    RECONNECT = auto()
    """The outcome is unknown (40003, connection lost): connect again and read the stored offsets."""
    WAIT = auto()
    """The server is failing or misconfigured: reconnect with backoff, writes are paused meanwhile."""
    VERIFY_ROWS = auto()
    """A row that was planned as new exists (unique violation): look up every row."""
    QUARANTINE = auto()
    """The content is rejected (classes 22, 23, and P0: a trigger's RAISE): find the poison message."""
    SPLIT = auto()
    """A timeout of the server has ended the transaction: split the batch, then wait."""


def remedy(error: psycopg.Error) -> Remedy:
    """Return how to handle `error`."""
    state = error.sqlstate
    if isinstance(error, sql.UniqueViolation):
        return Remedy.VERIFY_ROWS
    if state == "40003" or (state is None and isinstance(error, psycopg.OperationalError)):
        return Remedy.RECONNECT
    if state is None:
        # psycopg rejected a value before sending it, or the connection is in an unusable state.
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
    """Return `error` in one line: the server's primary message and SQLSTATE."""
    text = (error.diag.message_primary or str(error)).strip().split("\n")[0]
    return f"{text} (SQLSTATE {error.sqlstate})" if error.sqlstate else text


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose transactions begin with settings, in the same round trip as BEGIN.

    The settings are local to the transaction, see `Dialect.transaction`. psycopg has no hook for this, so the method
    that begins implicit transactions is overridden; test_consumer_pooler.py fails if psycopg stops calling it.
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


def connect(url: str) -> tuple[DatabaseConnection, Dialect]:
    """Connect; return a connection with SERIALIZABLE transactions, and the server's dialect.

    It prepares no statements: behind a pooler the next transaction may run in a session without them, or with those of
    another client.

    Raises:
        psycopg.Error: the connection failed.
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
    # The URL overrides the defaults, except for the encoding, which COPY relies on.
    return {**_OPTIONS, **psycopg.conninfo.conninfo_to_dict(url), "client_encoding": "UTF8"}


def set_read_only(connection: DatabaseConnection) -> None:
    """Set the transactions of an idle `connection` to read-only REPEATABLE READ, which does not affect writers.

    A long SERIALIZABLE transaction may fail, or make writers fail; and a hot standby has no SERIALIZABLE (0A000:
    https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-CAVEATS).
    """
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ


def begin_read_only(connection: DatabaseConnection, dialect: Dialect) -> None:
    """Begin a read-only transaction, see `set_read_only`."""
    set_read_only(connection)
    if dialect.snapshot:
        connection.execute(dialect.snapshot)


def retry_conflicts(connection: DatabaseConnection, rng: random.Random) -> Callable[[Callable[[], T]], T]:
    """Return a function that runs a whole transaction of `connection`, with retries after failures of class 40."""

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
) -> Iterator[tuple[DatabaseConnection, Dialect]]:
    """Yield a connection for a command; wait for a database that is not reachable yet, and log that.

    Args:
        url: the connection URL.
        deadline_seconds: how long to wait.
        stopping: whether to stop waiting.
        only_reads: accept a hot standby; otherwise it is waited for, as it may be promoted.

    Raises:
        StartupError: no connection within the deadline, or a database error that the caller has not handled.
    """
    connection, dialect = _wait_for_database(url, deadline_seconds, stopping, only_reads=only_reads)
    try:
        with connection:
            yield connection, dialect
    except psycopg.Error as error:
        raise StartupError(f"the database at {server(url)} returned an error: {explain(error)}") from error


def _wait_for_database(
    url: str, deadline_seconds: float, stopping: Callable[[], bool], *, only_reads: bool = False
) -> tuple[DatabaseConnection, Dialect]:
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
        # A database that does not exist is waited for, too: it may be created soon.
        remaining = deadline - time.monotonic()
        if remaining <= 0 or stopping():
            raise StartupError(
                f"no connection to the database at {where} within {deadline_seconds:g} s ({reason}); "
                "check DATABASE_URL, or raise START_DEADLINE_SECONDS"
            )
        waiting.begin(server=where, reason=reason, seconds_left=round(remaining))
        time.sleep(min(1.0, max(0.0, remaining)))


def _is_hot_standby(connection: DatabaseConnection, dialect: Dialect) -> bool:
    """Return whether the server is a hot standby; `connection` must be idle."""
    if dialect.name == "cockroachdb":
        return False
    connection.autocommit = True  # a hot standby rejects SERIALIZABLE transactions
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    connection.autocommit = False
    return row == (True,)


def _check_credentials(error: psycopg.Error, url: str, reason: str) -> None:
    """Check that the server has not rejected the credentials, which waiting would not fix.

    Raises:
        StartupError: the credentials were rejected.
    """
    code = error.sqlstate or authentication_error(psycopg.conninfo.make_conninfo(**_options(url)))
    if code.startswith(_NOT_AUTHORIZED):
        raise StartupError(
            f"the database at {server(url)} rejects this user or password ({reason}): correct user and password in "
            "DATABASE_URL, or what the server allows that user (pg_hba.conf, LOGIN)"
        ) from None


def cut(connection: DatabaseConnection) -> None:
    """Shut the socket down, so that another thread's pending statement fails; close() would not do that."""
    with (
        suppress(OSError, psycopg.OperationalError),
        socket.socket(fileno=os.dup(connection.fileno())) as wire,
    ):
        wire.shutdown(socket.SHUT_RDWR)


def server(url: str) -> str:
    """Return host, port and database of a connection URL, without its secrets."""
    try:
        parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "DATABASE_URL"
    host = parts.get("host", "localhost")
    return f"{host}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
