"""Waiting for the writer without losing the membership of the group."""

import math
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from marketfeed_consumers.errors import Abandoned
from marketfeed_consumers.kafka.reader import IDLE_SECONDS, Reader
from marketfeed_consumers.state import State
from marketfeed_consumers.storage.writer import Writer

T = TypeVar("T")

_PAUSE_AFTER_SECONDS: Final = 1.0
"""How long the loop waits for the writer before it pauses the partitions: pausing discards fetched records."""


@dataclass(slots=True)
class Stop:
    """The stop request of the process, and its deadline by the monotonic clock."""

    requested: bool = False
    at_seconds: float = math.inf

    def request(self, within_seconds: float) -> None:
        """Request a stop within `within_seconds`. May be called from a signal handler."""
        self.at_seconds = time.monotonic() + within_seconds
        self.requested = True


class WriterWait:
    """Waiting for the writer's futures."""

    def __init__(self, reader: Reader, writer: Writer, state: State, stop: Stop) -> None:
        self._reader = reader
        self._writer = writer
        self._state = state
        self._stop = stop
        self._since = 0.0
        self._in_batch = False
        self._interrupted = False

    def wait_briefly(self, future: "Future[Any]") -> None:
        """Wait briefly for `future`; after a while keep the group membership by polling paused partitions."""
        now = self._state.last_step = time.monotonic()
        self._since = self._since or now
        self._writer.look()
        done, _ = self._writer.wait([future], IDLE_SECONDS)
        if done or self._stop.requested or now - self._since < _PAUSE_AFTER_SECONDS:
            return
        self._reader.keep_membership()

    def wait_in_batch(self, future: "Future[T]") -> T:
        """Return the writer's result, waited for in the middle of a batch.

        Raises:
            Abandoned: partitions were revoked meanwhile, or the drain deadline has passed.
        """
        self._in_batch = True
        try:
            while not future.done():
                self.wait_briefly(future)
                if time.monotonic() > self._stop.at_seconds:
                    self._writer.finish([future], 0.0)
        finally:
            self._in_batch = False
            self._since = 0.0
        interrupted, self._interrupted = self._interrupted, False
        if interrupted:
            raise Abandoned
        return future.result()

    def wait_in_callback(self, future: "Future[T]", seconds: float) -> T:
        """Return the writer's result, waited for in a rebalance callback, where the client must not be polled.

        Raises:
            Abandoned: no result within `seconds`, or within a stop's deadline.
        """
        deadline = time.monotonic() + seconds
        while not future.done() and time.monotonic() < min(deadline, self._stop.at_seconds):
            self._state.last_step = time.monotonic()
            self._writer.look()
            self._writer.wait([future], IDLE_SECONDS)
        self._writer.finish([future], 0.0)
        self._writer.resume()
        return future.result()

    def interrupt(self) -> None:
        """Abandon the batch in the middle of which the loop waits, as the assignment changes."""
        if self._in_batch:
            self._interrupted = True

    def over(self) -> None:
        """Reset the waiting time and resume the partitions, as the writer has stored a batch."""
        self._since = 0.0
        self._reader.resume()
