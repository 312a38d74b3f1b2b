"""Detection of authentication failures by SQLSTATE, which libpq does not return for a failed connection.

For a failed connection libpq returns a text only, in the server's language. But it can trace each protocol message,
including the ErrorResponse with its SQLSTATE:
https://www.postgresql.org/docs/current/libpq-control.html#LIBPQ-PQTRACE
So a rejected connection is attempted once more with a trace into memory. The trace may contain a plain-text password;
only SQLSTATEs are read from it.
"""

import os
import re
import select
import time
from contextlib import suppress
from typing import Final

import psycopg
from psycopg import pq

_ATTEMPT_SECONDS: Final = 5.0
_ERROR_RESPONSE: Final = re.compile(
    rb'^B\t\d+\tErrorResponse\t S "[^"]*" (?:V "[^"]*" )?C "(\w{5})"', re.MULTILINE
)
_AFTER_SCRAM: Final = re.compile(
    rb'^F\t\d+\tSASLResponse\t[^\n]*\nB\t\d+\tErrorResponse\t S "[^"]*" (?:V "[^"]*" )?C "08P01"',
    re.MULTILINE,
)
"""PgBouncer up to 1.18 uses one SQLSTATE for every rejection. An error in place of the server's SCRAM signature
(RFC 5802) means a wrong password; after the signature it would have another cause."""
_BY_PGBOUNCER: Final = re.compile(
    rb'^B\t\d+\tErrorResponse\t S "[^"]*" (?:V "[^"]*" )?C "08P01" '
    rb'M "(?:password authentication failed|no such user|login rejected)',
    re.MULTILINE,
)
"""The same for a plain or MD5 password: PgBouncer up to 1.18 distinguishes these rejections from others only by their
text, which is not translated: https://github.com/pgbouncer/pgbouncer/blob/pgbouncer_1_18_0/src/client.c"""
NOT_AUTHENTICATED: Final = "28P01"
"""Also if the server requires a password and the URL has none: then libpq closes the connection itself."""


def authentication_error(conninfo: str) -> str:
    """Connect once more; return the SQLSTATE with which the server rejects the connection.

    "" if it does not respond, does not reject, or no trace is available (libpq writes one on Linux only).
    """
    try:
        trace = os.memfd_create("libpq-trace")
    except (AttributeError, OSError):
        return ""
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        with suppress(psycopg.NotSupportedError):
            connection.trace(trace)
            connection.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
            _poll(connection, time.monotonic() + _ATTEMPT_SECONDS)
            connection.untrace()
        if connection.needs_password:
            return NOT_AUTHENTICATED
        os.lseek(trace, 0, os.SEEK_SET)
        with os.fdopen(os.dup(trace), "rb") as file:
            text = file.read()
        if _AFTER_SCRAM.search(text) or _BY_PGBOUNCER.search(text):
            return NOT_AUTHENTICATED
        codes = _ERROR_RESPONSE.findall(text)
        return codes[-1].decode() if codes else ""
    finally:
        connection.finish()
        os.close(trace)


def _poll(connection: pq.abc.PGconn, deadline: float) -> None:
    """Poll the connection until it has succeeded or failed, or until `deadline` by the monotonic clock."""
    while (left := deadline - time.monotonic()) > 0 and connection.status != pq.ConnStatus.BAD:
        match connection.connect_poll():
            case pq.PollingStatus.READING:
                select.select([connection.socket], [], [], left)
            case pq.PollingStatus.WRITING:
                select.select([], [connection.socket], [], left)
            case _:
                return
