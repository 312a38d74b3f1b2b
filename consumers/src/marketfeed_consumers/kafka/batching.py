"""When a batch is full enough: plain decisions of the loop, with the clock handed in."""

from dataclasses import dataclass
from typing import Final

CHUNK_ROWS: Final = 2_000
"""How many records are asked of Kafka at once: enough to make the call cheap, few enough to answer a signal soon."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""How much of values a batch holds at most, whatever its rows: bounds memory when messages are huge."""

_LEAST_WAIT_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large and how old a batch may get; see the BATCH_… settings."""

    max_rows: int
    max_seconds: float
    linger_seconds: float


@dataclass(frozen=True, slots=True)
class BatchFill:
    """A batch that is being filled.

    Attributes:
        age_seconds: since its first record was read.
        caught_up: whether Kafka had nothing more when it was last asked.
        writer_idle: whether the database is waiting for it.
    """

    rows: int
    size_bytes: int
    age_seconds: float
    caught_up: bool
    writer_idle: bool


class RowLimit:
    """How many rows a batch may hold: fewer while the database's timeouts end larger ones.

    After a timeout half as many; twice as many again once a batch has taken so little of the time after which the
    larger one was ended that twice as much would do.

    Attributes:
        rows: the most at the moment.
    """

    def __init__(self, max_rows: int) -> None:
        self.rows = max_rows
        self._max_rows = max_rows
        self._timeout_seconds = 0.0

    def timed_out(self, rows: int, seconds: float) -> None:
        """A batch of `rows` was ended after `seconds`."""
        self.rows = max(1, min(self.rows, rows // 2))
        self._timeout_seconds = seconds

    def stored(self, rows: int, seconds: float) -> None:
        """A batch of `rows` was stored within `seconds`."""
        if rows >= self.rows and seconds < 0.4 * self._timeout_seconds:
            self.rows = min(self._max_rows, 2 * self.rows)


def is_full(fill: BatchFill, bounds: BatchLimits) -> bool:
    """Whether nothing more may go into the batch."""
    return fill.rows >= bounds.max_rows or fill.size_bytes >= MAX_BYTES


def is_due(fill: BatchFill, bounds: BatchLimits) -> bool:
    """Whether to store the batch now.

    Behind, it fills up: large batches are cheap. Caught up, it goes as soon as the database has nothing to do and
    it has lingered; while the database is busy it fills on, since it could not be stored any sooner.
    """
    if fill.rows == 0:
        return False
    if is_full(fill, bounds) or fill.age_seconds >= bounds.max_seconds:
        return True
    return fill.caught_up and fill.writer_idle and fill.age_seconds >= bounds.linger_seconds


def wait_seconds(fill: BatchFill, bounds: BatchLimits, max_seconds: float) -> float:
    """How long to wait for more records before looking at the batch again, `max_seconds` at most."""
    if not fill.writer_idle:
        # Short, to notice the writer's end; never nothing, or the wait would be a busy loop.
        return min(max(_LEAST_WAIT_SECONDS, bounds.linger_seconds), max_seconds)
    return min(max(0.0, bounds.linger_seconds - fill.age_seconds), max_seconds)
