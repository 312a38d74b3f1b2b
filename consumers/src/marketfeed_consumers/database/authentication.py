"""Whether a server refuses who we are: by the SQLSTATE of the refusal, which libpq does not hand on.

Of a connection that fails libpq returns words only, in the server's language. But it writes each message of the
protocol to a trace, the ErrorResponse with its SQLSTATE among them:
https://www.postgresql.org/docs/current/libpq-control.html#LIBPQ-PQTRACE
So a refused connection is attempted once more with a trace into memory. The trace can hold a password that the server
wants as it is; nothing but SQLSTATEs is read from it.
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
"""PgBouncer up to 1.18 gives one SQLSTATE to all that it refuses. But one that comes in the place of the server's
signature (RFC 5802) says that the password is wrong; after the signature it would be about something else."""
_BY_PGBOUNCER: Final = re.compile(
    rb'^B\t\d+\tErrorResponse\t S "[^"]*" (?:V "[^"]*" )?C "08P01" '
    rb'M "(?:password authentication failed|no such user|login rejected)',
    re.MULTILINE,
)
"""The same of a password that is sent as it is or as its MD5: PgBouncer up to 1.18 tells these refusals from others by
their text only, which it does not translate: https://github.com/pgbouncer/pgbouncer/blob/pgbouncer_1_18_0/src/client.c"""
NOT_AUTHENTICATED: Final = "28P01"
"""Also where the server asks for a password and the URL has none: then libpq ends the connection itself."""


def authentication_error(conninfo: str) -> str:
    """Connect once more; the SQLSTATE that the server refuses the connection with.

    "" where it does not answer, does not refuse, or the trace cannot be had (libpq writes one on Linux only).
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
    """Go on connecting until that has succeeded or failed, or until `deadline` by the monotonic clock."""
    while (left := deadline - time.monotonic()) > 0 and connection.status != pq.ConnStatus.BAD:
        match connection.connect_poll():
            case pq.PollingStatus.READING:
                select.select([connection.socket], [], [], left)
            case pq.PollingStatus.WRITING:
                select.select([], [connection.socket], [], left)
            case _:
                return
