"""Waiting for the writer, while Kafka is kept content."""

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
"""How long the writer may hold the loop up before Kafka is told to pause: pausing throws away what was fetched."""


@dataclass(slots=True)
class Stop:
    """Whether the process was told to stop, and when (by the monotonic clock) it must have ended."""

    requested: bool = False
    at_seconds: float = math.inf

    def request(self, within_seconds: float) -> None:
        """Stop within so long. May be called from a signal handler."""
        self.at_seconds = time.monotonic() + within_seconds
        self.requested = True


class WriterWait:
    """Waits for the writer's futures."""

    def __init__(self, reader: Reader, writer: Writer, state: State, stop: Stop) -> None:
        self._reader = reader
        self._writer = writer
        self._state = state
        self._stop = stop
        self._since = 0.0
        self._in_batch = False
        self._interrupted = False

    def wait_briefly(self, future: "Future[Any]") -> None:
        """Let the writer finish `future`; when that takes long, keep our place in the group meanwhile."""
        now = self._state.last_step = time.monotonic()
        self._since = self._since or now
        self._writer.look()
        done, _ = self._writer.wait([future], IDLE_SECONDS)
        if done or self._stop.requested or now - self._since < _PAUSE_AFTER_SECONDS:
            return
        self._reader.keep_membership()

    def wait_in_batch(self, future: "Future[T]") -> T:
        """The writer's answer, waited for in the middle of a batch.

        Raises:
            Abandoned: partitions were taken away meanwhile, or the drain deadline has passed.
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
        """The writer's answer, waited for in a callback of Kafka's, where its client must not be used.

        Raises:
            Abandoned: it has not come within `seconds`, or within a stop's deadline.
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
        """What is ours changes: a batch in whose middle we wait is not stored."""
        if self._in_batch:
            self._interrupted = True

    def over(self) -> None:
        """The writer stores again."""
        self._since = 0.0
        self._reader.resume()
