"""The writer: one thread with one database connection, which stores plans and retries transient failures.

The loop plans and reads Kafka meanwhile; it submits work by `submit_…`, which return futures. A plan ends stored, or in
StaleRanges, DataRejected, Fenced, or Abandoned if the loop gives up. All other failures (lost connection, full disk,
restart) are retried here, and `pause_reason` has the cause.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import psycopg

from marketfeed_consumers.database import connections
from marketfeed_consumers.database.connections import DatabaseConnection, Remedy, remedy
from marketfeed_consumers.database.dialects import POSTGRESQL
from marketfeed_consumers.errors import (
    Abandoned,
    DataRejected,
    StaleRanges,
    TimedOut,
)
from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.kafka.leases import (
    AssignedPartition,
    Lease,
    acquire_leases,
    conflict_error,
    is_committed,
    store_refusals,
)
from marketfeed_consumers.planning.plan import Plan, RangesKey
from marketfeed_consumers.planning.stored_ranges import StoredRanges
from marketfeed_consumers.storage import transaction
from marketfeed_consumers.storage.load import load_stored_ranges
from marketfeed_consumers.storage.transaction import OffsetConflict, Owner, Stored, Written
from marketfeed_consumers.world import REAL, World
from marketfeed_service import logs
from marketfeed_service.backoff import delays

log = logs.get(__name__)
T = TypeVar("T")

LEASE_FAILPOINTS: Final = ("acquiring leases", "leases acquired")
"""Failpoints before and after leases are acquired, see transaction.FAILPOINTS."""

_RETRY_FIRST_SECONDS, _RETRY_CAP_SECONDS = 0.005, 0.5
"""Backoff after a serialization failure: about the duration of a transaction."""
_SILENT_SECONDS = 5.0
"""A batch takes well below a second; without a response for this long writes count as paused."""
_GIVE_UP_SECONDS = 2.0
"""How long a statement may run after `give_up` before its connection is cut."""
_WAIT_FIRST_SECONDS, _WAIT_CAP_SECONDS = 0.2, 15.0
"""Backoff after other failures."""


class Writer:
    """Database work in a thread of its own, one piece at a time.

    Attributes:
        pause_reason: why writes are paused; "" if they are not. Read by /readyz.
        retries: SQLSTATE -> attempts that failed with it ("" for a lost connection).
        wait: waits for futures of this writer.
        request_started_at: when the pending database work began, by the monotonic clock; None without any.
    """

    def __init__(
        self,
        url: str,
        *,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        rng: random.Random | None = None,
        at: Callable[[str], None] = lambda _: None,
        world: World = REAL,
    ) -> None:
        self.wait = world.wait
        self.pause_reason = ""
        self.retries: dict[str, int] = {}
        self.request_started_at: float | None = None
        self._url = url
        self._clock_us = clock_us
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._at = at
        self._world = world
        self._connection: DatabaseConnection | None = None
        self._dialect = POSTGRESQL  # until it is connected
        self._paused = logs.Episode(log, "writes paused", "writes resumed")
        self._give_up = world.make_event()
        self._failed = False
        self._thread = world.make_thread()

    def submit_acquire(
        self, group: str, owner: str, assigned: Sequence[AssignedPartition]
    ) -> "Future[list[Lease]]":
        """Acquire the leases of the partitions `assigned`, as the consumer `owner` of `group`."""

        def attempt(connection: DatabaseConnection) -> list[Lease]:
            self._at("acquiring leases")
            leases = acquire_leases(connection, group, owner, assigned, self._clock_us())
            self._at("leases acquired")
            return leases

        return self._thread.submit(self._retry, attempt)

    def submit_refusals(self, owner: Owner, reasons: Mapping[Partition, str]) -> "Future[None]":
        """Store why partitions must not be consumed from their offsets."""
        return self._thread.submit(
            self._retry, lambda connection: store_refusals(connection, owner, reasons, self._clock_us())
        )

    def submit_load(self, keys: Sequence[RangesKey]) -> "Future[dict[RangesKey, StoredRanges]]":
        """Load stored ranges. Afterwards plans are accepted again if one had failed."""
        return self._thread.submit(self._load, keys)

    def submit_write(self, plan: Plan, owner: Owner) -> "Future[Stored]":
        """Store a plan. After a failed one, plans are abandoned until stored ranges are loaded again."""
        return self._thread.submit(self._write, plan, owner)

    def submit_probe(self, plan: Plan, owner: Owner) -> "Future[DataRejected | None]":
        """Run a plan's transaction and roll it back; the result is the database's rejection of its content, if any."""
        return self._thread.submit(self._probe, plan, owner)

    def why_paused(self) -> str:
        """Return why writes are paused: `pause_reason`, or a response that is overdue; "" if they are not."""
        request_started_at = self.request_started_at
        seconds = 0.0 if request_started_at is None else time.monotonic() - request_started_at
        if self.pause_reason or seconds <= _SILENT_SECONDS:
            return self.pause_reason
        return f"the database has not responded for {seconds:.0f} s"

    def look(self) -> None:
        """Log once that a response is overdue; called periodically while waiting for one."""
        reason = self.why_paused()
        if reason and not self._paused.active:
            self._paused.begin(reason=reason, server=connections.server(self._url))

    def give_up(self) -> None:
        """Stop retrying: the current work ends in Abandoned at its next failure, all later work at once."""
        self._give_up.set()

    def resume(self) -> None:
        """Allow retries again after `give_up`."""
        self._give_up.clear()

    def finish(self, futures: "Sequence[Future[Any]]", seconds: float) -> None:
        """Wait for `futures` up to `seconds`; then give up, and cut the connection if a statement still hangs."""
        if self.wait(futures, seconds)[1]:
            self.give_up()
            if self.wait(futures, _GIVE_UP_SECONDS)[1]:
                if self._connection is not None and not self._connection.closed:
                    self._world.cut(self._connection)
                self.wait(futures)

    def close(self) -> None:
        """Give up pending work and close the connection."""
        self.finish([self._thread.submit(int)], 0.0)
        self._thread.shutdown(wait=True)
        self._disconnect()

    def _load(self, keys: Sequence[RangesKey]) -> dict[RangesKey, StoredRanges]:
        self._failed = False
        return self._retry(lambda connection: load_stored_ranges(connection, keys))

    def _write(self, plan: Plan, owner: Owner) -> Stored:
        if self._failed:
            raise Abandoned
        began = time.monotonic()
        tried: list[Written] = []
        try:
            written = self._retry(
                lambda connection: self._attempt(connection, plan, owner, tried),
                verifies_rows=plan.verify_rows,
                divisible=plan.size > 1,
            )
        except BaseException:
            # Plans based on this one are invalid.
            self._failed = True
            raise
        return Stored(written, self._clock_us(), time.monotonic() - began)

    def _attempt(
        self, connection: DatabaseConnection, plan: Plan, owner: Owner, tried: list[Written]
    ) -> Written:
        """Run the transaction once; its result is appended to `tried` before COMMIT."""
        try:
            written = transaction.write(connection, plan, owner, self._clock_us(), self._at)
        except OffsetConflict:
            connection.rollback()
            if tried and is_committed(connection, plan, owner):
                # An earlier attempt was committed, but its response was lost.
                return tried[-1]
            raise conflict_error(connection, plan, owner) from None
        tried.append(written)
        self._at("committing")
        connection.commit()
        self._at("committed")
        return written

    def _probe(self, plan: Plan, owner: Owner) -> DataRejected | None:
        def attempt(connection: DatabaseConnection) -> None:
            try:
                transaction.write(connection, plan, owner, self._clock_us())
            except OffsetConflict:
                connection.rollback()
                raise conflict_error(connection, plan, owner) from None
            if self._dialect.check_deferred:
                connection.execute(self._dialect.check_deferred)
            connection.rollback()

        try:
            self._retry(attempt, divisible=plan.size > 1)
        except DataRejected as error:
            return error
        return None

    def _retry(
        self,
        action: Callable[[DatabaseConnection], T],
        *,
        verifies_rows: bool = True,
        divisible: bool = False,
    ) -> T:
        """Run `action` on a connection, with retries after transient failures.

        Args:
            action: a transaction.
            verifies_rows: whether it looks up every row.
            divisible: whether it can be split.

        Raises:
            TimedOut: a timeout of the database ended it, and it is divisible.
            DataRejected, StaleRanges, Fenced: permanent failures of `action`.
            Abandoned: `give_up` was called.
        """
        soon = delays(_RETRY_FIRST_SECONDS, _RETRY_CAP_SECONDS, self._rng)
        later = delays(_WAIT_FIRST_SECONDS, _WAIT_CAP_SECONDS, self._rng)
        while not self._give_up.is_set():
            self.request_started_at = began = time.monotonic()
            try:
                result = action(self._connected())
            except psycopg.Error as error:
                self.request_started_at = None
                pause = self._pause_after(error, verifies_rows, soon, later)
                if divisible and remedy(error) is Remedy.SPLIT:
                    raise TimedOut(time.monotonic() - began, connections.explain(error)) from error
                self._give_up.wait(pause)
            except BaseException:
                self._roll_back()
                raise
            else:
                self._on_success()
                return result
            finally:
                self.request_started_at = None
        raise Abandoned

    def _pause_after(
        self, error: psycopg.Error, verifies_rows: bool, soon: Iterator[float], later: Iterator[float]
    ) -> float:
        """Roll back or disconnect; return the seconds to wait before the next attempt."""
        state, what = error.sqlstate or "", remedy(error)
        self.retries[state] = self.retries.get(state, 0) + 1
        if what is Remedy.VERIFY_ROWS and not verifies_rows:
            self._roll_back()
            raise StaleRanges(verify_rows=True) from error
        if what in (Remedy.QUARANTINE, Remedy.VERIFY_ROWS):
            self._roll_back()
            raise DataRejected(state, connections.explain(error)) from error
        if what is Remedy.RETRY:
            self._roll_back()
            return next(soon)
        reason = f"writes to the database failed: {connections.explain(error)}"
        self.pause_reason = reason
        self._paused.begin(reason=reason, server=connections.server(self._url))
        self._disconnect()
        return next(later)

    def _on_success(self) -> None:
        self.pause_reason = ""
        self._paused.end(server=connections.server(self._url))

    def _connected(self) -> DatabaseConnection:
        if self._connection is None or self._connection.closed:
            self._connection, self._dialect = self._world.connect(self._url)
        return self._connection

    def _roll_back(self) -> None:
        if self._connection is not None and not self._connection.closed:
            try:
                self._connection.rollback()
            except psycopg.Error:
                self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
