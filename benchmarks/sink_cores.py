"""A core for a consumer process and its database session: how the sink scales when each process brings its core along.

Where one process keeps two cores busy, a second one on the same two says nothing of how they share the work. So each
process, with all its threads, and the server's session that works for it are held on one core; Kafka and what else the
server does run wherever there is room.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psutil
import psycopg

_SESSIONS: Final = """
SELECT client_port, pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'marketfeed-consumer' AND client_port > 0
"""


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


@contextmanager
def born_on(core: int | None) -> Iterator[None]:
    """What is started in the ``with`` block stays on `core`, with every thread it will have; None: anywhere."""
    own = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def hold_sessions(watch: psycopg.Connection[Any], pids: Sequence[int], held_on: Sequence[int]) -> None:
    """Put the database sessions of process ``pids[i]`` on core ``held_on[i]``.

    Raises:
        SystemExit: a process has none, so it would not be held.
    """
    sessions: dict[int, int] = dict(watch.execute(_SESSIONS).fetchall())
    for pid, core in zip(pids, held_on, strict=True):
        ports = {one.laddr.port for one in psutil.Process(pid).net_connections("tcp")}
        own = [session for port, session in sessions.items() if port in ports]
        if not own:
            raise SystemExit(f"no database session of process {pid} is found")
        for session in own:
            os.sched_setaffinity(session, {core})
