"""CPU pinning of a consumer process and its database session, to measure scaling with the number of cores.

If one process uses two cores, a second process on the same cores does not show how they scale. Therefore each process,
with all its threads, and its database session are pinned to one core. Kafka and other server processes are not pinned.
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
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


@contextmanager
def start_on(core: int | None) -> Iterator[None]:
    """Pin processes started in the ``with`` block, with all their threads, to `core`; None for any core."""
    own = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def pin_sessions(watch: psycopg.Connection[Any], pids: Sequence[int], cores: Sequence[int]) -> None:
    """Pin the database sessions of process ``pids[i]`` to ``cores[i]``.

    Args:
        watch: Connection to the database.
        pids: Process ids.
        cores: Core of each process.

    Raises:
        SystemExit: A process has no database session.
    """
    sessions: dict[int, int] = dict(watch.execute(_SESSIONS).fetchall())
    for pid, core in zip(pids, cores, strict=True):
        ports = {one.laddr.port for one in psutil.Process(pid).net_connections("tcp")}
        own = [session for port, session in sessions.items() if port in ports]
        if not own:
            raise SystemExit(f"process {pid} has no database session")
        for session in own:
            os.sched_setaffinity(session, {core})
